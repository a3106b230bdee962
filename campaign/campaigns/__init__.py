"""Campaigns: documents of many steps, driven through gates where a person decides."""

__all__ = ["decide", "document", "draw", "driver", "gate", "look", "state"]
