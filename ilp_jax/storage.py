"""What to tell of an address that is not read, and of a disk or a bucket that failed."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator

from ilp_jax.errors import RunFailure, UserError

_FULL = (errno.ENOSPC, errno.EDQUOT)
# Of a disk or a network file system that went away; it may come back.
_GONE = {
    getattr(errno, name)
    for name in (
        *("EIO", "EREMOTEIO", "EROFS", "ESTALE", "ENODEV", "ENXIO", "ENOTCONN", "ETIMEDOUT"),
        *("ECONNREFUSED", "ECONNRESET", "ECONNABORTED", "EHOSTDOWN", "EHOSTUNREACH", "ENETDOWN"),
        "ENETUNREACH",
    )
    if hasattr(errno, name)
}
_NO_PATH = (errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR)
# Of a path that is not what it should be.
_MISTAKEN = {
    getattr(errno, name)
    for name in (
        *("ENOENT", "EISDIR", "ENOTDIR", "EEXIST", "ENOTEMPTY", "ENAMETOOLONG", "ELOOP"),
        *("EACCES", "EPERM"),
    )
}
# Clients of buckets, which have errors of their own and wait before they raise them.
_CLIENTS = (
    *("gcsfs", "fsspec", "aiohttp", "requests", "urllib3"),
    *("google.api_core", "google.auth", "google.cloud", "google.resumable_media"),
)
_NO_ACCESS = (401, 403)
# TensorStore knows neither classes nor numbers: its texts end in the status of a request or a call.
_OS_ERROR = re.compile(r"os_error_code='(\d+)'")
_HTTP_STATUS = re.compile(r"http_response_code='(\d+)'")
_PLACE = re.compile(r"\b(?:gs|s3)://[^\s,;'\"]+|(?<=local file \")[^\"]+")


_ADDRESS = re.compile(r"([^/]+)://")
_HERE = "copy it to a disk of this machine and give the path there"
_FETCH = {
    "file": "leave out 'file://'",
    "gs": f"{_HERE}, such as with: gcloud storage cp -r",
    "s3": f"{_HERE}, such as with: aws s3 cp --recursive",
    "hf": f"{_HERE}: hf download NAME --local-dir DIR (--repo-type dataset for data)",
    "http": f"{_HERE}, such as with: curl -LO",
    "https": f"{_HERE}, such as with: curl -LO; from huggingface.co with: hf download NAME",
}


def check_place(
    place: object, where: object = "", buckets: bool = True, written: bool = False
) -> None:
    """Makes sure that a path is one of this machine or of a bucket that can be read.

    Args:
      place: the path as the user gave it.
      where: the field or argument that it stands in, for the message.
      buckets: whether it may be a ``gs://`` address.
      written: whether something is to be written there, for the advice.

    Raises:
      UserError: it is another address.
    """
    found = _ADDRESS.match(str(place))
    if found is None or (buckets and found[1] == "gs"):
        return
    kinds = "local paths and gs:// are" if buckets else "local paths are"
    what = f"{found[1]}:// is not supported; {kinds}"
    mend = _FETCH.get(found[1].strip().lower(), _HERE)
    if written and found[1] != "file":
        mend = "give a path of this machine; what lies there already, copy here first"
    raise UserError(where or place, f"is {place}, and {what}" if where else what, mend)


def failure(error: BaseException | None) -> UserError | None:
    """The one line for an error of storage.

    Args:
      error: what was raised; the errors that it came from are looked at as well.

    Returns:
      A `RunFailure` where the disk is full or the disk or bucket did not answer, a `UserError`
      where there can be no such path, a path is not what it should be, or the bucket lets nobody
      in; None where the error has another origin.
    """
    for one in _chain(error):
        number, status = _number(one), _status(one)
        where = _where(one)
        if number in _FULL or "no space left on device" in str(one).lower():
            return RunFailure(where or "disk", "no space left", "free some and repeat")
        if number in _NO_PATH:
            return UserError(_short(one), "is no path", "give the path of a file or folder")
        if status in _NO_ACCESS or (status is None and str(one).startswith("Forbidden:")):
            mend = "see who you are with `gcloud auth list`, and give that account access to it"
            return UserError(where or "bucket", f"lets you not in ({_short(one)})", mend)
        if number in _GONE or status is not None or (_of_client(one) and not _is_missing(one)):
            return RunFailure(
                where or ("disk" if number else "bucket"),
                f"does not answer ({_short(one)})",
                "nothing written so far is lost: give the same command again when it does",
            )
    if isinstance(error, OSError) and error.errno is not None and error.filename is not None:
        where = os.fsdecode(error.filename2 or error.filename)
        kind = UserError if error.errno in _MISTAKEN else RunFailure
        return kind(where, error.strerror.lower(), "put that right and repeat")
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _number(error: BaseException) -> int | None:
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    found = _OS_ERROR.search(str(error))
    return int(found[1]) if found else None


def _status(error: BaseException) -> int | None:
    """HTTP status of a bucket's answer; a missing object is no failure of the bucket."""
    code = getattr(error, "code", None) if _of_client(error) else None
    found = _HTTP_STATUS.search(str(error))
    code = int(found[1]) if found else int(code) if str(code).isdecimal() else None
    return None if code == 404 else code


def _is_missing(error: BaseException) -> bool:
    return str(getattr(error, "code", None)) == "404"


def _of_client(error: BaseException) -> bool:
    module = type(error).__module__
    return any(module == name or module.startswith(f"{name}.") for name in _CLIENTS)


def _where(error: BaseException) -> str:
    if isinstance(error, OSError) and error.filename:
        return str(error.filename)
    found = _PLACE.search(str(error))
    return found[0].rstrip(":") if found else ""


def _short(error: BaseException, length: int = 160) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= length else text[:length] + "..."
