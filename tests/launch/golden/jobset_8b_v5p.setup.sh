#!/usr/bin/env bash
# ilp launch setup launch/examples/jobset_8b_v5p.yaml: what an empty project needs: APIs, bucket, registry, account, cluster
set -euo pipefail

# 1 of 13: switch on the APIs
gcloud services enable artifactregistry.googleapis.com cloudbuild.googleapis.com compute.googleapis.com container.googleapis.com iam.googleapis.com secretmanager.googleapis.com storage.googleapis.com tpu.googleapis.com \
  --project=my-project

# 2 of 13: make the bucket, where the TPUs are (us-east5)
gcloud storage buckets describe gs://my-project-ilp --project=my-project >/dev/null 2>&1 ||
  gcloud storage buckets create gs://my-project-ilp \
    --project=my-project \
    --location=us-east5 \
    --uniform-bucket-level-access

# 3 of 13: make the registry for the image
gcloud artifacts repositories describe ilp --project=my-project --location=us-east5 >/dev/null 2>&1 ||
  gcloud artifacts repositories create ilp \
    --project=my-project \
    --location=us-east5 \
    --repository-format=docker

# 4 of 13: make the service account that the hosts act as
gcloud iam service-accounts describe ilp@my-project.iam.gserviceaccount.com --project=my-project >/dev/null 2>&1 ||
  gcloud iam service-accounts create ilp \
    --project=my-project

# 5 of 13: let it read and write the bucket, and no other
gcloud storage buckets add-iam-policy-binding gs://my-project-ilp \
  --member=serviceAccount:ilp@my-project.iam.gserviceaccount.com \
  --role=roles/storage.objectAdmin

# 6 of 13: let it do this: pulls the image
gcloud projects add-iam-policy-binding my-project \
  --member=serviceAccount:ilp@my-project.iam.gserviceaccount.com \
  --role=roles/artifactregistry.reader \
  --condition=None \
  --format=none

# 7 of 13: let it do this: writes logs
gcloud projects add-iam-policy-binding my-project \
  --member=serviceAccount:ilp@my-project.iam.gserviceaccount.com \
  --role=roles/logging.logWriter \
  --condition=None \
  --format=none

# 8 of 13: let it do this: writes metrics
gcloud projects add-iam-policy-binding my-project \
  --member=serviceAccount:ilp@my-project.iam.gserviceaccount.com \
  --role=roles/monitoring.metricWriter \
  --condition=None \
  --format=none

# 9 of 13: make the cluster ilp (10 minutes; costs from here on)
gcloud container clusters describe ilp --project=my-project --location=us-east5 >/dev/null 2>&1 ||
  gcloud container clusters create ilp \
    --project=my-project \
    --location=us-east5 \
    --num-nodes=1 \
    --release-channel=regular \
    --service-account=ilp@my-project.iam.gserviceaccount.com \
    --scopes=cloud-platform

# 10 of 13: give it the TPU nodes own-8b-0 (16 of ct5p-hightpu-4t)
gcloud container node-pools describe own-8b-0 --project=my-project --location=us-east5 --cluster=ilp >/dev/null 2>&1 ||
  gcloud container node-pools create own-8b-0 \
    --project=my-project \
    --location=us-east5 \
    --cluster=ilp \
    --node-locations=us-east5-a \
    --machine-type=ct5p-hightpu-4t \
    --num-nodes=16 \
    --tpu-topology=4x4x4 \
    --service-account=ilp@my-project.iam.gserviceaccount.com \
    --scopes=cloud-platform

# 11 of 13: give it the TPU nodes own-8b-1 (16 of ct5p-hightpu-4t)
gcloud container node-pools describe own-8b-1 --project=my-project --location=us-east5 --cluster=ilp >/dev/null 2>&1 ||
  gcloud container node-pools create own-8b-1 \
    --project=my-project \
    --location=us-east5 \
    --cluster=ilp \
    --node-locations=us-east5-a \
    --machine-type=ct5p-hightpu-4t \
    --num-nodes=16 \
    --tpu-topology=4x4x4 \
    --service-account=ilp@my-project.iam.gserviceaccount.com \
    --scopes=cloud-platform

# 12 of 13: point kubectl at the cluster ilp
gcloud container clusters get-credentials ilp \
  --location=us-east5 \
  --project=my-project

# 13 of 13: install JobSet v0.9.1 on it
kubectl apply \
  --server-side \
  --filename https://github.com/kubernetes-sigs/jobset/releases/download/v0.9.1/manifests.yaml

# Next: ilp launch image | stage | start launch/examples/jobset_8b_v5p.yaml
