#!/usr/bin/env bash
# ilp launch collect launch/examples/queued_v6e_spot.yaml: copy results to this machine, without checkpoints
set -euo pipefail

# 1 of 1: copy gs://my-project-ilp/runs/own-7b to runs/own-7b (then: ilp report --workdir runs/own-7b)
mkdir -p runs/own-7b
gcloud storage rsync gs://my-project-ilp/runs/own-7b runs/own-7b \
  --recursive \
  --exclude='(^|.*/)checkpoints/.*'

# Next: ilp launch stop launch/examples/queued_v6e_spot.yaml
