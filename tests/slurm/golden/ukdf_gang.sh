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
code=$?
# Was it able to begin at all?
if [ "$code" -ne 0 ] && ! why=$(/opt/drp/bin/python -P -c 'import sys; from importlib.util import find_spec as find; sys.exit(next((sys.executable + " has no package " + name for name in sys.argv[1:] if not find(name)), 0))' mpi4py kernels 2>&1); then
    why=${why%%$'\n'*}
    echo "error: ${SLURMD_NODENAME:-$HOSTNAME}: ${why#*: line [0-9]*: }: python of the site's file is to be one that the nodes have, with drp-campaign" >&2
    code=3
fi
exit "$code"
