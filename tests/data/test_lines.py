"""Files that are no JSONL are named for what they are, and all bad rows of one at once."""

import bz2
import gzip
import io
import json
import lzma
import os
import sys
import tarfile
import threading
import zipfile

import numpy as np
import polars as pl
import pytest
from etils import epath

from ilp_jax.data import jsonl
from ilp_jax.errors import UserError

ROWS = [{"prompt": f"p{i}", "response": "r", "n": i} for i in range(40)]
TEXT = "".join(json.dumps(row) + "\n" for row in ROWS)


def zipped():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("rows.jsonl", TEXT)
    return file.getvalue()


def tarred():
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        entry = tarfile.TarInfo("rows.jsonl")
        entry.size = len(TEXT)
        archive.addfile(entry, io.BytesIO(TEXT.encode()))
    return file.getvalue()


def written(method, **options):
    file = io.BytesIO()
    getattr(pl.DataFrame(ROWS), method)(file, **options)
    return file.getvalue()


def saved():
    file = io.BytesIO()
    np.save(file, np.arange(3))
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "what", "mend"),
    [
        (zipped(), "zip archive", "unpack"),
        (tarred(), "tar archive", "unpack"),
        (gzip.compress(tarred()), "tar archive", "unpack"),
        (bz2.compress(TEXT.encode()), "compressed (bzip2)", "bunzip2"),
        (lzma.compress(TEXT.encode()), "compressed (xz)", "unxz"),
        (b"\x28\xb5\x2f\xfd\x04", "compressed (zstd)", "unzstd"),
        (gzip.compress(gzip.compress(TEXT.encode())), "gzip twice", "gunzip"),
        (gzip.compress(TEXT.encode())[:40], "cut short", "copy it again"),
        (gzip.compress(TEXT.encode())[:-9] + b"123456789", "damaged", "copy it again"),
        (written("write_parquet"), "Parquet", "read_parquet"),
        (written("write_ipc"), "Arrow", "read_ipc"),
        (saved(), "NumPy", "JSONL"),
        (TEXT.encode("utf-16"), "UTF-16", "iconv -f UTF-16 "),
        (TEXT.encode("utf-16-le"), "UTF-16", "iconv -f UTF-16LE"),
        (TEXT.encode("utf-16-be"), "UTF-16", "iconv -f UTF-16BE"),
        (TEXT.encode("utf-32"), "UTF-32", "iconv -f UTF-32"),
        (b"\x80\x05\x95\x00\x00\x00\x00", "binary", "text"),
        (bytes(5000), "binary", "text"),
        (b"version https://git-lfs.github.com/spec/v1\noid x\n", "Git LFS", "git lfs pull"),
        (b"<!DOCTYPE html>\n<html>", "web page", "download"),
        (written("write_csv"), "a table (CSV)", "read_csv('FILE').write"),
        (written("write_csv", separator="\t"), "a table (TSV)", "separator='\\t'"),
        (written("write_csv", separator=";"), "a table (CSV)", "separator=';'"),
        (b'"What is asked","What is right"\n"a, b","c"\n', "a table (CSV)", "read_csv"),
        (json.dumps(ROWS).encode(), "a JSON list", "json.load"),
        (json.dumps(ROWS, indent=1).encode(), "a JSON list", "json.load"),
        (json.dumps(ROWS[0], indent=1).encode(), "several lines", "on a line of its own"),
    ],
    ids=lambda value: "file" if isinstance(value, bytes) else value,  # gzip writes the time
)
def test_a_file_of_another_kind_is_named(tmp_path, content, what, mend):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        jsonl.load(path)
    assert what in error.value.what and mend in error.value.mend
    assert error.value.where == str(path)
    assert "save the file as UTF-8" not in str(error.value)


def test_a_table_is_one_by_its_name_too(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("Which of these is it?,yes\n")
    with pytest.raises(UserError, match="CSV"):
        jsonl.load(path)
    path.write_text(TEXT)
    assert len(jsonl.load(path).examples) == len(ROWS)


def test_the_conversions_that_messages_tell_of_work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{sys.prefix}/bin:{os.environ['PATH']}")
    frame = pl.DataFrame(ROWS)
    frame.write_parquet("a"), frame.write_csv("b"), frame.write_csv("c", separator=";")
    (tmp_path / "d").write_text(json.dumps(ROWS, indent=1))
    (tmp_path / "e").write_text(TEXT, encoding="utf-16")
    for name in "abcde":
        with pytest.raises(UserError) as error:
            jsonl.load(name)
        mend = error.value.mend.split(": ", 1)[-1].split("; columns")[0].replace("FILE", name)
        assert os.system(mend.removeprefix("such as with: ")) == 0
        assert [one.meta for one in jsonl.load(f"{name}.jsonl").examples] == [
            {"n": str(row["n"])} for row in ROWS
        ]


def test_gzip_is_unpacked(tmp_path):
    plain, packed, unnamed = (tmp_path / n for n in ("x.jsonl", "x.jsonl.gz", "other"))
    plain.write_text(TEXT)
    for path in (packed, unnamed):
        path.write_bytes(gzip.compress(b"\xef\xbb\xbf" + TEXT.encode()))
    assert jsonl.load(packed) == jsonl.load(plain)
    assert len(jsonl.load(unnamed).examples) == len(ROWS)
    packed.write_bytes(gzip.compress(TEXT.encode() + b"{}\n"))
    with pytest.raises(UserError, match=rf"x\.jsonl\.gz:{len(ROWS) + 1}: has no 'prompt'"):
        jsonl.load(packed)


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_pipe_is_read(tmp_path, pack):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    thread = threading.Thread(target=path.write_bytes, args=(pack(TEXT.encode()),))
    thread.start()
    assert len(jsonl.load(path).examples) == len(ROWS)
    thread.join()


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize("able", [("readable", "readinto", "closed"), ("read",)])
def test_files_of_buckets_are_read(monkeypatch, pack, able):
    """They are no files of Python's: fsspec's cannot peek, TensorFlow's can read alone."""

    class Opened:
        def __init__(self):
            self.content = io.BytesIO(pack(TEXT.encode()))

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

        def __getattr__(self, name):
            if name not in (*able, "close", "flush"):
                raise AttributeError(name)
            return getattr(self.content, name)

    monkeypatch.setattr(type(epath.Path("gs://b/x")), "open", lambda *words: Opened())
    assert len(jsonl.load("gs://bucket/x.jsonl").examples) == len(ROWS)


def test_a_line_beyond_memory_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("ilp_jax.data.lines._LONGEST", 1 << 20)
    path = tmp_path / "x.jsonl.gz"
    path.write_bytes(gzip.compress(TEXT.encode() + b'{"prompt": "' + b"a" * (1 << 21)))
    with pytest.raises(UserError, match=f":{len(ROWS) + 1}: the line is longer than 1 MB"):
        jsonl.load(path)


def test_all_bad_rows_are_told_at_once(write_jsonl):
    good, empty = {"prompt": "p", "response": "r"}, {"prompt": "p", "response": " "}
    with pytest.raises(UserError) as error:
        jsonl.load(write_jsonl([good, empty, good, empty]))
    assert error.value.what == "2 rows cannot be used: the response is empty (:2, :4)"
    assert error.value.mend == "give it text or remove the row"
    rows = [good, *[empty] * 9, {"prompt": "p"}, [1], {**good, "id": 1.5}, {**good, "prompt": 3}]
    with pytest.raises(UserError) as error:
        jsonl.load(write_jsonl(rows))
    assert error.value.what == (
        "13 rows cannot be used: the response is empty (:2, :3, :4, :5, :6 and 4 more); "
        "has no 'response' but 'prompt' (:11); a JSON list, not an object (:12); "
        "other faults (2 more)"
    )
    assert error.value.mend.startswith("give it text or remove the row; give")
    with pytest.raises(UserError, match=r"has no stage, but other rows do \(:1, :3\)"):
        jsonl.load(write_jsonl([good, {**good, "stage": 1}, {**good, "id": 1}]))


def test_bytes_that_are_no_utf8_are_told_by_line(tmp_path):
    path = tmp_path / "x.jsonl"
    rows = [
        {"prompt": "caf\u00e9", "response": "r"},
        ROWS[0],
        {"prompt": "\u00fc", "response": "r"},
    ]
    lines = [json.dumps(row, ensure_ascii=False).encode("latin-1") for row in rows]
    path.write_bytes(b"\n".join(lines))
    with pytest.raises(UserError, match=r"not UTF-8 \(:1, :3\)"):
        jsonl.load(path)
