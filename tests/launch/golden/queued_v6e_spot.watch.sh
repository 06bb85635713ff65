# ilp launch watch launch/examples/queued_v6e_spot.yaml: TPU VMs: start it, and start it again whenever the TPUs are taken away
# Every 60 s:
gcloud compute tpus queued-resources describe own-7b --project=my-project --zone=us-east5-b --format='value(state.state)'
gcloud compute tpus tpu-vm describe own-7b --project=my-project --zone=us-east5-b --format='value(state)'
gcloud compute tpus tpu-vm ssh own-7b \
  --project=my-project \
  --zone=us-east5-b \
  --worker=all \
  --command='echo "ilp-host $(hostname) $(sudo docker inspect --format '"'"'{{.State.Status}} {{.State.ExitCode}}'"'"' ilp 2>/dev/null || echo none 0)"'

# no queued resource:
#   ask for a v6e-16 (4 workers, spot) as own-7b
# FAILED, SUSPENDED, or the TPU VM is PREEMPTED, TERMINATED, STOPPED:
#   give back the TPUs of own-7b
#   ask for a v6e-16 (4 workers, spot) as own-7b
# ACTIVE, and a worker has no run:
#   get the image onto all 4 workers
#   start the run on all 4 workers at once
# a run ended early (at most 10 times):
#   end the run on all workers
#   start the run on all 4 workers at once
# all workers ended well: done. Exit code 2 of one: wrong input, not tried again.

