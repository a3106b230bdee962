"""Job files and the kernels that run them on this machine: the wall between campaigns and numerics.

A kernel is a process of its own. It gets a job file and nothing else; its journal, its log and its exit
code are its only results.
"""

__all__ = ["death", "file", "launch", "logs"]
