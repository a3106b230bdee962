"""Kinds of product: what each is made of, by which kernel, and what becomes of it."""

__all__ = ["draft", "model", "table", "task"]
