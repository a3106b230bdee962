#!/bin/bash
#SBATCH --job-name=r-bias-1
#SBATCH --output=/scratch/run/logs/bias.log
#SBATCH --chdir=/scratch/run/logs
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=1
#SBATCH --time=1
#SBATCH --constraint=avx2
#SBATCH --no-requeue
#SBATCH --kill-on-invalid-dep=yes

# Submitted by hand, out of another job, it inherits nothing of that one.
unset "${!SBATCH_@}" "${!PMI_@}" "${!PMIX_@}" "${!OMPI_@}" "${!HYDI_@}" "${!HYDRA_@}"
export PYTHONSAFEPATH=1
export OMP_NUM_THREADS=1
export OPENBLAS_NUM_THREADS=1
export NUMBA_NUM_THREADS=1

/opt/drp/bin/python -P -m kernels.run job.json
