"""One machine's download of a model from the Hugging Face hub into a bucket.

    python -m ilp_jax.launch.hub OWNER/NAME gs://BUCKET/FOLDER [--revision R] [--token-from-stdin]

File by file, so that the disk has to hold the largest one alone; what the bucket has already,
of this commit, is passed over. The token comes from HF_TOKEN or standard input.
"""

from __future__ import annotations

import argparse
import fnmatch
import os
import sys
import tempfile
from collections.abc import Sequence

from ilp_jax import files
from ilp_jax.launch.on_host import copy_file, reported

PATTERNS = ("*.safetensors", "*.json", "tokenizer*", "*.jinja", "merges.txt", "LICENSE*")
"""Weights, tokenizer and configuration: neither the same weights in other formats nor images."""


_MARKER = "commit.txt"


def bring(repo: str, revision: str, target: str, token: str | None) -> int:
    """Copies a model's files into a folder.

    Args:
      repo: OWNER/NAME.
      revision: branch, tag or commit.
      target: the folder, local or in a bucket.
      token: of the hub, None for an open model.

    Returns:
      The number of files copied; those that are there already do not count.
    """
    from huggingface_hub import HfApi, hf_hub_download

    folder, copied = files.as_path(target), 0
    info = HfApi(token=token or False).model_info(repo, revision=revision, files_metadata=True)
    wanted = [one for one in info.siblings if wants(one.rfilename)]
    marker = folder / _MARKER
    if not (marker.exists() and marker.read_text() == info.sha):
        for one in wanted:  # of another commit, which may have files of the same size
            (folder / one.rfilename).unlink(missing_ok=True)
        folder.mkdir(parents=True, exist_ok=True)
        marker.write_text(info.sha)
    for number, one in enumerate(wanted, start=1):
        path = folder / one.rfilename
        if path.exists() and path.stat().length == one.size:
            continue
        print(f"[{number}/{len(wanted)}] {one.rfilename}", flush=True)
        with tempfile.TemporaryDirectory() as scratch:
            local = hf_hub_download(
                repo, one.rfilename, revision=info.sha, token=token or False, local_dir=scratch
            )
            copy_file(files.as_path(local), path)
        copied += 1
    return copied


def wants(name: str) -> bool:
    """Whether a file of a model is one that training reads."""
    return any(fnmatch.fnmatch(name, pattern) for pattern in PATTERNS)


@reported
def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; gives its exit code."""
    parser = argparse.ArgumentParser(prog="python -m ilp_jax.launch.hub", allow_abbrev=False)
    parser.add_argument("repo")
    parser.add_argument("target")
    parser.add_argument("--revision", default="main")
    parser.add_argument("--token-from-stdin", action="store_true")
    options = parser.parse_args(argv)
    token = sys.stdin.readline().strip() if options.token_from_stdin else os.getenv("HF_TOKEN")
    copied = bring(options.repo, options.revision, options.target, token)
    print(f"{options.target}: {copied} files new")
    return 0


if __name__ == "__main__":
    sys.exit(main())
