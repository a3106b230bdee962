"""Cameras as data: detectors, amplifiers, sections, and how a frame's header is translated.

A camera file and a repository give the same `Camera`.
"""

__all__ = ["headertable", "model", "observation", "parts", "section", "translation"]
