#!/usr/bin/env bash
# ilp launch start launch/examples/xpk_8b_v5e.yaml: start the run; one that was stopped goes on where it was
set -euo pipefail

# 1 of 1: submit the workload own-8b (1 x v5litepod-256: 64 hosts, up to 10 restarts; an exit code of 2 (wrong input) is not tried again)
xpk workload create \
  --workload=own-8b \
  --cluster=ilp \
  --project=my-project \
  --zone=us-west4-b \
  --tpu-type=v5litepod-256 \
  --num-slices=1 \
  --docker-image=us-west4-docker.pkg.dev/my-project/ilp/ilp_jax:1 \
  --command='exec python -m ilp_jax.launch.on_host --fetch gs://my-project-ilp/weights/meta-llama--Llama-3.1-8B@main /tmp/ilp/weights --fetch gs://my-project-ilp/data/own-8b/rows.jsonl /tmp/ilp/data/rows.jsonl -- run --config configs/scale.py:folder=/tmp/ilp/weights,data=/tmp/ilp/data/rows.jsonl --config.train.batch_size=256 --config.mesh.fsdp=256 --workdir gs://my-project-ilp/runs/own-8b --config.mesh.processes=64' \
  --env=HF_HUB_OFFLINE=1 \
  --env=JAX_PLATFORMS=tpu,cpu \
  --env=PYTHONUNBUFFERED=1 \
  --max-restarts=10 \
  --restart-on-exit-codes=1 \
  --termination-grace-period-seconds=300 \
  --priority=medium

# Next: ilp launch status | logs | collect | stop launch/examples/xpk_8b_v5e.yaml
