"""Cameras as data: detectors, amplifiers, sections, and how a frame's header is translated.

A camera file or a repository describes a camera; the same `Camera` comes of both.
"""

__all__ = ["headertable", "model", "observation", "parts", "section", "translation"]
