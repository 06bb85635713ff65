"""The devices of a TPU slice, as its compiler knows them."""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections.abc import Iterator, Sequence
from typing import Any

import jax
from jax.experimental import topologies

from ilp_jax.chips import Slice
from ilp_jax.errors import UserError

# Without them libtpu asks a cloud's metadata server for a slice that it is not part of.
_ALONE = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
}


def devices_of(chips: Slice) -> Sequence[Any]:
    """Devices of a slice, for compiling alone.

    Args:
      chips: the slice.

    Raises:
      UserError: the slice is not of TPUs, or libtpu is not installed or does not know it.
    """
    if chips.chip.axes == 1:
        raise UserError("--topology", f"{chips} is no TPU slice", "give one such as v5e:16x16")
    if importlib.util.find_spec("libtpu") is None:
        raise UserError(
            "ilp compile",
            "needs libtpu, which has the TPU's compiler (no TPU is needed)",
            "pip install 'jax[tpu]', 0.2 GB to fetch",
        )
    shape = "x".join(map(str, chips.shape))
    host = (*chips.chip.host, 1)[:3]
    if chips.n_chips < chips.chip.chips_per_host:
        host = (*chips.shape, 1)[:3]
    with _environment():
        try:
            found = topologies.get_topology_desc(
                platform="tpu",
                topology_name=f"{chips.chip.name}:{shape}",
                chip_config_name="default",
                chips_per_host_bounds=host,
            )
        except Exception as error:  # XLA's own type, or a message that depends on the version
            what = " ".join(str(error).split())[:200]
            if "lockfile" in what:
                raise UserError(
                    "ilp compile",
                    "another process of this machine has libtpu open",
                    "wait for it, or set ALLOW_MULTIPLE_LIBTPU_LOAD=1 where no TPU is in use",
                ) from error
            raise UserError(
                f"--topology {chips}", f"libtpu does not have it ({what})", "give another slice"
            ) from error
    return found.devices


@contextlib.contextmanager
def _environment() -> Iterator[None]:
    missing = {name: value for name, value in _ALONE.items() if name not in os.environ}
    # The host's own devices must not be a TPU's: here nothing runs.
    jax.config.update("jax_platforms", "cpu")
    os.environ.update(missing)
    try:
        yield
    finally:
        for name in missing:
            del os.environ[name]
