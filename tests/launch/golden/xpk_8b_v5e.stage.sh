#!/usr/bin/env bash
# ilp launch stage launch/examples/xpk_8b_v5e.yaml: put weights and data into the bucket, once
set -euo pipefail

# 1 of 3: download meta-llama/Llama-3.1-8B to this machine
HF_TOKEN="$(gcloud secrets versions access latest --secret=hf-token --project=my-project)"
export HF_TOKEN
hf download meta-llama/Llama-3.1-8B \
  --revision=main \
  --include='*.safetensors' \
  --include='*.json' \
  --include='tokenizer*' \
  --include='*.jinja' \
  --include=merges.txt \
  --include='LICENSE*' \
  --local-dir=/tmp/ilp-stage/meta-llama--Llama-3.1-8B@main

# 2 of 3: put the weights into gs://my-project-ilp/weights/meta-llama--Llama-3.1-8B@main
gcloud storage rsync /tmp/ilp-stage/meta-llama--Llama-3.1-8B@main gs://my-project-ilp/weights/meta-llama--Llama-3.1-8B@main \
  --recursive \
  --exclude='(^|.*/)\..*'

# 3 of 3: put the data into gs://my-project-ilp/data/own-8b/rows.jsonl
gcloud storage cp examples/rows.jsonl gs://my-project-ilp/data/own-8b/ \
  --recursive

# Next: ilp launch start launch/examples/xpk_8b_v5e.yaml
