"""Bring existing calibrations into a ticket: files in upstream's layouts, or a folder of `butler export-calibs`.

Everything is read, checked and decided before anything is registered.
"""

__all__ = ["command", "plan"]
