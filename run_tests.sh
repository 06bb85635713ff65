#!/usr/bin/env bash
# Sets up .venv and runs the tests from the project's root; arguments go to pytest.
#   bash run_tests.sh                 # all but the slow ones
#   bash run_tests.sh -m slow         # the slow ones
#   ILP_DEVICE=gpu bash run_tests.sh -m gpu -s     # installs JAX for a GPU and checks it
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/launch/env.sh"
ilp_env runtime assets test ${ILP_DEVICE:-}
cd "$ILP_ROOT"
# As many processes as cores, at most four (each has JAX, 1 to 3 GB). A file's tests stay together,
# for they share fixtures that take long. One process where output is to be seen (-s), where the
# user says how many (-n), and on an accelerator.
shared="-n logical --maxprocesses 4 --dist loadfile"
[ -z "${ILP_DEVICE:-}" ] || shared=""
for argument in "$@"; do
  case "$argument" in -s | -n* | --pdb) shared="" ;; esac
done
# shellcheck disable=SC2086
exec "$ILP_PYTHON" -m pytest $shared "$@"
