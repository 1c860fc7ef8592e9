#!/bin/bash
# Slurm: sbatch slurm.sh. Each node has one graphics card and one worker; the folder of the results is shared by all.
#SBATCH --job-name=maquette-fleet
#SBATCH --nodes=@WORKERS@
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=12:00:00
#SBATCH --signal=B:TERM@120
#SBATCH --requeue
set -euo pipefail
export RAY_USAGE_STATS_ENABLED=0
export RAY_TMPDIR=/tmp/ray-$SLURM_JOB_ID
export RAY_AUTH_MODE=token
RAY_AUTH_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')  # by which the nodes know each other
export RAY_AUTH_TOKEN
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n1)
srun --nodes=1 --ntasks=1 -w "$head" ray start --head --port=6379 --object-store-memory=1000000000 --block &
sleep 15
if [ "$SLURM_JOB_NUM_NODES" -gt 1 ]; then
  srun --nodes=$((SLURM_JOB_NUM_NODES - 1)) --ntasks=$((SLURM_JOB_NUM_NODES - 1)) --exclude="$head" \
    ray start --address="$head:6379" --object-store-memory=1000000000 --block &
  sleep 15
fi
export RAY_ADDRESS=$head:6379
maquette fleet run --root @ROOT@ --address auto --workers @WORKERS@ &
driver=$!
trap 'kill -TERM $driver' TERM  # it drains; the requeued job goes on
wait $driver
