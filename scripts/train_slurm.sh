#!/bin/bash
# Train a bundle on one node with four GPUs under Slurm:
#
#   sbatch scripts/train_slurm.sh BUNDLE DATASET [more options of medseg train]
#
# Slurm sends SIGUSR1 two minutes before the time is over, and SIGTERM when the job is preempted.
# Either way a checkpoint is written and the training ends with exit code 0; the job then puts
# itself into the queue again, and goes on from that checkpoint.
#SBATCH --job-name=medseg-train
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --mem=0
#SBATCH --time=12:00:00
#SBATCH --signal=USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=medseg-train-%j.log
set -uo pipefail

if [ "$#" -lt 2 ]; then
    echo "usage: sbatch scripts/train_slurm.sh BUNDLE DATASET [options of medseg train]" >&2
    exit 2
fi
bundle=$1
dataset=$2
shift 2

export OMP_NUM_THREADS=1 # the processes that prepare samples want the cores

# Each of the four tasks sees all GPUs and takes the one of its number: no --gpus-per-task here.
# --resume starts where there is no checkpoint. Without B: in --signal Slurm signals the tasks alone.
result=$(mktemp)
srun --kill-on-bad-exit=1 medseg train "$bundle" --dataset "$dataset" --resume --json "$@" >"$result"
code=$?
cat "$result"

if [ "$code" -eq 0 ] && grep -q '"status": "interrupted"' "$result"; then
    rm -f "$result"
    scontrol requeue "$SLURM_JOB_ID"
    exit 0
fi
rm -f "$result"
exit "$code"
