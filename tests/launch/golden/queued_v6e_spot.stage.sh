#!/usr/bin/env bash
# ilp launch stage launch/examples/queued_v6e_spot.yaml: put weights and data into the bucket, once
set -euo pipefail

# 1 of 5: ask for a v6e-16 (4 workers, spot) as own-7b
gcloud compute tpus queued-resources describe own-7b --project=my-project --zone=us-east5-b >/dev/null 2>&1 ||
  gcloud compute tpus queued-resources create own-7b \
    --node-id=own-7b \
    --project=my-project \
    --zone=us-east5-b \
    --accelerator-type=v6e-16 \
    --runtime-version=v2-alpha-tpuv6e \
    --service-account=ilp@my-project.iam.gserviceaccount.com \
    --scopes=cloud-platform \
    --spot

# 2 of 5: wait for it (from minutes to days: a queue)
state=
until [ "$state" = ACTIVE ]; do
  state="$(gcloud compute tpus queued-resources describe own-7b --project=my-project --zone=us-east5-b --format='value(state.state)')"
  echo "$(date -u +%H:%M:%S) own-7b: $state"
  case "$state" in
    ACTIVE) ;;
    FAILED | SUSPENDING | SUSPENDED) exit 1 ;;
    *) sleep 30 ;;
  esac
done

# 3 of 5: get the image onto all 4 workers
gcloud compute tpus tpu-vm ssh own-7b \
  --project=my-project \
  --zone=us-east5-b \
  --worker=all \
  --command='bash -c '"'"'set -o pipefail; gcloud auth print-access-token | sudo docker login -u oauth2accesstoken --password-stdin https://us-east5-docker.pkg.dev && sudo docker pull --quiet us-east5-docker.pkg.dev/my-project/ilp/ilp_jax:1'"'"''

# 4 of 5: worker 0 downloads Qwen/Qwen2.5-7B and puts it into gs://my-project-ilp/weights/Qwen--Qwen2.5-7B@main
gcloud compute tpus tpu-vm ssh own-7b \
  --project=my-project \
  --zone=us-east5-b \
  --worker=0 \
  --command='sudo docker run --rm --interactive us-east5-docker.pkg.dev/my-project/ilp/ilp_jax:1 python -m ilp_jax.launch.hub Qwen/Qwen2.5-7B gs://my-project-ilp/weights/Qwen--Qwen2.5-7B@main --revision=main'

# 5 of 5: put the data into gs://my-project-ilp/data/own-7b/rows.jsonl
gcloud storage cp examples/rows.jsonl gs://my-project-ilp/data/own-7b/ \
  --recursive

# Next: ilp launch start launch/examples/queued_v6e_spot.yaml
