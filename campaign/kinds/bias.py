"""Combined bias."""

from campaign.kinds.combining import kind
from campaign.kinds.model import Correction

KIND = kind("bias", ("instrument", "detector"), correction=Correction("doBias", "bias", needed=True))
