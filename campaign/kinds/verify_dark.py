"""Verification of a combined dark."""

from campaign.kinds.verifying import kind

KIND = kind("dark")
