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
code=$?
# Was it able to begin at all?
if [ "$code" -ne 0 ] && ! why=$('/sps/my data/50% of it/it'"'"'s here/bin/python' -P -c 'import sys; from importlib.util import find_spec as find; sys.exit(next((sys.executable + " has no package " + name for name in sys.argv[1:] if not find(name)), 0))' mpi4py kernels 2>&1); then
    why=${why%%$'\n'*}
    echo "error: ${SLURMD_NODENAME:-$HOSTNAME}: ${why#*: line [0-9]*: }: python of the site's file is to be one that the nodes have, with drp-campaign" >&2
    code=3
fi
exit "$code"
