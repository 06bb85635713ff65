#!/usr/bin/env bash
# ilp launch setup launch/examples/xpk_8b_v5e.yaml: what an empty project needs: APIs, bucket, registry, account, cluster
set -euo pipefail

# 1 of 9: switch on the APIs
gcloud services enable artifactregistry.googleapis.com cloudbuild.googleapis.com compute.googleapis.com container.googleapis.com iam.googleapis.com secretmanager.googleapis.com storage.googleapis.com tpu.googleapis.com \
  --project=my-project

# 2 of 9: make the bucket, where the TPUs are (us-west4)
gcloud storage buckets describe gs://my-project-ilp --project=my-project >/dev/null 2>&1 ||
  gcloud storage buckets create gs://my-project-ilp \
    --project=my-project \
    --location=us-west4 \
    --uniform-bucket-level-access

# 3 of 9: make the registry for the image
gcloud artifacts repositories describe ilp --project=my-project --location=us-west4 >/dev/null 2>&1 ||
  gcloud artifacts repositories create ilp \
    --project=my-project \
    --location=us-west4 \
    --repository-format=docker

# 4 of 9: make the service account that the hosts act as
gcloud iam service-accounts describe ilp@my-project.iam.gserviceaccount.com --project=my-project >/dev/null 2>&1 ||
  gcloud iam service-accounts create ilp \
    --project=my-project

# 5 of 9: let it read and write the bucket, and no other
gcloud storage buckets add-iam-policy-binding gs://my-project-ilp \
  --member=serviceAccount:ilp@my-project.iam.gserviceaccount.com \
  --role=roles/storage.objectAdmin

# 6 of 9: let it do this: pulls the image
gcloud projects add-iam-policy-binding my-project \
  --member=serviceAccount:ilp@my-project.iam.gserviceaccount.com \
  --role=roles/artifactregistry.reader \
  --condition=None \
  --format=none

# 7 of 9: let it do this: writes logs
gcloud projects add-iam-policy-binding my-project \
  --member=serviceAccount:ilp@my-project.iam.gserviceaccount.com \
  --role=roles/logging.logWriter \
  --condition=None \
  --format=none

# 8 of 9: let it do this: writes metrics
gcloud projects add-iam-policy-binding my-project \
  --member=serviceAccount:ilp@my-project.iam.gserviceaccount.com \
  --role=roles/monitoring.metricWriter \
  --condition=None \
  --format=none

# 9 of 9: make the cluster ilp with its TPU nodes (20 minutes and more; costs from here on)
xpk cluster create \
  --cluster=ilp \
  --project=my-project \
  --zone=us-west4-b \
  --tpu-type=v5litepod-256 \
  --num-slices=1 \
  --on-demand \
  --custom-tpu-nodepool-arguments=--service-account=ilp@my-project.iam.gserviceaccount.com

# Next: ilp launch image | stage | start launch/examples/xpk_8b_v5e.yaml
