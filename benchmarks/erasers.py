"""Are the accused guilty? Lost rows with their erasers left out, beside matched controls.

    python -m ilp_jax run --config configs/controlled.py:family=llama,world=0 --workdir W
    python benchmarks/erasers.py --workdir W              # about 7 trainings of the later stages

Takes the stage that lost most rows, and from ``influence.parquet`` (computed here if it is not
there) the rows of the later stages that are accused most of the loss of those rows. The later
stages are trained again from that stage's end: with nothing left out, with the accused left out,
and with as many matched rows left out, once for every draw of controls. Controls are not accused
and match in source, visits in each later stage, relation (in a world: what is asked; else the
pattern of the prompt), gradient norm in tenths, and target tokens.

Forgetting is the rise of a lost row's mean loss since its stage's end (nats a token), and the
share of lost rows that are no exact match at the end. Intervals are 95%, of a bootstrap over
lost rows and draws; one run is one training, so they say nothing of other runs.
"""

from __future__ import annotations

import argparse
import json

import polars as pl

from ilp_jax import config as configuration
from ilp_jax import study
from ilp_jax.analysis import influence as erasers
from ilp_jax.analysis import leave_out as analysis
from ilp_jax.errors import UserError
from ilp_jax.session import open_session
from ilp_jax.stats.influence import METHODS, read_influence
from ilp_jax.stats.reader import read_diagnosis, read_examples, read_plan, read_stats
from ilp_jax.train import loop
from ilp_jax.train.leave_out import leave_out
from ilp_jax.world import facts as words


def check(workdir: str, method: str, share: float, draws: int, seed: int) -> dict:
    """Leaves the accused of a run out, and controls.

    Args:
      workdir: a finished run; its ``influence.parquet`` is written where it has none.
      method: whose scores accuse.
      share: of the later stages' rows that are accused.
      draws: of controls.
      seed: of the draws and the bootstrap.

    Returns:
      What was left out and how well it was matched, and the comparison over the lost rows that
      were followed and over the others.

    Raises:
      UserError: the run is not finished, or nothing was lost.
    """
    config = configuration.from_run(workdir)
    study.influence(config, workdir)
    scores, examples, plan = read_influence(workdir), read_examples(workdir), read_plan(workdir)
    lost = erasers.lost(read_diagnosis(workdir), plan, config.influence.detector)
    followed = lost.filter(
        pl.col("example_id").is_in(scores["example_id"].drop_nulls().unique().to_list())
    )
    if followed.is_empty():
        raise UserError(workdir, "has no lost rows with erasers", "take another run")
    after = followed["stage"].value_counts(sort=True)["stage"][0]
    lost = lost.filter(pl.col("stage") == after)["example_id"].to_list()
    followed = followed.filter(pl.col("stage") == after)["example_id"].to_list()

    stats = read_stats(workdir, ["example_id", "stage", "kind", "grad_norm"], "train")
    asks = relations(examples) if config.world.family else None
    later = analysis.later_rows(examples, plan, stats, after, asks)
    blamed = erasers.shares(scores, followed).filter(pl.col("method") == method)
    accused = blamed["eraser_id"].head(round(share * len(later))).to_list()
    controls = [analysis.matched(later, accused, lost, seed + i) for i in range(draws)]

    arms = {analysis.NONE: [], analysis.ACCUSED: accused}
    arms |= {f"{analysis.CONTROL}_{i}": ids for i, ids in enumerate(controls)}
    with open_session(config, study.epath.Path(workdir)) as session:
        ws = session.workspace
        place = {one: index for index, one in enumerate(ws.data.example_ids.tolist())}
        start = loop.start(ws, session.load_base)
        rows = leave_out(ws, start, [place[one] for one in lost], after, arms)
    was_followed = pl.col("example_id").is_in(followed)
    parts = {"followed": rows.filter(was_followed), "others": rows.filter(~was_followed)}
    return {
        "after": after,
        "method": method,
        "later_rows": len(later),
        "accused": len(accused),
        "visits": later.filter(pl.col("example_id").is_in(accused))["visits"]
        .value_counts(sort=True)
        .rows(),
        "match": [analysis.match_quality(later, accused, one) for one in controls],
    } | {name: analysis.compare(part, seed) for name, part in parts.items() if len(part)}


def relations(examples: pl.DataFrame) -> dict[int, str]:
    """What each row of a world asks about: its relations by their first names, or its opcode."""
    names = {word: family[0] for family in (*words.RELATIONS, words.PROPERTY) for word in family}
    return {
        key: " ".join(
            names.get(word, word) for word in prompt.split() if word in names or "op_" in word
        )
        for key, prompt in examples.select("example_id", "prompt").iter_rows()
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workdir", required=True)
    parser.add_argument("--method", choices=METHODS, default="preconditioned")
    parser.add_argument("--share", type=float, default=0.05, help="of the later rows accused")
    parser.add_argument("--draws", type=int, default=5, help="of controls")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    found = check(given.workdir, given.method, given.share, given.draws, given.seed)
    print(json.dumps(found, indent=1))
    for name in ("followed", "others"):
        for figure, unit in (("loss", "nats a token"), ("lost", "of the rows")):
            if name not in found:
                continue
            part, (low, high) = found[name][figure], found[name][figure]["interval"]
            print(
                f"{name} (n = {found[name]['n']}): forgetting {part['none']:.3f} {unit} with all, "
                f"{part['accused']:.3f} without the accused, {part['control']:.3f} without "
                f"controls ({found[name]['controls']} draws); falls by "
                f"{part['difference']:.3f} more ({low:.3f} to {high:.3f})"
            )


if __name__ == "__main__":
    main()
