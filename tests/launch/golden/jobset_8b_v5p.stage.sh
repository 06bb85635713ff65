#!/usr/bin/env bash
# ilp launch stage launch/examples/jobset_8b_v5p.yaml: put weights and data into the bucket, once
set -euo pipefail

# 1 of 4: point kubectl at the cluster ilp
gcloud container clusters get-credentials ilp \
  --location=us-east5 \
  --project=my-project

# 2 of 4: a pod downloads meta-llama/Llama-3.1-8B and puts it into gs://my-project-ilp/weights/meta-llama--Llama-3.1-8B@main
kubectl apply \
  --filename=- <<'ILP_END'
apiVersion: batch/v1
kind: Job
metadata:
  name: own-8b-stage
  labels:
    app: ilp-jax
spec:
  backoffLimit: 2
  template:
    spec:
      restartPolicy: Never
      containers:
      - name: hub
        image: us-east5-docker.pkg.dev/my-project/ilp/ilp_jax:1
        args:
        - python
        - -m
        - ilp_jax.launch.hub
        - meta-llama/Llama-3.1-8B
        - gs://my-project-ilp/weights/meta-llama--Llama-3.1-8B@main
        - --revision=main
        env:
        - name: HF_TOKEN
          valueFrom:
            secretKeyRef:
              name: hf-token
              key: token
ILP_END

# 3 of 4: wait for it
kubectl wait job/own-8b-stage \
  --for=condition=complete \
  --timeout=6h

# 4 of 4: put the data into gs://my-project-ilp/data/own-8b/rows.jsonl
gcloud storage cp examples/rows.jsonl gs://my-project-ilp/data/own-8b/ \
  --recursive

# Next: ilp launch start launch/examples/jobset_8b_v5p.yaml
