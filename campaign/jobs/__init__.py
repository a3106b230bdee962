"""Job files and the kernels that run them on this machine: the wall between campaigns and numerics.

A kernel is a process of its own. A job file is all that reaches it; its journal, its log and its exit
code are all that comes back.
"""

__all__ = ["death", "file", "launch", "logs"]
