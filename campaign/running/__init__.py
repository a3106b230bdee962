"""A plan becomes an outcome: the graph of its tasks, the backends that run them, retries."""

__all__ = ["backend", "chunk", "placement", "runner", "slurm"]
