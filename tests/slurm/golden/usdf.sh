#!/bin/bash
#SBATCH --job-name=r-bias-1
#SBATCH --output=/scratch/run/logs/bias.log
#SBATCH --chdir=/scratch/run/logs
#SBATCH --nodes=4
#SBATCH --ntasks=189
#SBATCH --ntasks-per-node=48
#SBATCH --cpus-per-task=2
#SBATCH --mem=192048M
#SBATCH --time=90
#SBATCH --partition=milano
#SBATCH --account=rubin:production
#SBATCH --qos=normal
#SBATCH --reservation='drp night'
#SBATCH --constraint='AMD&bigmem'
#SBATCH --signal=B:USR1@120
#SBATCH --no-requeue
#SBATCH --kill-on-invalid-dep=yes
#SBATCH --exclusive
#SBATCH '--comment=a night'"'"'s work'

# Submitted by hand, out of another job, it inherits nothing of that one.
unset "${!SBATCH_@}" "${!PMI_@}" "${!PMIX_@}" "${!OMPI_@}" "${!HYDI_@}" "${!HYDRA_@}"
export NUMBA_CACHE_DIR=/lscratch/numba
export GREETING='it'"'"'s "$HOME" `id`'
source /cvmfs/drp/setup.sh
umask 002
export PYTHONSAFEPATH=1
export OMP_NUM_THREADS=1
export OPENBLAS_NUM_THREADS=1
export NUMBA_NUM_THREADS=1

# Slurm warns this script before the time is up: the command is asked to end, and why it ended is told by the exit code.
late=
trap 'late=1; echo "error: 120 s are left of 90 min: the command is ended" >&2
    [ -z "$child" ] || kill -TERM "$child"' USR1
child=
srun --mpi=pmi2 --kill-on-bad-exit=1 -n 189 -c 2 /cvmfs/drp/bin/python -P -m mpi4py -m kernels.run /scratch/run/jobs/bias.json &
child=$!
[ -z "$late" ] || kill -TERM "$child"
while
    wait "$child"
    code=$?
    kill -0 "$child" 2>/dev/null
do :; done
[ -z "$late" ] || [ "$code" -eq 0 ] || code=124
# Was it able to begin at all?
if [ "$code" -ne 0 ] && ! why=$(/cvmfs/drp/bin/python -P -c 'import sys; from importlib.util import find_spec as find; sys.exit(next((sys.executable + " has no package " + name for name in sys.argv[1:] if not find(name)), 0))' mpi4py kernels 2>&1); then
    why=${why%%$'\n'*}
    echo "error: ${SLURMD_NODENAME:-$HOSTNAME}: ${why#*: line [0-9]*: }: python of the site's file is to be one that the nodes have, with drp-campaign" >&2
    code=3
fi
exit "$code"
