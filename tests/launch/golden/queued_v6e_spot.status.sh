#!/usr/bin/env bash
# ilp launch status launch/examples/queued_v6e_spot.yaml: whether it waits, runs or has ended
set -euo pipefail

# 1 of 2: the queued resource's state
gcloud compute tpus queued-resources describe own-7b \
  --project=my-project \
  --zone=us-east5-b \
  --format='yaml(state)'

# 2 of 2: the run on each worker
gcloud compute tpus tpu-vm ssh own-7b \
  --project=my-project \
  --zone=us-east5-b \
  --worker=all \
  --command='echo "ilp-host $(hostname) $(sudo docker inspect --format '"'"'{{.State.Status}} {{.State.ExitCode}}'"'"' ilp 2>/dev/null || echo none 0)"'
