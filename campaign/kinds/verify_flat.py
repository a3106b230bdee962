"""Verification of a combined flat."""

from campaign.kinds.verifying import kind

KIND = kind("flat", ("instrument", "physical_filter", "detector"))
