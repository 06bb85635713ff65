"""A command's hold on a run's folder: its workspace, and parameters on the device."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Iterator
from typing import Any

import jax
from etils import epath
from ml_collections import ConfigDict

from ilp_jax import files, identity, run_record, tuned
from ilp_jax.config import config_hash, to_dict
from ilp_jax.errors import RunFailure, UserError
from ilp_jax.mesh import processes
from ilp_jax.notes import about_stages, notes
from ilp_jax.run_data import PLAN, make_options, write_data
from ilp_jax.stats import replay as replayed
from ilp_jax.stats.projections import PROJECTIONS
from ilp_jax.stats.reader import INFERENCE
from ilp_jax.train import loop
from ilp_jax.train.checkpoint import Checkpoints, check_place
from ilp_jax.workspace import Workspace, load_weights, open_workspace
from ilp_jax.world.base import located


@dataclasses.dataclass
class Session:
    """The workspace, made when first needed, and what one phase hands to the next.

    Attributes:
      config: the resolved config.
      workdir: the run's folder.
      params: parameters that the phase before left on the device, None if it left none.
      holds: whether the folder is locked, so that its record may be written.
    """

    config: ConfigDict
    workdir: epath.Path
    params: Any = None
    holds: bool = False
    _workspace: Workspace | None = None

    @property
    def workspace(self) -> Workspace:
        """Config, data, tokenizer and programs; the data's tables are written with it.

        Raises:
          UserError: the run goes on, and something is not what it began from.
        """
        if self._workspace is None:
            check_place(self.workdir)
            opened = tuned.open_pair if self.config.model.tuned else open_workspace
            config = processes.first_then_rest(lambda: located(self.config))
            ws = opened(config, self.workdir)
            # Before the tables are written: with them the run has begun.
            if not (has_begun := processes.on_first((self.workdir / PLAN).exists)):
                identity.hold(ws, has_begun, self.holds)
            written = processes.first_then_rest(lambda: write_data(ws))
            if has_begun:
                identity.hold(ws, has_begun, self.holds)
            self._workspace = written
            if processes.is_first():
                for line in ws.data.long_rows:  # before anything is spent on the others
                    print(line, file=sys.stderr, flush=True)
        return self._workspace

    def begin(self, phase: str, alone: bool = False) -> None:
        """Records what a phase is computed under; see ``run_record.begin_phase``.

        Args:
          phase: its name.
          alone: whether it reads and writes files alone, all of them anew.

        Raises:
          UserError: see ``workspace``, which is needed where it is not alone.
        """
        if not alone:
            _ = self.workspace
        device = None if alone else device_in_words()
        processes.on_first(run_record.begin_phase, self.workdir, phase, device, alone)

    def make_options(self, params: Any) -> None:
        """Draws the base model's own wrong answers as options, where a stage asks for them.

        Args:
          params: the base model's parameters on the device.
        """
        with_options = make_options(self.workspace, params)
        if with_options is self._workspace:
            return
        self._workspace = with_options
        record = run_record.read(self.workdir)
        about = (record.get("about") or {}) | {"notes": self._notes()}
        processes.on_first(lambda: run_record.describe(self.workdir, record["weights_hash"], about))

    def take_params(self) -> Any:
        """The parameters that the phase before left; they are handed over."""
        params, self.params = self.params, None
        return params

    def load_base(self) -> Any:
        """The base model's parameters on the device; records what they are."""
        data = self.workspace.data  # first: what is wrong with it shows before weights are read
        loaded = load_weights(self.workspace.config.model.path, self.workspace.layout)
        about = {
            "weights": loaded.description,
            "stages": about_stages(data),
            "notes": self._notes(),
        }
        hashes = processes.exchange(loaded.weights_hash)
        if len(set(hashes)) > 1:
            raise UserError(
                self.workspace.config.model.path,
                f"is not the same in all processes (process {_odd(hashes)} has another)",
                "stage the same weights on every host",
            )
        processes.on_first(lambda: run_record.describe(self.workdir, loaded.weights_hash, about))
        return loaded.params

    def read_base(self) -> Any:
        """The base model's parameters on the device; records nothing.

        Adapters, where the run has them, are not among them.
        """
        ws = self.workspace
        loaded = load_weights(ws.config.model.path, ws.layout)
        identity.require_weights(self.workdir, loaded.weights_hash)
        return loaded.params

    def restore_final(self) -> Any:
        """The parameters after the last update, from its checkpoint (and the base, if adapted).

        Raises:
          UserError: there is no such checkpoint, or it is damaged.
        """
        ws = self.workspace
        checkpoints = Checkpoints(ws.workdir / loop.CHECKPOINTS, ws.config.checkpoint.keep)
        total = loop.total_steps(ws.data, ws.config.train.batch_size)
        with contextlib.closing(checkpoints):
            restored = None
            if checkpoints.latest_step() == total:
                restored = checkpoints.restore(total, loop.abstract_state(ws))
        # A damaged one is passed over for the one before it: not what is asked about here.
        if restored is None or restored.step != total:
            raise UserError(
                ws.workdir / loop.CHECKPOINTS,
                f"holds no readable checkpoint of the last update, {total}",
                "delete the workdir and run again",
            )
        base = None if ws.decoder.lora is None else self.load_base()
        return loop.with_base(restored.state.params, base)

    def _notes(self) -> list[str]:
        return notes(self.workspace.data, self.workspace.decoder.lora)


def device_in_words() -> str:
    """How many devices of which kind the run has, over all its processes."""
    return f"{jax.device_count()} x {jax.devices()[0].device_kind}"


def _odd(values: list[str]) -> int:
    """The first place whose value is not the first one's."""
    return next(i for i, value in enumerate(values) if value != values[0])


@contextlib.contextmanager
def open_session(config: ConfigDict, workdir: epath.Path) -> Iterator[Session]:
    """Locks a run's folder and makes sure that it is this config's run.

    Args:
      config: the resolved config.
      workdir: the run's folder.

    Raises:
      UserError: the folder is in use, holds a run of another config, or is no place for one.
    """
    if not (workdir / run_record.FILE).exists():
        check_place(workdir)
    hashed = config_hash(config)
    if len(set(hashes := processes.exchange(hashed))) > 1:
        raise UserError(
            "--config",
            f"is not the same in all processes (process {_odd(hashes)} has another)",
            "start every process with the same command and the same files",
        )

    def begin(stack: contextlib.ExitStack) -> None:
        stack.enter_context(run_record.locked(workdir))
        run_record.open_run(
            workdir,
            to_dict(config),
            config_hash=hashed,
            device=device_in_words(),
            seeds={"data": config.seed},
            ignore=("diagnose", "influence", "mesh", "mitigate", "replay", "report"),
        )
        for folder in (
            workdir,
            workdir / INFERENCE,
            workdir / PROJECTIONS,
            workdir / replayed.PARTS,
        ):
            files.remove_temporaries(folder)

    with contextlib.ExitStack() as stack:
        processes.on_first(lambda: begin(stack))
        seen = processes.exchange((workdir / run_record.FILE).exists())
        if not all(seen):
            raise UserError(
                workdir,
                f"is not seen by process {seen.index(False)}: it is on another machine's disk",
                "give a --workdir that all processes share, such as gs://BUCKET/RUN",
            )
        try:
            yield Session(config, workdir, holds=True)
        except Exception as error:
            if (workdir / run_record.FILE).exists():
                raise
            what = "was deleted or moved while the command ran"
            raise RunFailure(workdir, what, "put it back, or begin anew") from error
