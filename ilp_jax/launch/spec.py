"""The description of a run on a pod: one YAML file, checked before anything is spent."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ilp_jax.errors import UserError, brief
from ilp_jax.fields import nearest
from ilp_jax.launch.slices import Slice, parse_slice

BY = ("xpk", "jobset", "queued")
"""How runs are started: on GKE with XPK, on GKE with kubectl alone, on TPU VMs."""

LOCAL = "/tmp/ilp"
"""Folder of every host that weights and data are copied into."""

_NOT_OF_XPK = ("v5litepod-1", "v5litepod-4")
_PRIORITIES = ("very-low", "low", "medium", "high", "very-high")
_NAME = re.compile(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?")  # XPK's rule, narrower than DNS-1123
_PROJECT = re.compile(r"([a-z0-9.-]+:)?[a-z][-a-z0-9]{4,28}[a-z0-9]")
_ZONE = re.compile(r"[a-z]+-[a-z]+\d+-[a-z]+\d*")
_ADDRESS = re.compile(r"gs://[a-z0-9][a-z0-9._-]{1,220}[a-z0-9](/[^\s*?\[\]#/]+)*/?")
_IMAGE = re.compile(r"[a-z0-9.-]+(:\d+)?(/[a-z0-9._-]+)+(:[\w.-]+|@sha256:[0-9a-f]{64})")
# A name that begins with '-' would be an option of the program that gets it.
_REPO = re.compile(r"\w[\w.-]*/\w[\w.-]*")
_PLAIN = re.compile(r"\w[\w.@-]*")
_ACCOUNT = re.compile(r"\w[\w.+-]*@\w[\w.-]*")
_NO_WORD = re.compile(r"[\0\ud800-\udfff]")  # no command line can carry these
BREAKS = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")
"""What ends a line, or may not stand, in the YAML that XPK writes words into as they are."""
_TOKEN = re.compile(r"hf_[A-Za-z0-9]{16,}")
_SECRET_WORDS = ("TOKEN", "SECRET", "PASSWORD", "CREDENTIAL", "API_KEY")


@dataclasses.dataclass(frozen=True)
class Weights:
    """Where the base model comes from: one of ``repo``, ``folder`` and ``at``.

    Attributes:
      repo: OWNER/NAME on the Hugging Face hub.
      folder: a folder of this machine, to be uploaded.
      at: a folder of a bucket that has them already.
      revision: of ``repo``: branch, tag or commit.
      secret: name of the secret with the hub's token, for a gated ``repo``: of Secret Manager,
        or (``where`` = cloud on GKE) a Kubernetes secret with the key ``token``. None: the
        variable HF_TOKEN of this machine, or no token.
      where: what downloads ``repo``: ``here``, this machine; ``cloud``, one pod or TPU VM.
    """

    repo: str | None = None
    folder: str | None = None
    at: str | None = None
    revision: str = "main"
    secret: str | None = None
    where: str = "here"


@dataclasses.dataclass(frozen=True)
class Launch:
    """One run on TPU slices.

    Attributes:
      file: the description's own path.
      by: one of `BY`.
      name: of the workload, JobSet, or queued resource and its TPU VM.
      project: Google Cloud project id.
      zone: of the TPUs.
      slice: one slice.
      slices: how many, joined over the data centre's network.
      spot: whether the TPUs may be taken away at any time, at a lower price.
      reservation: name of a reservation that the TPUs are taken from.
      cluster: name of the GKE cluster (``xpk``, ``jobset``).
      image: address of the container image, with tag or digest.
      bucket: ``gs://`` address for weights, data and runs, in the region of the TPUs.
      workdir: the run's folder in a bucket.
      words: what follows ``ilp run``, but for ``--workdir``.
      weights: the base model, None where the configuration reads it from elsewhere.
      data: a file or folder of this machine that every host gets, None for none.
      environment: variables of the run; no secrets.
      max_restarts: how often a run that ended early is started again.
      grace_seconds: seconds between SIGTERM and SIGKILL.
      priority: of the workload among others (``xpk``).
      queue: Kueue's local queue (``jobset``), None without Kueue.
      service_account: e-mail of the Google service account that the hosts act as.
      kubernetes_service_account: of the pods (``jobset``), None for the namespace's default.
    """

    file: str
    by: str
    name: str
    project: str
    zone: str
    slice: Slice
    slices: int
    spot: bool
    reservation: str | None
    cluster: str | None
    image: str
    bucket: str
    workdir: str
    words: tuple[str, ...]
    weights: Weights | None
    data: str | None
    environment: Mapping[str, str]
    max_restarts: int
    grace_seconds: int
    priority: str
    queue: str | None
    service_account: str
    kubernetes_service_account: str | None

    @property
    def region(self) -> str:
        """The zone's region."""
        return self.zone.rpartition("-")[0]

    @property
    def processes(self) -> int:
        """Hosts of all slices: one process of JAX each."""
        return self.slices * (self.slice.vms if self.by == "queued" else self.slice.nodes)

    def for_run(self, name: str, words: Sequence[str], workdir: str) -> Launch:
        """The same place for another run; see the attributes."""
        return dataclasses.replace(self, name=name, words=tuple(words), workdir=workdir)


_REQUIRED = ("by", "name", "project", "zone", "tpu", "bucket", "image")
_OPTIONAL: dict[str, Any] = {
    "slices": 1,
    "spot": False,
    "reservation": None,
    "cluster": None,
    "workdir": None,
    "config": None,
    "arguments": [],
    "weights": None,
    "data": None,
    "environment": {},
    "max_restarts": 10,
    "grace_seconds": 300,
    "priority": "medium",
    "queue": None,
    "service_account": None,
    "kubernetes_service_account": None,
}


def read(path: str, needs_config: bool = True) -> Launch:
    """Reads and checks a description.

    Args:
      path: the YAML file.
      needs_config: whether ``config`` must be there; a sweep brings its own.

    Raises:
      UserError: no such file, an unknown or missing field, or a value that cannot work.
    """
    fields = _fields(path)
    check = _Check(path)
    by = check.one_of("by", fields["by"], BY)
    name = check.matches("name", fields["name"], _NAME, _NAME_RULE)
    project = check.matches("project", fields["project"], _PROJECT, "give the project's id")
    zone = check.matches("zone", fields["zone"], _ZONE, "give a zone, such as us-west4-b")
    tpu = check.text("tpu", fields["tpu"])
    try:
        one = parse_slice(tpu)
    except UserError as error:
        raise UserError(f"{path}: {error.where}", error.what, error.mend) from None
    if by == "xpk" and one.name in _NOT_OF_XPK:
        raise UserError(f"{path}: tpu", f"XPK has no {one.name}", "use jobset or queued")
    slices = check.count("slices", fields["slices"], 1)
    if by == "queued" and slices > 1:
        raise UserError(f"{path}: slices", "TPU VMs are started one slice at a time", "use xpk")
    cluster = check.maybe("cluster", fields["cluster"], _NAME, _NAME_RULE)
    if by != "queued" and cluster is None:
        raise UserError(f"{path}: cluster", f"is needed for {by}", "name the GKE cluster")
    bucket = check.address("bucket", fields["bucket"])
    weights = _weights(check, fields["weights"])
    data = None if fields["data"] is None else check.path_of("data", fields["data"])
    if data is not None and not Path(data).exists():
        raise UserError(f"{path}: data", f"no such file or folder {data}", "mend the path")
    account = f"ilp@{project}.iam.gserviceaccount.com"
    words = _words(check, fields["config"], fields["arguments"], weights, data, needs_config)
    image = check.matches(
        "image", fields["image"], _IMAGE, "give REGION-docker.pkg.dev/PROJECT/REPOSITORY/NAME:TAG"
    )
    return Launch(
        file=path,
        by=by,
        name=name,
        project=project,
        zone=zone,
        slice=one,
        slices=slices,
        spot=check.flag("spot", fields["spot"]),
        reservation=check.maybe("reservation", fields["reservation"], _PLAIN, "give its name"),
        cluster=cluster,
        image=image,
        bucket=bucket,
        workdir=check.address("workdir", fields["workdir"] or f"{bucket}/runs/{name}"),
        words=words,
        weights=weights,
        data=data,
        environment=_environment(check, fields["environment"], by),
        max_restarts=check.count("max_restarts", fields["max_restarts"], 0),
        grace_seconds=check.count("grace_seconds", fields["grace_seconds"], 1),
        priority=check.one_of("priority", fields["priority"], _PRIORITIES),
        queue=check.maybe("queue", fields["queue"], _NAME, _NAME_RULE),
        service_account=check.matches(
            "service_account", fields["service_account"] or account, _ACCOUNT, "give its e-mail"
        ),
        kubernetes_service_account=check.maybe(
            "kubernetes_service_account",
            fields["kubernetes_service_account"],
            re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"),
            _NAME_RULE,
        ),
    )


_NAME_RULE = "use up to 40 of a-z, 0-9 and '-', a letter first and no '-' last"


@dataclasses.dataclass(frozen=True)
class _Check:
    """Checks of single values; each raises a UserError that names file and field."""

    path: str

    def cannot_be(self, field: str, value: Any, mend: str) -> UserError:
        return UserError(f"{self.path}: {field}", f"{brief(value)} cannot be", mend)

    def text(self, field: str, value: Any) -> str:
        if not isinstance(value, str):
            raise self.cannot_be(field, value, "give a text")
        if _NO_WORD.search(value):
            raise self.cannot_be(field, value, "give a text that a command line can carry")
        return value

    def path_of(self, field: str, value: Any) -> str:
        if self.text(field, value).startswith("-"):
            raise self.cannot_be(field, value, f"it reads as an option: write ./{value}")
        return value

    def matches(self, field: str, value: Any, pattern: re.Pattern[str], mend: str) -> str:
        if not isinstance(value, str) or not pattern.fullmatch(value) or _NO_WORD.search(value):
            raise self.cannot_be(field, value, mend)
        return value

    def maybe(self, field: str, value: Any, pattern: re.Pattern[str], mend: str) -> str | None:
        return None if value is None else self.matches(field, value, pattern, mend)

    def address(self, field: str, value: Any) -> str:
        if "://" not in self.text(field, value):
            mend = f"did you mean gs://{value.lstrip('/')}?"
            what = f"{brief(value)} is not in a bucket"
            raise UserError(f"{self.path}: {field}", what, mend)
        mend = "give gs://BUCKET or gs://BUCKET/FOLDER"
        return self.matches(field, value, _ADDRESS, mend).rstrip("/")

    def one_of(self, field: str, value: Any, known: Sequence[str]) -> str:
        if value not in known:
            mend = nearest(brief(value), known) or f"one of {', '.join(known)}"
            what = f"no such choice {brief(value)}"
            raise UserError(f"{self.path}: {field}", what, mend)
        return value

    def count(self, field: str, value: Any, least: int) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise self.cannot_be(field, value, f"give a whole number of at least {least}")
        return value

    def flag(self, field: str, value: Any) -> bool:
        if not isinstance(value, bool):
            raise self.cannot_be(field, value, "true or false")
        return value

    def mapping(self, field: str, value: Any, known: Sequence[str] | None) -> dict[str, Any]:
        where = f"{self.path}: {field}" if field else self.path
        if not isinstance(value, dict):
            raise UserError(where, "is no mapping of names to values", "see launch/examples")
        for name in value:
            if known is not None and name not in known:
                mend = nearest(str(name), known) or f"the fields are {', '.join(known)}"
                raise UserError(where, f"no such field {name!r}", mend)
        return value


def _fields(path: str) -> dict[str, Any]:
    try:
        text = Path(path).read_text()
        loaded = yaml.safe_load(text)
    except FileNotFoundError:
        raise UserError(path, "no such file", "copy one of launch/examples") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(path, f"cannot be read ({error})") from None
    # YAML's own types refuse more: a date such as 2020-99-99, a number of 5,000 digits.
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        at = f" at line {mark.line + 1}" if mark else ""
        raise UserError(path, f"is not YAML{at}", "see launch/examples") from None
    if _TOKEN.search(text):
        mend = "take it out, make a new token, and name a secret in weights.secret"
        raise UserError(path, "holds a token of the hub", mend)
    given = _Check(path).mapping("", loaded, (*_REQUIRED, *_OPTIONAL))
    for field in _REQUIRED:
        if given.get(field) is None:
            raise UserError(f"{path}: {field}", "is needed", "see launch/examples")
    return {**_OPTIONAL, **given}


def _weights(check: _Check, value: Any) -> Weights | None:
    if value is None:
        return None
    names = [field.name for field in dataclasses.fields(Weights)]
    given = Weights(**check.mapping("weights", value, names))
    where = f"{check.path}: weights"
    if sum(one is not None for one in (given.repo, given.folder, given.at)) != 1:
        raise UserError(where, "needs one of repo, folder and at", "give just one")
    check.maybe("weights.repo", given.repo, _REPO, "give OWNER/NAME")
    check.matches("weights.revision", given.revision, re.compile(r"[\w./-]+"), "give a branch")
    check.maybe("weights.secret", given.secret, _PLAIN, "give the secret's name")
    check.one_of("weights.where", given.where, ("here", "cloud"))
    if given.folder is not None:
        folder = check.path_of("weights.folder", given.folder)
        if not Path(folder).is_dir():
            raise UserError(where, f"no such folder {folder}", "mend the path")
    if given.at is not None:
        given = dataclasses.replace(given, at=check.address("weights.at", given.at))
    return given


def _words(
    check: _Check,
    config: Any,
    arguments: Any,
    weights: Weights | None,
    data: Any,
    needs_config: bool,
) -> tuple[str, ...]:
    """``--config`` and overrides, with the places of weights and data filled in."""
    if not isinstance(arguments, list) or not all(isinstance(one, str) for one in arguments):
        mend = "give a list such as ['--config.seed=1']"
        raise UserError(f"{check.path}: arguments", "is no list of texts", mend)
    for one in arguments:
        if not check.text("arguments", one).startswith("--config."):
            mend = "fields of the configuration alone, --config.FIELD=VALUE"
            raise check.cannot_be("arguments", one, mend)
    if config is None:
        if needs_config:
            raise UserError(f"{check.path}: config", "is needed", "give FILE.py:name=value,...")
        words = list(arguments)
    else:
        file = check.text("config", config).partition(".py")[0] + ".py"
        must_be_inside(f"{check.path}: config", file)
        if not Path(file).is_file():
            mend = nearest(file, [str(one) for one in Path(file).parent.glob("*.py")])
            raise UserError(f"{check.path}: config", f"no such file {file}", mend)
        words = ["--config", config, *arguments]
    return fill(check.path, words, weights is not None, data)


def must_be_inside(where: str, file: str) -> None:
    """Raises UserError where a config file is not of this project, so not in the image."""
    if Path(file).is_absolute() or ".." in Path(file).parts:
        mend = "the image holds this project alone: put it under configs/"
        raise UserError(where, f"{file} lies outside", mend)


def fill(path: str, words: Sequence[str], has_weights: bool, data: str | None) -> tuple[str, ...]:
    """Puts the places on the hosts for ``{weights}`` and ``{data}``.

    Args:
      path: the description, for errors.
      words: of a command.
      has_weights: whether the hosts get weights.
      data: the file or folder that they get, None for none.

    Raises:
      UserError: something is asked for that the hosts do not get, or brought and never read.
    """
    places = {
        "weights": f"{LOCAL}/weights" if has_weights else None,
        "data": None if data is None else f"{LOCAL}/data/{Path(data).name}",
    }
    text = "\0".join(words)
    for name, place in places.items():
        asked = "{" + name + "}" in text
        if asked and place is None:
            raise UserError(f"{path}: {name}", f"is needed: a word has {{{name}}}", f"give {name}")
        if place is not None and words and not asked:
            mend = f"write {{{name}}} where the configuration names it, or leave {name} out"
            raise UserError(f"{path}: {name}", "is brought to every host and never read", mend)
        text = text.replace("{" + name + "}", place or "")
    return tuple(text.split("\0")) if words else ()


def _environment(check: _Check, value: Any, by: str) -> dict[str, str]:
    filled = {}
    for name, text in check.mapping("environment", value, None).items():
        where = f"environment.{name}"
        check.matches("environment", name, re.compile(r"[A-Za-z_]\w*"), "letters, digits, '_'")
        if any(word in name.upper() for word in _SECRET_WORDS):
            mend = "it would stand in manifests and logs: weights.secret names a secret"
            raise UserError(f"{check.path}: {where}", "looks like a secret", mend)
        if isinstance(text, bool) or not isinstance(text, str | int | float):
            raise check.cannot_be(where, text, "give a text")
        text = check.text(where, str(text))
        if by == "xpk" and (set(text) & {'"', "\\"} or BREAKS.search(text)):
            what = "XPK writes it between double quotes, unescaped"
            raise UserError(f"{check.path}: {where}", what, 'use no ", backslash or new line')
        filled[name] = text
    return filled
