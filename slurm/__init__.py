"""Everything about Slurm: job scripts, commands, states, clusters."""
