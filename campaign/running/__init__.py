"""A plan becomes an outcome: the graph of its tasks, attempts at its jobs, the record of both."""

__all__ = ["chunk", "placement", "runner"]
