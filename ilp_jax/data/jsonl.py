"""Rows of a JSONL file: ``{"prompt", "response"}`` or ``{"messages"}``.

Optional in both: ``options`` (the response among them), ``knowledge`` (passages), ``stage``
(int or str), ``id`` (int or str). Null is as if the key were
left out. Other keys are kept as strings in the example's ``meta``, which nothing reads.
``tools``, ``documents`` and ``chat_template_kwargs`` go to the chat template, as does every key
of a message. Of several assistant turns the last that is trained (``weight``, ``train``) is the
example's response; whether the earlier ones are trained too is settled when they are tokenised
(``config.trained_turns``).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import PurePosixPath

from ilp_jax.data import lines, twins
from ilp_jax.data.conversation import CALLS, is_trained, plain_prompt, text_of, wrong_mark
from ilp_jax.data.examples import Example, example_id
from ilp_jax.data.row_faults import RowFaults
from ilp_jax.errors import UserError
from ilp_jax.files import as_path

KNOWN = (
    *("prompt", "response", "messages", "options", "knowledge", "stage", "id"),
    *("tools", "documents", "chat_template_kwargs"),
)


@dataclasses.dataclass(frozen=True)
class Rows:
    """A file's examples and the stage that each one names.

    Attributes:
      examples: in the file's order.
      stages: each row's ``stage``, all of one type; None when the file names no stages.
    """

    examples: tuple[Example, ...]
    stages: tuple[int | str, ...] | None


def load(path, name: str = "") -> Rows:
    """Reads a JSONL file, local or in a bucket, which may be compressed with gzip.

    A row's key is its ``id``, or else a hash of all it says except its stage: ids stay the
    same when lines are reordered. Rows that are the same within a stage get ordinals; the
    same row under two stages is one example that stands in both.

    Args:
      path: the file.
      name: source name; the file's stem when empty.

    Returns:
      The rows.

    Raises:
      UserError: names the file and the lines of its bad rows, what is wrong and how to mend it.
    """
    source = name or _source(path)
    examples, stages, first_line = [], [], {}
    ordinals: dict[tuple, int] = {}
    faults = RowFaults(path)
    for where, line in lines.read(path):
        with faults.of_row():
            row = _object(where, lines.text_of(where, line))
            stage = _stage(where, row)
            fields = _fields(where, row)
            explicit = "id" in row
            key = _explicit_id(where, row["id"]) if explicit else _content_hash(row)
            ordinal = ordinals.get((stage, key), 0)
            if explicit:
                _reject_repeated_id(where, first_line, key, stage, fields, repeated=ordinal > 0)
            ordinals[stage, key] = ordinal + 1
            stages.append((where, stage))
            examples.append(
                Example(
                    example_id(source, key, ordinal),
                    source=source,
                    source_key=key,
                    place=where,
                    **fields,
                )
            )
    faults.tell()
    if not examples:
        raise UserError(path, "has no rows", 'give one JSON object a line, {"prompt", "response"}')
    return Rows(tuple(examples), _check_stages(path, stages))


def _source(path) -> str:
    """The file's stem; rows of a source named as planted twins are would be taken for those."""
    stem = PurePosixPath(as_path(path).name.removesuffix(".gz")).stem
    return f"{stem}.jsonl" if stem == twins.SOURCE else stem


def _object(where: str, text: str) -> dict:
    try:
        row = json.loads(text, object_pairs_hook=lambda pairs: _unique_keys(where, pairs))
    except (ValueError, RecursionError) as error:  # ValueError: also a number too long
        raise UserError(
            where, f"not JSON ({error})", "put one whole JSON object on each line"
        ) from error
    if not isinstance(row, dict):
        raise UserError(where, f"a JSON {type(row).__name__}, not an object", "use {...}")
    try:
        json.dumps(row, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        raise UserError(
            where, "holds half of a surrogate pair (\\ud800 to \\udfff)", "remove it"
        ) from error
    # Tables written as JSONL give every row every column, null where it has no value.
    return {key: value for key, value in row.items() if value is not None or key not in KNOWN}


def _unique_keys(where: str, pairs: list) -> dict:
    row = dict(pairs)
    if len(row) < len(pairs):
        raise UserError(where, "the same key stands twice in one object", "keep one of them")
    return row


def _fields(where: str, row: dict) -> dict:
    """The fields of Example that the row's text gives."""
    if "messages" in row:
        both = [key for key in ("prompt", "response") if key in row]
        if both:
            raise UserError(where, f"has messages and {both[0]}", "keep one of the two forms")
        messages, reply, notes = _messages(where, row["messages"])
        prompt, response = plain_prompt(messages), text_of(reply)
    else:
        for key in ("prompt", "response"):
            if key not in row:
                what = f"has no {key!r} but {', '.join(map(repr, [*row][:6])) or 'nothing'}"
                raise UserError(where, what, 'give "prompt" and "response", or "messages"')
        messages, prompt = None, _text(where, row["prompt"], "prompt")
        response, reply, notes = _text(where, row["response"], "response"), {}, ()
    if not response.strip():
        raise UserError(where, "the response is empty", "give it text or remove the row")
    options, answer_index = _options(where, row.get("options"), response)
    knowledge = row.get("knowledge")
    knowledge = [knowledge] if isinstance(knowledge, str) else knowledge or []
    if not isinstance(knowledge, list):
        raise UserError(where, "knowledge is not a list", "give a list of passages")
    chat = _chat(where, row)
    if reply.keys() - {"role", "content"}:
        chat["reply"] = reply
    return {
        "prompt": prompt,
        "messages": messages,
        "response": response,
        "options": options,
        "answer_index": answer_index,
        "knowledge": tuple(_text(where, passage, "a knowledge passage") for passage in knowledge),
        "meta": {
            key: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            for key, value in row.items()
            if key not in KNOWN or (key == "documents" and key not in chat)
        },
        "chat": chat,
        "notes": notes,
    }


def _chat(where: str, row: dict) -> dict:
    """What the row gives a chat template beside its turns."""
    chat, tools = {}, row.get("tools")
    if isinstance(tools, str):  # as tables keep them, whose columns are of one type
        try:
            tools = json.loads(tools or "[]")
        except (ValueError, RecursionError):
            pass
    if tools is not None:
        if not _is_list_of_objects(tools):
            raise UserError(where, "tools is not a list of objects", "give JSON schemas of tools")
        if tools:
            chat["tools"] = tools
    # Any other column of that name is the user's own.
    if row.get("documents") and _is_list_of_objects(row["documents"]):
        chat["documents"] = row["documents"]
    arguments = row.get("chat_template_kwargs", {})
    if not isinstance(arguments, dict):
        raise UserError(
            where, "chat_template_kwargs is not an object", 'give {"enable_thinking": false}'
        )
    return chat | ({"chat_template_kwargs": arguments} if arguments else {})


def _is_list_of_objects(value) -> bool:
    return isinstance(value, list) and all(isinstance(one, dict) for one in value)


def _text(where: str, value, what: str) -> str:
    if not isinstance(value, str):
        kind = "null" if value is None else type(value).__name__
        raise UserError(where, f"{what} is {kind}, not a string", "give it as text in quotes")
    return value


def _messages(where: str, messages) -> tuple[tuple[dict, ...], dict, tuple[str, ...]]:
    """The turns before the reply, the reply, and notes on what is left out."""
    if not isinstance(messages, list) or len(messages) < 2:
        raise UserError(
            where, "messages is not a list of two or more turns", "give a user's and a reply"
        )
    turns = [_turn(where, message) for message in messages]
    if turns[-1]["role"] != "assistant":
        raise UserError(
            where,
            f"the last message is the {turns[-1]['role']}'s, not the assistant's",
            "end with the assistant's turn: it is what is trained",
        )
    trained = [i for i, one in enumerate(turns) if one["role"] == "assistant" and is_trained(one)]
    if not trained or not trained[-1]:
        what = "no reply is trained: each has weight 0 or train false"
        raise UserError(where, what, "remove the row, or mark a reply with weight 1")
    last, notes = trained[-1], ()
    if last < len(turns) - 1:
        notes = ("the turns behind its last trained reply are left out: nothing is learned there",)
    return tuple(turns[:last]), turns[last], notes


def _turn(where: str, message) -> dict:
    """A message without its nulls, which no template is given."""
    if not isinstance(message, dict):
        raise UserError(where, "a message is not an object", 'give {"role", "content"}')
    turn = {key: value for key, value in message.items() if value is not None}
    _text(where, message.get("role"), "a message's role")
    content = message.get("content")
    if isinstance(content, list):
        kinds = {str(one.get("type")) if isinstance(one, dict) else "text" for one in content}
        raise UserError(
            where,
            f"a message's content is a list of parts ({', '.join(sorted(kinds))}), not a string",
            "join parts of text into one string; other parts cannot be trained on",
        )
    if content is not None or not any(turn.get(key) for key in CALLS):
        _text(where, content, "a message's content")
    if wrong := wrong_mark(turn):
        raise UserError(where, wrong, "mark replies with weight 0 or 1, or leave the mark out")
    return turn


def _options(where: str, options, response: str) -> tuple[tuple[str, ...], int | None]:
    if options is None or options == []:
        return (), None
    if not isinstance(options, list) or len(options) < 2:
        raise UserError(where, "options is not a list of two or more", "list them, or leave it out")
    stripped = [_text(where, option, "an option").strip() for option in options]
    if not all(stripped) or len(set(stripped)) < len(stripped):
        raise UserError(where, "options are empty or the same", "make every option different")
    if response.strip() not in stripped:
        raise UserError(where, "the response is not among the options", "add it to the options")
    answer = stripped.index(response.strip())
    return (*options[:answer], response, *options[answer + 1 :]), answer


def _explicit_id(where: str, value) -> str:
    if isinstance(value, bool) or not isinstance(value, int | str) or value == "":
        raise UserError(where, "id is neither text nor a whole number", "mend it or leave it out")
    return str(value)


def _content_hash(row: dict) -> str:
    content = json.dumps({k: v for k, v in row.items() if k != "stage"}, sort_keys=True)
    return hashlib.blake2b(content.encode("ascii"), digest_size=16).hexdigest()


def _reject_repeated_id(where, first_line, key, stage, fields, repeated):
    """An id may come again only under another stage, and then with the same content."""
    other_where, other_fields = first_line.setdefault(key, (where, fields))
    if repeated or fields != other_fields:
        what = f"id {key!r} stands at {other_where} too"
        raise UserError(where, what, "give every row its own id, or leave ids out")


def _stage(where: str, row: dict) -> int | str | None:
    value = row.get("stage")
    if isinstance(value, bool) or not isinstance(value, int | str | None) or value == "":
        raise UserError(where, "stage is neither text nor a whole number", "mend it")
    return value


def _check_stages(path, stages: list[tuple[str, int | str | None]]) -> tuple | None:
    values = [value for _, value in stages]
    if all(value is None for value in values):
        return None
    first, faults = next(value for value in values if value is not None), RowFaults(path)
    for where, value in stages:
        with faults.of_row():
            if value is None:
                mend = "give all rows one, or none"
                raise UserError(where, "has no stage, but other rows do", mend)
            if type(value) is not type(first):
                raise UserError(
                    where,
                    f"stage {value!r} and stage {first!r} of the first row are of two types",
                    "use whole numbers everywhere, or text everywhere",
                )
    faults.tell()
    return tuple(values)
