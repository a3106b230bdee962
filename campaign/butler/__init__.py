"""The only door to a Butler repository: ingest, find, register, certify, remove.

Nothing else imports the Butler. Records that leave this room are plain frozen dataclasses.
"""

__all__ = ["exports", "records", "repository"]
