#!/bin/bash
#SBATCH --job-name=r-bias-1
#SBATCH --output=/scratch/run/logs/bias.log
#SBATCH --chdir=/scratch/run/logs
#SBATCH --ntasks=189
#SBATCH --cpus-per-task=2
#SBATCH --time=90
#SBATCH --constraint=avx2
#SBATCH --no-requeue
#SBATCH --kill-on-invalid-dep=yes

# Submitted by hand, out of another job, it inherits nothing of that one.
unset "${!SBATCH_@}" "${!PMI_@}" "${!PMIX_@}" "${!OMPI_@}" "${!HYDI_@}" "${!HYDRA_@}"
export PYTHONSAFEPATH=1
export OMP_NUM_THREADS=1
export OPENBLAS_NUM_THREADS=1
export NUMBA_NUM_THREADS=1

/opt/drp/bin/mpiexec -n 189 /opt/drp/bin/python -P -m mpi4py -m kernels.run /job.json
