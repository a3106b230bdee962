"""One plan at several sites: shares by processing fraction, sent, watched, collected."""

__all__ = ["onsite", "participants", "siteplan"]
