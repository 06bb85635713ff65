#!/usr/bin/env bash
# Sets up .venv and runs the tests from the project's root; arguments go to pytest.
#   bash run_tests.sh                 # all but the slow ones
#   bash run_tests.sh -m slow         # the slow ones
#   ILP_DEVICE=gpu bash run_tests.sh -m gpu -s     # installs JAX for a GPU and checks it
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/launch/env.sh"
ilp_env runtime assets test ${ILP_DEVICE:-}
cd "$ILP_ROOT"
exec "$ILP_PYTHON" -m pytest "$@"
