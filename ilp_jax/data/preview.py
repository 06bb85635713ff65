"""The first examples as the model sees them, the trained tokens marked."""

from __future__ import annotations

from collections import Counter

from rich.console import Group
from rich.text import Text
from transformers import PreTrainedTokenizerFast

from ilp_jax.data.distractors import counts
from ilp_jax.data.own_text import told
from ilp_jax.data.study import Stage, StudyData

TRAINED, CONTEXT = "bold black on green", "dim"
_COLUMNS, _NAME = 12, 40  # names told, and characters of each: a line or two of a terminal
_LEGEND = "Trained tokens stand in [brackets]; the others are context only."


def preview(data: StudyData, tokenizer: PreTrainedTokenizerFast, n: int) -> Group:
    """The first ``n`` examples of every stage as tokens, and counts of what was left out.

    Args:
      data: the study.
      tokenizer: its tokenizer.
      n: examples a stage.

    Returns:
      A rich renderable. Text of the examples is shown as it is: it is never read as markup,
      and control characters are written out.
    """
    parts: list = [
        _counts(data),
        *(Text(_shown(one)) for one in (*data.long_rows, *told(data.examples))),
        Text(_LEGEND),
    ]
    for stage in data.stages:
        parts.append(Text(f"\nStage {stage.index} {_shown(stage.name)}", style="bold"))
        parts += [_example(data, int(index), tokenizer) for index in stage.rows[:n]]
    return Group(*parts)


def _example(data: StudyData, index: int, tokenizer: PreTrainedTokenizerFast) -> Text:
    example, row = data.examples[index], data.tokens[index]
    text = Text(f"\n{_shown(example.source)}:{_shown(example.source_key)} ")
    text.append(f"({row.n_tokens - row.n_targets} + {row.n_targets} tokens)")
    if "planted" in example.marks:
        text.append(f" {_shown(example.marks['planted'])}", style="yellow")
    if row.truncated:
        text.append(" truncated", style="red")
    text.append("\n")
    earlier = {at for start, stop in row.earlier_replies for at in range(start, stop)}
    for at, token in enumerate([*row.prompt_ids, *row.target_ids]):
        if at in earlier or at >= len(row.prompt_ids):
            text.append(f"[{_piece(tokenizer, token)}]", style=TRAINED)
            text.append(" ")
        else:
            text.append(_piece(tokenizer, token) + " ", style=CONTEXT)
    return text


def _counts(data: StudyData) -> Text:
    """One line a stage: rows trained, held out, and left out by reason."""
    order = ", in the order in which they are trained" if len(data.stages) > 1 else ""
    text = Text(f"Rows of each stage{order}\n", style="bold")
    distractors = counts(data)
    for stage in data.stages:
        # These two look like examples that the model fails to learn: always shown.
        left_out = {"truncated": 0, "no_target": 0, **data.dropped.get(stage.name, {})}
        planted = sum("planted" in data.examples[i].marks for i in stage.rows)
        text.append(
            f"  {stage.index} {_shown(stage.name)}: {len(stage.rows)} trained "
            f"({planted} of them planted), {len(stage.held_out)} held out; left out: "
            + ", ".join(f"{n} {reason.replace('_', ' ')}" for reason, n in left_out.items())
            + "\n",
            style="not bold",
        )
        if stage.name in distractors:
            made, without = distractors[stage.name]
            line = f"    options made for {made} rows; {without} rows without options\n"
            text.append(line, style="not bold")
        text.append(_unused(data, stage), style="not bold")
    return text


def _unused(data: StudyData, stage: Stage) -> str:
    """The columns of a stage's rows that nothing reads, each with its number of rows."""
    rows = (*stage.rows, *stage.held_out)
    found = Counter(name for i in rows for name in data.examples[i].meta).most_common()
    if not found:
        return ""
    more = f" and {len(found) - _COLUMNS} more" if len(found) > _COLUMNS else ""
    names = ", ".join(
        f"{_shown(name)[:_NAME]} ({n} row{'s'[: n > 1]})" for name, n in found[:_COLUMNS]
    )
    return f"    columns kept in examples.parquet and used for nothing: {names}{more}\n"


def _piece(tokenizer: PreTrainedTokenizerFast, token: int) -> str:
    text = tokenizer.decode(
        [int(token)], skip_special_tokens=False, clean_up_tokenization_spaces=False
    )
    return _shown(text).replace(" ", "\u00b7")


def _shown(text: str) -> str:
    """The text with all that a terminal would act on written out."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
