"""Read upstream's pipeline files, check them, and map their tasks to kernels.

A configuration that no kernel honours is refused by name.
"""

__all__ = ["makers", "model", "svg"]
