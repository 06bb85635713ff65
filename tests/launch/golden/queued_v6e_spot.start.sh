#!/usr/bin/env bash
# ilp launch start launch/examples/queued_v6e_spot.yaml: start the run; one that was stopped goes on where it was
set -euo pipefail

# 1 of 4: ask for a v6e-16 (4 workers, spot) as own-7b
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

# 2 of 4: wait for it (from minutes to days: a queue)
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

# 3 of 4: get the image onto all 4 workers
gcloud compute tpus tpu-vm ssh own-7b \
  --project=my-project \
  --zone=us-east5-b \
  --worker=all \
  --command='bash -c '"'"'set -o pipefail; gcloud auth print-access-token | sudo docker login -u oauth2accesstoken --password-stdin https://us-east5-docker.pkg.dev && sudo docker pull --quiet us-east5-docker.pkg.dev/my-project/ilp/ilp_jax:1'"'"''

# 4 of 4: start the run on all 4 workers at once
gcloud compute tpus tpu-vm ssh own-7b \
  --project=my-project \
  --zone=us-east5-b \
  --worker=all \
  --command='sudo docker inspect --format '"'"'{{.State.Running}}'"'"' ilp 2>/dev/null | grep -qx true || { sudo docker rm --force ilp >/dev/null 2>&1; sudo docker run --detach --name=ilp --privileged --network=host --user=0 --volume=/tmp/ilp:/tmp/ilp --env=HF_HUB_OFFLINE=1 --env=JAX_PLATFORMS=tpu,cpu --env=PYTHONUNBUFFERED=1 us-east5-docker.pkg.dev/my-project/ilp/ilp_jax:1 python -m ilp_jax.launch.on_host --fetch gs://my-project-ilp/weights/Qwen--Qwen2.5-7B@main /tmp/ilp/weights --fetch gs://my-project-ilp/data/own-7b/rows.jsonl /tmp/ilp/data/rows.jsonl -- run --config configs/scale.py:folder=/tmp/ilp/weights,data=/tmp/ilp/data/rows.jsonl --config.train.batch_size=64 --config.mesh.fsdp=16 --workdir gs://my-project-ilp/runs/own-7b --config.mesh.processes=4; }'

# Next: ilp launch watch | status | logs | collect | stop launch/examples/queued_v6e_spot.yaml
