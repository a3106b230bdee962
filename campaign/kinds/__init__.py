"""Kinds of product: the inputs, kernel and use of each."""

__all__ = ["draft", "model", "table", "task"]
