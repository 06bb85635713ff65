#!/usr/bin/env bash
# ilp launch start launch/examples/jobset_8b_v5p.yaml: start the run; one that was stopped goes on where it was
set -euo pipefail

# 1 of 2: point kubectl at the cluster ilp
gcloud container clusters get-credentials ilp \
  --location=us-east5 \
  --project=my-project

# 2 of 2: submit the JobSet own-8b (2 x v5p-128: 32 hosts, up to 10 restarts)
kubectl apply \
  --filename=- <<'ILP_END'
apiVersion: jobset.x-k8s.io/v1alpha2
kind: JobSet
metadata:
  name: own-8b
  labels:
    app: ilp-jax
  annotations:
    alpha.jobset.sigs.k8s.io/exclusive-topology: cloud.google.com/gke-nodepool
spec:
  ttlSecondsAfterFinished: 86400
  failurePolicy:
    maxRestarts: 10
    rules:
    - name: wrong-input
      action: FailJobSet
      onJobFailureReasons:
      - PodFailurePolicy
  replicatedJobs:
  - name: slice
    replicas: 2
    template:
      spec:
        parallelism: 16
        completions: 16
        completionMode: Indexed
        backoffLimit: 0
        podFailurePolicy:
          rules:
          - action: FailJob
            onExitCodes:
              containerName: ilp
              operator: In
              values:
              - 2
        template:
          metadata:
            labels:
              app: ilp-jax
          spec:
            restartPolicy: Never
            terminationGracePeriodSeconds: 300
            nodeSelector:
              cloud.google.com/gke-tpu-accelerator: tpu-v5p-slice
              cloud.google.com/gke-tpu-topology: 4x4x4
            tolerations:
            - key: google.com/tpu
              operator: Exists
              effect: NoSchedule
            hostNetwork: true
            dnsPolicy: ClusterFirstWithHostNet
            containers:
            - name: ilp
              image: us-east5-docker.pkg.dev/my-project/ilp/ilp_jax:1
              args:
              - python
              - -m
              - ilp_jax.launch.on_host
              - --fetch
              - gs://my-project-ilp/weights/meta-llama--Llama-3.1-8B@main
              - /tmp/ilp/weights
              - --fetch
              - gs://my-project-ilp/data/own-8b/rows.jsonl
              - /tmp/ilp/data/rows.jsonl
              - --
              - run
              - --config
              - configs/scale.py:folder=/tmp/ilp/weights,data=/tmp/ilp/data/rows.jsonl
              - --config.train.batch_size=128
              - --config.mesh.fsdp=64
              - --workdir
              - gs://my-project-ilp/runs/own-8b
              - --config.mesh.processes=32
              env:
              - name: HF_HUB_OFFLINE
                value: '1'
              - name: JAX_PLATFORMS
                value: tpu,cpu
              - name: PYTHONUNBUFFERED
                value: '1'
              - name: LIBTPU_INIT_ARGS
                value: --xla_tpu_enable_async_collective_fusion=true
              securityContext:
                privileged: true
                runAsUser: 0
              ports:
              - containerPort: 8471
              - containerPort: 8080
              resources:
                limits:
                  google.com/tpu: 4
              volumeMounts:
              - name: local
                mountPath: /tmp/ilp
            volumes:
            - name: local
              emptyDir: {}
ILP_END

# Next: ilp launch status | logs | collect | stop launch/examples/jobset_8b_v5p.yaml
