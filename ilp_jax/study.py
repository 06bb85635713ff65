"""A study, phase by phase: the one file that shows the whole flow.

    config -> data -> probe base -> train -> detect -> diagnose -> report, table

Each phase reads the files of those before it and writes its own; a finished phase of the
same config is not run again, an interrupted one goes on where it stopped. Every function
here can be called from a notebook.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from etils import epath
from ml_collections import ConfigDict
from rich.console import Group, RenderableType

from ilp_jax import files, progress, run_record, tuned
from ilp_jax.analysis import diagnose as analysis
from ilp_jax.analysis import report as report_page
from ilp_jax.analysis import table
from ilp_jax.config import config_hash, to_dict
from ilp_jax.data import distractors, made_options, packaged
from ilp_jax.data import preview as data_preview
from ilp_jax.data.stages import build, tokens_of
from ilp_jax.data.study import StudyData
from ilp_jax.data.tables import read_examples, write_examples, write_plan
from ilp_jax.detect import base_answers
from ilp_jax.detect.choices import left_out
from ilp_jax.detect.point import Point, ask_point
from ilp_jax.errors import UserError
from ilp_jax.models import weights
from ilp_jax.models.export import export as export_folder
from ilp_jax.models.lora import merged
from ilp_jax.models.tokenizer import load_tokenizer
from ilp_jax.stats import replay as replayed
from ilp_jax.stats.projections import PROJECTIONS, write_representations
from ilp_jax.stats.reader import INFERENCE
from ilp_jax.stats.writer import StatsWriter, compact, discard_after
from ilp_jax.train import loop
from ilp_jax.train.checkpoint import Checkpoints
from ilp_jax.train.probe import probe as probe_pass
from ilp_jax.train.replay import ready as ready_to_replay
from ilp_jax.train.replay import replay as replay_pass
from ilp_jax.train.represent import METADATA, representations
from ilp_jax.workspace import Workspace, open_workspace

PHASES = ("probe", "train", "detect", "diagnose", "report")


def run(config: ConfigDict, workdir: epath.PathLike) -> RenderableType:
    """Every phase in order; what is done already is not done again.

    Args:
      config: a resolved config.
      workdir: the run's folder.

    Returns:
      The tables that the run ends with.

    Raises:
      UserError: the input is wrong, or the folder holds a run of another config.
      RunFailure: a value is not finite, or the disk is full.
    """
    return _run_phases(config, workdir, PHASES)


def probe(config: ConfigDict, workdir: epath.PathLike) -> RenderableType:
    """The base model: statistics of every example, and its answers. See ``run``."""
    return _run_phases(config, workdir, ("probe",))


def train(config: ConfigDict, workdir: epath.PathLike) -> RenderableType:
    """Fine-tuning, stage by stage; needs ``probe``. See ``run``."""
    return _run_phases(config, workdir, ("train",))


def detect(config: ConfigDict, workdir: epath.PathLike) -> RenderableType:
    """The final model's answers; needs ``train``. See ``run``.

    Where ``config.model.tuned`` names a model tuned elsewhere: its answers and the base
    model's, and it needs nothing. See ``tuned``.
    """
    return _run_phases(config, workdir, ("detect",))


def diagnose(config: ConfigDict, workdir: epath.PathLike) -> RenderableType:
    """Verdicts and figures from the files of the phases before. See ``run``."""
    return _run_phases(config, workdir, ("diagnose",))


def report(config: ConfigDict, workdir: epath.PathLike) -> RenderableType:
    """Writes ``report.html`` again, whatever was written before. See ``run``."""
    run_record.forget_phase(workdir, "report")
    _run_phases(config, workdir, ("report",))
    return _report_line(epath.Path(workdir))


def export(config: ConfigDict, workdir: epath.PathLike, out: epath.PathLike) -> str:
    """Writes the tuned weights as a Hugging Face folder; needs ``train``.

    Args:
      config: a resolved config.
      workdir: the run's folder.
      out: a new folder.

    Returns:
      A line that says what was written.

    Raises:
      UserError: training is not finished, the folder is in use, or no family of Hugging
        Face's has this model's variant.
    """
    _phases_of(config, ("train",))
    with _open(config, epath.Path(workdir)) as session:
        _require_before(session.config, session.workdir, "detect", PHASES)
        ws = session.workspace
        params = merged(jax.device_get(_restore_final(session)), ws.decoder.lora)
        written = export_folder(ws.decoder.config, params, ws.tokenizer, out)
    return f"{out}: config.json, tokenizer and {len(written)} weights file(s), float32"


def replay(config: ConfigDict, workdir: epath.PathLike, limit: int | None = None) -> RenderableType:
    """What updates on one unlearned row alone do for it; needs ``diagnose``.

    Args:
      config: a resolved config.
      workdir: the run's folder.
      limit: replay only the first so many rows; None for all that ``config.replay`` asks for.

    Returns:
      The table of what came back.

    Raises:
      UserError: the run is not finished, or was replayed with other settings before.
      RunFailure: see ``train.replay.replay``.
    """
    workdir = epath.Path(workdir)
    _phases_of(config, ("train",))
    _require_before(config, workdir, "diagnose", PHASES)
    # Before the config is written: one that is refused must not become the run's.
    ready_to_replay(config, workdir)
    with _open(config, workdir) as session:
        return replay_pass(session.workspace, lambda: _restore_final(session), limit)


def preview(config: ConfigDict, n: int) -> RenderableType:
    """The first examples as tokens, with the trained tokens marked; runs nothing.

    Args:
      config: a resolved config.
      n: examples a stage.
    """
    tokenizer = load_tokenizer(config.model.path)
    return data_preview.preview(build(config, tokenizer), tokenizer, n)


@dataclasses.dataclass
class _Session:
    """A command's hold on a run: the workspace, made when first needed, and parameters.

    Attributes:
      config: the resolved config.
      workdir: the run's folder.
      params: parameters that the phase before left on the device, None if it left none.
    """

    config: ConfigDict
    workdir: epath.Path
    params: Any = None
    _workspace: Workspace | None = None

    @property
    def workspace(self) -> Workspace:
        """Config, data, tokenizer and programs; the data's tables are written with it."""
        if self._workspace is None:
            opened = tuned.open_pair if self.config.model.tuned else open_workspace
            self._workspace = _write_data(opened(self.config, self.workdir))
        return self._workspace

    def make_options(self, params: Any) -> None:
        """Draws the base model's own wrong answers as options, where a stage asks for them."""
        ws = self.workspace
        rows = base_answers.wanted(ws.data)
        if not rows or made_options.exists(ws.workdir):
            return
        with progress.bar("probe base answers", total=len(rows)) as bar:
            made = base_answers.draw_options(ws, params, bar=bar)
        made_options.write(ws.workdir, made)
        self._workspace = _write_data(ws)
        record = files.read_json(self.workdir / run_record.FILE)
        about = record["about"] | {"notes": _notes(self._workspace)}
        run_record.describe(self.workdir, record["weights_hash"], about)

    def take_params(self) -> Any:
        """The parameters that the phase before left; they are handed over."""
        params, self.params = self.params, None
        return params


def _run_phases(
    config: ConfigDict, workdir: epath.PathLike, wanted: tuple[str, ...]
) -> RenderableType:
    workdir, possible = epath.Path(workdir), _phases_of(config, wanted)
    if config.model.tuned and "detect" in wanted and not run_record.is_finished(workdir, "detect"):
        tuned.check_pair(config)
    with _open(config, workdir) as session:
        for phase in (one for one in wanted if one in possible):
            identity = _identity(config, workdir, phase)
            if run_record.is_finished(workdir, phase, identity):
                continue
            _require_before(config, workdir, phase, possible)
            start = time.monotonic()
            _PHASE[phase](session)
            run_record.finish_phase(workdir, phase, time.monotonic() - start, identity)
    return _result(workdir, wanted[-1])


def _phases_of(config: ConfigDict, wanted: tuple[str, ...]) -> tuple[str, ...]:
    """The phases of a run; a model tuned elsewhere has fewer."""
    if not config.model.tuned:
        return PHASES
    if not set(wanted) & set(tuned.PHASES):
        raise UserError(
            "config.model.tuned",
            "names a model that is tuned already: nothing is trained here",
            "use `ilp detect`, then `ilp diagnose`",
        )
    return tuned.PHASES


@contextlib.contextmanager
def _open(config: ConfigDict, workdir: epath.Path) -> Iterator[_Session]:
    with run_record.locked(workdir):
        run_record.open_run(
            workdir,
            to_dict(config),
            config_hash=config_hash(config),
            device=f"{jax.device_count()} x {jax.devices()[0].device_kind}",
            seeds={"data": config.seed},
            ignore=("diagnose", "replay", "report"),
        )
        for folder in (
            workdir,
            workdir / INFERENCE,
            workdir / PROJECTIONS,
            workdir / replayed.PARTS,
        ):
            files.remove_temporaries(folder)
        yield _Session(config, workdir)


def _identity(config: ConfigDict, workdir: epath.Path, phase: str) -> str:
    """What a phase's result rests on that may change within a run.

    That is the diagnosis' thresholds, what was replayed since, and what the report shows.
    """
    if PHASES.index(phase) < PHASES.index("diagnose"):
        return ""
    replays = workdir / replayed.FILE
    rests_on = {
        "diagnose": to_dict(config)["diagnose"],
        "replay": hashlib.sha256(replays.read_bytes()).hexdigest() if replays.exists() else "",
    }
    if phase == "report":
        rests_on["report"] = to_dict(config)["report"]
    return run_record.hash_config(rests_on)[:16]


def _require_before(
    config: ConfigDict, workdir: epath.Path, phase: str, phases: tuple[str, ...]
) -> None:
    for before in phases[: phases.index(phase)]:
        if not run_record.is_finished(workdir, before, _identity(config, workdir, before)):
            raise UserError(
                workdir,
                f"{phase} needs the phase {before}, which is not finished there",
                f"run `ilp {before}` first, or `ilp run` for all",
            )


def _write_data(ws: Workspace) -> Workspace:
    """Writes ``examples.parquet`` and ``plan.parquet``; a resumed run must have the same data.

    Args:
      ws: the workspace with its data as built.

    Returns:
      The workspace with the options that the run made, if it has.
    """
    path, built = ws.workdir / "examples.parquet", ws.data
    if (ws.workdir / "plan.parquet").exists():
        written = read_examples(path)
    else:
        write_examples(path, built)
        order_known = not ws.config.model.tuned
        write_plan(ws.workdir / "plan.parquet", built, ws.config.seed, order_known)
        written = built.examples
    if made_options.exists(ws.workdir):
        tokenise = functools.partial(tokens_of, ws.config, ws.tokenizer)
        ws = dataclasses.replace(ws, data=made_options.apply(ws.workdir, built, tokenise))
    if written == ws.data.examples:
        return ws
    # The options are made, and the table of examples does not have them yet.
    if written == built.examples:
        write_examples(path, ws.data)
        return ws
    raise UserError(
        ws.workdir,
        "its data is no longer what the run began with",
        "put the data files back, or give another --workdir",
    )


def _probe(session: _Session) -> None:
    """Statistics and answers of every example, held-out ones too, at the base model."""
    ws = session.workspace
    base = _load_base(session)
    params = loop.at_start(ws, base)
    session.make_options(params)
    ws = session.workspace
    everything = np.arange(len(ws.data.examples))
    discard_after(ws.workdir / loop.STATS, -1, prefix="base")
    place = {"stage": 0, "epoch": 0, "step": 0}
    with StatsWriter(ws.workdir / loop.STATS, "base", metadata=loop.norms_of(ws)) as writer:
        with progress.bar("probe base", total=len(everything)) as bar:
            with_norms = "base" in ws.config.probe.norms_at
            for columns in probe_pass(
                ws, params, everything, with_norms=with_norms, bar=bar, **place
            ):
                writer.append(0, columns)
    compact(ws.workdir / loop.STATS, "base")
    if ws.config.probe.representations:
        with progress.bar("probe prompts", total=len(everything)) as bar:
            vectors = representations(ws, params, everything, bar)
            write_representations(ws.workdir, vectors, METADATA)
    if "base" in ws.config.detect.points:
        _ask_all(ws, params, "base", **place)
    session.params = base


def _train(session: _Session) -> None:
    def load_base() -> Any:
        params = session.take_params()
        return _load_base(session) if params is None else params

    session.params = loop.train(session.workspace, load_base)


def _detect(session: _Session) -> None:
    """The answers to everything at the end of training."""
    ws = session.workspace
    if ws.config.model.tuned:
        about = {"stages": _about_stages(ws.data), "notes": _benchmark_note(ws.data)}
        return tuned.ask_both(ws, about)
    if "final" not in ws.config.detect.points:
        return
    params = session.take_params()
    if params is None:
        params = _restore_final(session)
    last = ws.data.stages[-1]
    step = loop.total_steps(ws.data, ws.config.train.batch_size)
    _ask_all(ws, params, "final", stage=last.index, epoch=last.epochs, step=step)


def _diagnose(session: _Session) -> None:
    record = files.read_json(session.workdir / run_record.FILE)
    about = record["about"]
    analysis.diagnose(session.workdir, record["config"], about)


def _report(session: _Session) -> None:
    report_page.report(session.workdir, to_dict(session.config)["report"])


_PHASE: dict[str, Callable[[_Session], None]] = {
    "probe": _probe,
    "train": _train,
    "detect": _detect,
    "diagnose": _diagnose,
    "report": _report,
}


def _ask_all(ws: Workspace, params: Any, point: str, **place: int) -> None:
    began_from = files.read_json(ws.workdir / run_record.FILE)["weights_hash"]
    ask_point(ws, params, Point(point, **place, weights_hash=began_from))


def _load_base(session: _Session) -> Any:
    """The base model's parameters on the device; records what they are."""
    ws = session.workspace
    loaded = weights.load(ws.config.model.path)
    run_record.describe(
        session.workdir,
        weights_hash=loaded.weights_hash,
        about={
            "weights": loaded.description,
            "stages": _about_stages(ws.data),
            "notes": _notes(ws),
        },
    )
    return jax.device_put(loaded.params)


def _notes(ws: Workspace) -> list[str]:
    return [
        *_adapter_note(ws),
        *_benchmark_note(ws.data),
        *_distractor_notes(ws.data),
        *_choice_notes(ws),
    ]


def _about_stages(data: StudyData) -> list[dict[str, Any]]:
    """What the tables say of each stage."""
    return [
        {
            "stage": stage.index,
            "name": stage.name,
            "epochs": stage.epochs,
            "rows": len(stage.rows),
            "held_out": len(stage.held_out),
            "learning_rate": stage.config.learning_rate,
            "dropped": dict(data.dropped.get(stage.name, {})),
        }
        for stage in data.stages
    ]


def _adapter_note(ws: Workspace) -> list[str]:
    lora = ws.decoder.lora
    if lora is None:
        return []
    return [
        f"Trained: LoRA adapters of rank {lora.rank} on {', '.join(lora.targets)} alone; "
        "gradient norms are theirs."
    ]


def _benchmark_note(data: StudyData) -> list[str]:
    """A caution where rows of benchmarks' evaluation splits are trained on."""
    used = {example.source for example in data.examples} & set(packaged.FILES)
    splits = {source: packaged.FILES[source].split for source in sorted(used)}
    splits = [f"{source} ({split})" for source, split in splits.items() if split != "train"]
    if not splits:
        return []
    return [
        f"Trained on evaluation splits of benchmarks: {', '.join(splits)}. "
        "No benchmark score may be claimed from these weights."
    ]


def _distractor_notes(data: StudyData) -> list[str]:
    """Which rows' options are not their source's, and which rows have none."""
    kinds = {stage.name: stage.config.get("distractors") for stage in data.stages}
    return [
        f"Options of {made} rows of stage {name} are made by us (distractors: {kinds[name]}); "
        f"{without} of its rows are without options."
        for name, (made, without) in distractors.counts(data).items()
    ]


def _choice_notes(ws: Workspace) -> list[str]:
    """Which questions are not asked in other wordings, or with their options listed."""
    return [
        f"Not asked in prompt variant {variant}: {n} rows with options, longer than max_length "
        "in it or of more options than letters."
        for variant, n in sorted(left_out(ws).items())
    ]


def _restore_final(session: _Session) -> Any:
    """The parameters after the last update, from its checkpoint (and the base under adapters)."""
    ws = session.workspace
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
    base = None if ws.decoder.lora is None else _load_base(session)
    return loop.with_base(restored.state.params, base)


def _report_line(workdir: epath.Path) -> str:
    return f"Report: {workdir / report_page.REPORT}"


def _result(workdir: epath.Path, phase: str) -> RenderableType:
    seconds = files.read_json(workdir / run_record.FILE)["seconds"]
    timing = ", ".join(f"{name} {progress.duration(s)}" for name, s in seconds.items())
    lines = [f"{workdir}: {timing}"]
    if phase == "report":
        lines.append(_report_line(workdir))
    if phase not in ("diagnose", "report"):
        return lines[0]
    return Group(table.render(files.read_json(workdir / analysis.SUMMARY)), *lines)
