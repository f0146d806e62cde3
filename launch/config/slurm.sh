#!/bin/bash
#SBATCH --job-name=modalgate
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@300
#
# One training on several nodes, a process per GPU:
#
#     sbatch --nodes 2 --gpus-per-node 4 slurm.sh pretrain CONFIG key=value ...
#
# Everything after the script's name is given to `modalgate`, with `--resume auto`. Five minutes before the time limit
# Slurm sends SIGUSR1 here; the training then writes a checkpoint and stops, and the job goes back into
# the queue and resumes. The run folder must lie on a disk that all nodes share.
set -u

if [[ $# -eq 0 ]]; then
    echo "usage: sbatch [--nodes N] [--gpus-per-node N] slurm.sh pretrain CONFIG [key=value ...]" >&2
    exit 2
fi

head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
# Two jobs that share a node must not share a port.
port=$((20000 + SLURM_JOB_ID % 20000))
out_of_time=

ask_to_stop() {
    out_of_time=yes
    # To the job's steps, not to this shell: torchrun passes SIGTERM to every rank.
    scancel --signal=TERM "$SLURM_JOB_ID"
}
trap ask_to_stop USR1

srun --kill-on-bad-exit=1 torchrun \
    --nnodes "$SLURM_JOB_NUM_NODES" \
    --nproc_per_node "${SLURM_GPUS_ON_NODE:-1}" \
    --rdzv_id "$SLURM_JOB_ID" \
    --rdzv_backend c10d \
    --rdzv_endpoint "$head:$port" \
    -m modalgate.launch.cli "$@" --resume auto &
step=$!
# In the background: bash runs no trap during a foreground command, and a trap ends a `wait`.
wait "$step"
status=$?
while kill -0 "$step" 2>/dev/null; do
    wait "$step"
    status=$?
done

if [[ -n $out_of_time && $status -ne 0 ]]; then
    echo "out of time: the job goes back into the queue and resumes from its checkpoint" >&2
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
