"""A study, phase by phase: the one file that shows the whole flow.

    config -> data -> probe base -> train -> detect -> diagnose -> (evaluate) -> report, table

Each phase reads the files of those before it and writes its own; a finished phase of the
same config is not run again, an interrupted one goes on where it stopped. Every function
here can be called from a notebook.
"""

from __future__ import annotations

import collections
import functools
import hashlib
import logging
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from etils import epath
from ml_collections import ConfigDict
from rich.console import Group, RenderableType
from rich.text import Text

from ilp_jax import files, outputs, progress, run_record, tuned
from ilp_jax.analysis import diagnose as analysis
from ilp_jax.analysis import evaluate as evaluation
from ilp_jax.analysis import remedies, summary_file, table
from ilp_jax.analysis import report as report_page
from ilp_jax.config import to_dict
from ilp_jax.data import preview as data_preview
from ilp_jax.data.lengths import fitted
from ilp_jax.data.stages import build
from ilp_jax.detect.point import Point, ask_point
from ilp_jax.errors import UserError
from ilp_jax.mesh import processes
from ilp_jax.mitigate import experiment, workers
from ilp_jax.mitigate.train_arm import FOLDER, identity, is_trained
from ilp_jax.models.ends import of_study
from ilp_jax.models.export import export as export_folder
from ilp_jax.models.lora import merged
from ilp_jax.models.tokenizer import load_tokenizer
from ilp_jax.models.weights import load_config
from ilp_jax.notes import about_stages, data_notes
from ilp_jax.session import Session, open_session
from ilp_jax.stats import replay as replayed
from ilp_jax.stats.projections import write_representations
from ilp_jax.stats.remedies import FILE as REMEDIES
from ilp_jax.stats.writer import discard_after
from ilp_jax.train import loop
from ilp_jax.train.influence import influence as influence_pass
from ilp_jax.train.influence import ready as ready_to_influence
from ilp_jax.train.probe import probe as probe_pass
from ilp_jax.train.replay import ready as ready_to_replay
from ilp_jax.train.replay import replay as replay_pass
from ilp_jax.train.represent import METADATA, representations
from ilp_jax.workspace import Workspace
from ilp_jax.world.base import located

log = logging.getLogger(__name__)

PHASES = ("probe", "train", "detect", "diagnose", "report")
PLANTED_PHASES = ("probe", "train", "detect", "diagnose", "evaluate", "report")
"""Where causes are planted, the diagnosis is scored."""


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
    return _run_phases(config, workdir, _phases_of(config, PHASES))


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
    _run_phases(config, workdir, ("report",), anew=True)
    return _report_line(files.as_path(workdir))


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
    with open_session(config, files.as_path(workdir)) as session:
        _require_before(session.config, session.workdir, "detect", PHASES)
        ws = session.workspace
        params = merged(jax.device_get(session.restore_final()), ws.decoder.lora)
        ends = of_study(ws.data, ws.tokenizer)
        written = export_folder(ws.decoder.config, params, ws.tokenizer, out, trained_ends=ends)
    return (
        f"{out}: config.json, generation_config.json, tokenizer and {len(written)} weights "
        "file(s), float32"
    )


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
    workdir = files.as_path(workdir)
    _phases_of(config, ("train",))
    _require_before(config, workdir, "diagnose", PHASES)
    # Before the config is written: one that is refused must not become the run's.
    ready_to_replay(config, workdir)
    with open_session(config, workdir) as session:
        load = _beginning("replay", session, session.restore_final)
        told = replay_pass(session.workspace, load, limit)
    return Group(told, *map(Text, run_record.computed_under(workdir)))


def influence(config: ConfigDict, workdir: epath.PathLike) -> RenderableType:
    """Whose updates raised the loss of rows that were learned and lost; needs ``diagnose``.

    Args:
      config: a resolved config.
      workdir: the run's folder.

    Returns:
      The table of the strongest pairs.

    Raises:
      UserError: the run is not finished, or has no verdicts at the ends of its stages.
      RunFailure: see ``train.influence.influence``.
    """
    workdir = files.as_path(workdir)
    _phases_of(config, ("train",))
    _require_before(config, workdir, "diagnose", PHASES)
    # Before the config is written: one that is refused must not become the run's.
    ready_to_influence(config, workdir)
    with open_session(config, workdir) as session:
        load = _beginning("influence", session, session.load_base)
        told = influence_pass(session.workspace, load, session.restore_final)
    return Group(told, *map(Text, run_record.computed_under(workdir)))


def mitigate(
    config: ConfigDict, workdir: epath.PathLike, jobs: int = 1, train_only: bool = False
) -> RenderableType:
    """Trains the arms of remedies and their controls from a finished run; needs ``diagnose``.

    Args:
      config: a resolved config; ``mitigate`` says which arms.
      workdir: the run's folder.
      jobs: arms trained at a time, each by a process of its own.
      train_only: train arms in this process, those that no other has in hand, and collect
        nothing.

    Returns:
      The table of what came back, or a line that nothing is to be mended.

    Raises:
      UserError: the run is not finished, or has none of the verdicts that arms rest on.
      RunFailure: an arm failed; what is trained is kept.
    """
    workdir = files.as_path(workdir)
    _phases_of(config, ("train",))
    _require_before(config, workdir, "diagnose", PHASES)
    # Before the config is written: one that is refused must not become the run's.
    if nothing := experiment.nothing_to_mend(config, workdir):
        return nothing
    if train_only:
        session = Session(config, workdir)
        context = experiment.context_of(session)
        experiment.train_arms(session, experiment.make_arms(session, context))
        return f"{workdir}: every arm is trained or in another process's hands"
    with open_session(config, workdir) as session:
        context = experiment.context_of(session)
        arms = experiment.make_arms(session, context)
        ws = session.workspace
        known = [identity(arm, ws) for arm in arms]
        if not all(map(functools.partial(is_trained, ws), arms, known)):
            session.begin("mitigate")
        experiment.ask_run(session)
        words = ["mitigate", "--workdir", str(workdir), "--train-only"]
        workers.work(
            workdir / FOLDER,
            words,
            jobs,
            [f"{arm.label} {arm.seed}" for arm in arms],
            lambda place: is_trained(ws, arms[place], known[place]),
        )
        experiment.collect(session, arms)
        found = remedies.compare([remedies.load(workdir)])
        under = {table.UNDER: run_record.computed_under(workdir)}
        summary_file.write(workdir, summary_file.read(workdir) | {remedies.KEY: found} | under)
        experiment.put_actions(session, context, found["diagonal"])
    return Group(*remedies.tables.render(found), *map(Text, under[table.UNDER]))


def apply(config: ConfigDict, workdir: epath.PathLike, out: epath.PathLike) -> str:
    """Writes a training set in which every unlearned row has the remedy of its diagnosed cause.

    Args:
      config: a resolved config.
      workdir: the run's folder; it need not have been mitigated.
      out: a new folder.

    Returns:
      A line that says what was written, or that nothing is to be mended.

    Raises:
      UserError: the run is not finished, or the folder is in use.
    """
    workdir = files.as_path(workdir)
    _phases_of(config, ("train",))
    _require_before(config, workdir, "diagnose", PHASES)
    if nothing := experiment.nothing_to_mend(config, workdir):
        return f"{nothing}, and nothing is written"
    with open_session(config, workdir) as session:
        return experiment.applied(session, experiment.context_of(session), files.as_path(out))


def preview(config: ConfigDict, n: int) -> RenderableType:
    """The first examples as tokens, with the trained tokens marked; runs nothing.

    Args:
      config: a resolved config.
      n: examples a stage.
    """
    config = located(config)
    config = fitted(config, load_config(config.model.path).max_position)
    tokenizer = load_tokenizer(config.model.path)
    return data_preview.preview(build(config, tokenizer), tokenizer, n)


def _run_phases(
    config: ConfigDict, workdir: epath.PathLike, wanted: tuple[str, ...], anew: bool = False
) -> RenderableType:
    workdir, possible = files.as_path(workdir), _phases_of(config, wanted)
    if config.model.tuned and "detect" in wanted and not run_record.is_finished(workdir, "detect"):
        tuned.check_pair(config)
    with open_session(config, workdir) as session:
        for phase in (one for one in wanted if one in possible):
            if not processes.on_first(_is_due, config, workdir, phase, possible, anew):
                continue
            start = time.monotonic()
            session.begin(phase, phase in _ALONE)
            if phase in _ALONE:
                processes.on_first(_PHASE[phase], session)
            else:
                _PHASE[phase](session)
            seconds = time.monotonic() - start
            processes.exchange(None)  # done when all are: the next phase reads what each wrote
            processes.on_first(_finish, config, workdir, phase, possible, seconds)
    return _result(workdir, wanted[-1])


def _is_due(
    config: ConfigDict, workdir: epath.Path, phase: str, phases: tuple[str, ...], anew: bool
) -> bool:
    """Whether a phase is to be run; those before it must be finished, and their files whole."""
    if run_record.is_finished(workdir, phase, _identity(config, workdir, phase)) and not anew:
        fault = outputs.fault(workdir, phase)
        if fault is None:
            return False
        if not fault.made_again:
            raise fault
        outputs.set_aside(fault)
        log.warning("%s: %s; %s is run again", fault.where, fault.what, phase)
    _require_before(config, workdir, phase, phases)
    for before in phases[: phases.index(phase)]:
        if fault := outputs.fault(workdir, before):
            raise fault
    return True


def _finish(
    config: ConfigDict, workdir: epath.Path, phase: str, phases: tuple[str, ...], seconds: float
) -> None:
    place = phases.index(phase)
    # These rest on what was just made, perhaps anew.
    run_record.forget_phase(workdir, *(one for one in phases[place + 1 :] if one in _ALONE))
    made = outputs.of(workdir, phase, phases[:place])
    identity = _identity(config, workdir, phase)
    run_record.finish_phase(workdir, phase, seconds, identity, made)


def _beginning(phase: str, session: Session, load: Callable[[], Any]) -> Callable[[], Any]:
    """Parameters for what is no phase of a run: it begins where they are asked for."""

    def begun() -> Any:
        session.begin(phase)
        return load()

    return begun


def _phases_of(config: ConfigDict, wanted: tuple[str, ...]) -> tuple[str, ...]:
    """The phases of a run; a model tuned elsewhere has fewer."""
    if not config.model.tuned:
        is_planted = config.world.family or config.planted.sources
        return PLANTED_PHASES if is_planted else PHASES
    if not set(wanted) & set(tuned.PHASES):
        raise UserError(
            "config.model.tuned",
            "names a model that is tuned already: nothing is trained here",
            "use `ilp detect`, then `ilp diagnose`",
        )
    return tuned.PHASES


def _identity(config: ConfigDict, workdir: epath.Path, phase: str) -> str:
    """What a phase's result rests on that may change within a run.

    That is the diagnosis' thresholds, what was replayed since, and what the report shows.
    """
    if phase not in ("diagnose", "evaluate", "report"):
        return ""
    replays = workdir / replayed.FILE
    rests_on = {
        "diagnose": to_dict(config)["diagnose"],
        "replay": hashlib.sha256(replays.read_bytes()).hexdigest() if replays.exists() else "",
    }
    if phase == "report":
        rests_on["report"] = to_dict(config)["report"]
        tried = workdir / REMEDIES
        if tried.exists():
            rests_on["remedies"] = hashlib.sha256(tried.read_bytes()).hexdigest()
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


def _probe(session: Session) -> None:
    """Statistics and answers of every example, held-out ones too, at the base model."""
    base = session.load_base()
    params = loop.at_start(session.workspace, base)
    session.make_options(params)
    ws = session.workspace
    everything = np.arange(len(ws.data.examples))
    processes.on_first(lambda: discard_after(ws.workdir / loop.STATS, -1, prefix="base"))
    place = {"stage": 0, "epoch": 0, "step": 0}
    with loop.stats_writer(ws, "base") as writer:
        with progress.bar("probe base", total=len(everything)) as bar:
            with_norms = "base" in ws.config.probe.norms_at
            for columns in probe_pass(
                ws, params, everything, with_norms=with_norms, bar=bar, **place
            ):
                writer.append(0, columns)
    loop.compact_stats(ws, "base")
    if ws.config.probe.representations:
        with progress.bar("probe prompts", total=len(everything)) as bar:
            vectors = representations(ws, params, everything, bar)
            if processes.is_first():
                write_representations(ws.workdir, vectors, METADATA)
            else:  # takes part in what the vectors cost
                collections.deque(vectors, maxlen=0)
    if "base" in ws.config.detect.points:
        _ask_all(ws, params, "base", **place)
    session.params = base


def _train(session: Session) -> None:
    def load_base() -> Any:
        params = session.take_params()
        return session.load_base() if params is None else params

    session.params = loop.train(session.workspace, load_base)


def _detect(session: Session) -> None:
    """The answers to everything at the end of training."""
    ws = session.workspace
    if ws.config.model.tuned:
        about = {"stages": about_stages(ws.data, False), "notes": data_notes(ws.data)}
        return tuned.ask_both(ws, about)
    if "final" not in ws.config.detect.points:
        return
    params = session.take_params()
    if params is None:
        params = session.restore_final()
    last = ws.data.stages[-1]
    step = loop.total_steps(ws.data, ws.config.train.batch_size)
    _ask_all(ws, params, "final", stage=last.index, epoch=last.epochs, step=step)


def _diagnose(session: Session) -> None:
    record = run_record.read(session.workdir)
    about = (record.get("about") or {}) | {table.UNDER: run_record.computed_under(session.workdir)}
    analysis.diagnose(session.workdir, record["config"], about)


def _evaluate(session: Session) -> None:
    evaluation.evaluate_run(session.workdir)


def _report(session: Session) -> None:
    report_page.report(session.workdir, to_dict(session.config)["report"])


_ALONE = ("diagnose", "evaluate", "report")
"""Phases that read and write files alone: of several processes the first runs them."""
_PHASE: dict[str, Callable[[Session], None]] = {
    "probe": _probe,
    "train": _train,
    "detect": _detect,
    "diagnose": _diagnose,
    "evaluate": _evaluate,
    "report": _report,
}


def _ask_all(ws: Workspace, params: Any, point: str, **place: int) -> None:
    began_from = run_record.read(ws.workdir)["weights_hash"]
    ask_point(ws, params, Point(point, **place, weights_hash=began_from))


def _report_line(workdir: epath.Path) -> str:
    return f"Report: {workdir / report_page.REPORT}"


def _result(workdir: epath.Path, phase: str) -> RenderableType:
    seconds = run_record.read(workdir)["seconds"]
    timing = ", ".join(f"{name} {progress.duration(s)}" for name, s in seconds.items())
    lines = [f"{workdir}: {timing}"]
    if phase == "report":
        lines.append(_report_line(workdir))
    if phase not in ("diagnose", "report"):
        return lines[0]
    # Not wrapped: a path is to be copied.
    lines = [Text(line, no_wrap=True, overflow="ignore") for line in lines]
    return Group(table.render(summary_file.read(workdir)), *lines)
