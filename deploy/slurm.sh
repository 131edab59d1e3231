#!/usr/bin/env bash
# A sweep on nodes of Slurm, from a folder that all of them share, in which `make install` has run:
#
#   sbatch deploy/slurm.sh sweeps/model_scaling.yaml
#   sbatch --nodes=4 --gpus-per-node=1 --time=48:00:00 deploy/slurm.sh my.yaml --set pool.gpus=1
#
# What follows the sweep file goes to `vlm-rm sweep`; results are in `results`, or in RESULTS if that is set. Five minutes before its time
# is over, the job is put into the queue again, as Slurm itself does when a node fails, and the sweep goes on where it stopped.
#SBATCH --job-name=vlm-rm
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --exclusive
#SBATCH --time=24:00:00
#SBATCH --signal=B:USR1@300
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail
umask 077

sweep=${1:?name the sweep file: sbatch deploy/slurm.sh sweeps/model_scaling.yaml}
shift
cd "$SLURM_SUBMIT_DIR"
results=${RESULTS:-$SLURM_SUBMIT_DIR/results}
export PATH="$SLURM_SUBMIT_DIR/.venv/bin:$PATH"
export RAY_USAGE_STATS_ENABLED=0
# Importing Ray from a shared folder takes longer than the 30 s that its nodes would wait for each other.
export RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=300

# A token of this job's own, in a file that only you can read: other users of the nodes could read an argument.
export RAY_AUTH_MODE=token
export RAY_AUTH_TOKEN_PATH="$HOME/.ray/slurm-$SLURM_JOB_ID"
mkdir -p "$HOME/.ray"
python3 -c 'import secrets; print(secrets.token_hex(32))' > "$RAY_AUTH_TOKEN_PATH"
trap 'rm -f "$RAY_AUTH_TOKEN_PATH"' EXIT
trap 'scontrol requeue "$SLURM_JOB_ID"' USR1

# This script runs on the first of the nodes, which becomes the head, at the first of its addresses.
head_address=$(hostname -I | cut -d ' ' -f 1):6379

# In the background, because a shell that waits for a command takes no signals meanwhile.
srun --ntasks-per-node=1 --cpus-per-task="$SLURM_CPUS_PER_TASK" ray symmetric-run --address="$head_address" \
    --min-nodes="$SLURM_JOB_NUM_NODES" --num-cpus="$SLURM_CPUS_PER_TASK" -- \
    env RAY_ADDRESS="$head_address" vlm-rm sweep "$sweep" --results "$results" --resume --yes "$@" &
wait "$!"
