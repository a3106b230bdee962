"""Verification of a combined bias."""

from campaign.kinds.verifying import kind

KIND = kind("bias")
