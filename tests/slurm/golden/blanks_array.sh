#!/bin/bash
#SBATCH --job-name=r-flat-1
#SBATCH --output='/sps/my data/50%% of it/it'"'"'s here/logs/flat 1.%a.log'
#SBATCH --chdir='/sps/my data/50% of it/it'"'"'s here/logs'
#SBATCH --array=0-2
#SBATCH --nodes=1
#SBATCH --ntasks=2
#SBATCH --ntasks-per-node=2
#SBATCH --cpus-per-task=1
#SBATCH --mem=200M
#SBATCH --time=60
#SBATCH --partition=main
#SBATCH --no-requeue
#SBATCH --kill-on-invalid-dep=yes
#SBATCH --licenses='sps disk:1'

# Submitted by hand, out of another job, it inherits nothing of that one.
unset "${!SBATCH_@}" "${!PMI_@}" "${!PMIX_@}" "${!OMPI_@}" "${!HYDI_@}" "${!HYDRA_@}"
export SCRATCH='/sps/my data/50% of it/it'"'"'s here/scratch'
source "/sps/my data/50% of it/it's here/setup it.sh"
cd '/sps/my data/50% of it/it'"'"'s here/scratch' || exit 1
export PYTHONSAFEPATH=1
export OMP_NUM_THREADS=1
export OPENBLAS_NUM_THREADS=1
export NUMBA_NUM_THREADS=1

# Written by us, each word quoted: one command line an element.
line=$(sed -n "$((1 + SLURM_ARRAY_TASK_ID))p" '/sps/my data/50% of it/it'"'"'s here/a b.commands')
eval "command=($line)"
if [ -z "$line" ]; then
    echo "error: element $SLURM_ARRAY_TASK_ID has no command in "'/sps/my data/50% of it/it'"'"'s here/a b.commands' >&2
    exit 1
fi
'/sps/my data/50% of it/it'"'"'s here/bin/mpiexec' -n 2 "${command[@]}"
code=$?
exit "$code"
