"""Slurm: job scripts, commands, states of jobs, Dask workers, private clusters; nothing of campaigns."""
