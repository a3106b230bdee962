"""The numerics: read, correct, combine, measure, simulate and publish.

A kernel sees a :class:`kernels.jobs.job.Job` and nothing else: no Butler, no
scheduler, no environment.  Run one by hand with
``mpiexec -n 4 python -P -m mpi4py -m kernels.run job.json``.
"""
