"""Which errors of a disk or bucket are told in one line, and which are not its fault."""

import errno
import os
import re

import pytest

from ilp_jax import files, storage
from ilp_jax.errors import RunFailure, UserError


@pytest.mark.parametrize("place", ["a/b", "~/x", "/a://b", "C:\\x", "gs://b/x", "package:x", ""])
def test_places_that_may_be_read(place):
    storage.check_place(place)


@pytest.mark.parametrize(
    ("place", "mend"),
    [
        ("hf://org/m", "hf download NAME --local-dir DIR"),
        ("s3://b/x", "aws s3 cp"),
        ("S3://b/x", "aws s3 cp"),
        ("https://h/x", "curl -LO"),
        ("http://h/x", "curl -LO"),
        ("file:///x", "leave out 'file://'"),
        ("abfs://x", "copy it to a disk of this machine"),
        (" s3://b/x", "aws s3 cp"),
        ("C://x", "copy it to a disk of this machine"),
        ("s3a://x/y", "copy it to a disk of this machine"),
    ],
)
def test_addresses_are_refused_wherever_they_stand(place, mend):
    for refusal in (lambda: storage.check_place(place), lambda: files.as_path(place)):
        with pytest.raises(UserError, match=re.escape(mend)) as error:
            refusal()
        assert error.value.where == place and "is not supported" in error.value.what
    with pytest.raises(UserError, match="^--data: is +"):
        storage.check_place(place, "--data")
    with pytest.raises(UserError, match="gs:// is not supported; local paths are"):
        storage.check_place("gs://b/model", buckets=False)


def of_client(module, **values):
    """An error as a bucket's client raises it, made without that client."""
    kind = type("HttpError", (Exception,), {"__module__": module, **values})
    return kind("Backend Error, 503")


TENSORSTORE = {
    "bucket": (
        'ABORTED: Error opening "zarr" driver: Error reading gs://pods/arr/.zarray: All 2 retry '
        "attempts failed: Backend Error [http_response_code='503'] [tensorstore_spec='{}']"
    ),
    "read-only": (
        'PERMISSION_DENIED: Error writing local file "/mnt/x/.zarray": Failed to create '
        "directory: Read-only file system [os_error_code='30'] [tensorstore_spec='{}']"
    ),
    "missing": "NOT_FOUND: Error reading gs://pods/a: [http_response_code='404']",
}


@pytest.mark.parametrize(
    "error, line",
    [
        (OSError(errno.EIO, os.strerror(errno.EIO), "/mnt/a"), "/mnt/a: does not answer"),
        (OSError(errno.ESTALE, "Stale file handle"), "disk: does not answer"),
        (ConnectionRefusedError(errno.ECONNREFUSED, "refused"), "does not answer"),
        (of_client("gcsfs.retry", code=503), "bucket: does not answer (Backend Error, 503)"),
        (of_client("aiohttp.client_exceptions"), "bucket: does not answer"),
        (ValueError(TENSORSTORE["bucket"]), "gs://pods/arr/.zarray: does not answer"),
        (ValueError(TENSORSTORE["read-only"]), "/mnt/x/.zarray: does not answer"),
    ],
)
def test_a_place_that_is_away_for_a_while(error, line):
    found = storage.failure(error)
    assert isinstance(found, RunFailure) and found.exit_code == 1
    assert line in str(found) and "give the same command again" in str(found)
    # However deep it lies.
    wrapped = RuntimeError("while saving")
    wrapped.__cause__ = error
    assert str(storage.failure(wrapped)) == str(found)


def test_a_full_disk():
    found = storage.failure(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/x/y"))
    assert found.exit_code == 1 and str(found).startswith("/x/y: no space left")


@pytest.mark.parametrize("code", [401, "403"])
def test_a_bucket_that_lets_nobody_in(code):
    found = storage.failure(of_client("gcsfs.retry", code=code))
    assert type(found) is UserError and "lets you not in" in str(found)


def test_what_gcsfs_makes_of_forbidden():
    found = storage.failure(OSError("Forbidden: b/pods/o\nno storage.objects.get access"))
    assert type(found) is UserError and "storage.objects.get" in str(found)


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(errno.ENOENT, "No such file or directory"),
        PermissionError(errno.EACCES, "Permission denied"),
        ValueError("a shape is wrong"),
        ValueError(TENSORSTORE["missing"]),
        of_client("google.protobuf.message"),
        of_client("gcsfsx"),
        of_client("gcsfs.retry", code=404),
        None,
    ],
)
def test_other_errors_are_not_storages(error):
    """Of a path that is named see `test_a_path_that_is_not_what_it_should_be`."""
    assert storage.failure(error) is None


@pytest.mark.parametrize(
    "error, words",
    [
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "/x"), "no such file"),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), "permission denied"),
    ],
)
def test_a_path_that_is_not_what_it_should_be(error, words):
    found = storage.failure(error)
    assert type(found) is UserError and str(found).startswith("/x: ") and words in str(found)
