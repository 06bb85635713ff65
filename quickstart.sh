#!/usr/bin/env bash
# Sets up .venv and runs configs/quickstart.py on this machine into runs/quickstart.
#   bash quickstart.sh [any argument of `ilp run`, such as --config.seed=1]
# ILP_DEVICE=tpu, gpu or gpu-cuda12 also installs JAX for that device.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/launch/env.sh"
ilp_env runtime assets ${ILP_DEVICE:-}
# glibc keeps freed memory in an arena a thread; two of them take 1 GB less at the peak.
export MALLOC_ARENA_MAX="${MALLOC_ARENA_MAX:-2}"
exec "$ILP_PYTHON" -m ilp_jax run \
  --config "$ILP_ROOT/configs/quickstart.py" --workdir "$ILP_ROOT/runs/quickstart" "$@"
