#!/bin/bash
#SBATCH --job-name=r-bias-1
#SBATCH --output='/sps/my data/50%% of it/it'"'"'s here/logs/bias 1.log'
#SBATCH --chdir='/sps/my data/50% of it/it'"'"'s here/logs'
#SBATCH --nodes=2
#SBATCH --ntasks=3
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

'/sps/my data/50% of it/it'"'"'s here/bin/mpiexec' -n 3 '/sps/my data/50% of it/it'"'"'s here/bin/python' -P -m mpi4py -m kernels.run '/sps/my data/50% of it/it'"'"'s here/jobs/bias 1.json'
