"""``ilp prepare``, on data sets whose builders are made here and need no network."""

import errno
import importlib.util
import os
import re

import pytest

from ilp_jax import cli
from ilp_jax.config import default_stage
from ilp_jax.data import prepare, tfds_source

FILE = """
from ilp_jax.config import default_config, default_stage


def get_config(name: str, data_dir: str, source: str = "tfds", twice: bool = False):
    config = default_config()
    config.stages.a = stage = default_stage()
    stage.source, stage.tfds_name, stage.data_dir = source, name, data_dir
    stage.path, stage.prompt_field, stage.response_field = "x.jsonl", "q", "a"
    config.stages.b = stage.copy_and_resolve_references()
    config.stages.unused = default_stage()
    config.sequence = ("a", "b", "a") if twice else ("a",)
    return config
"""


@pytest.fixture(scope="module")
def tfds():
    pytest.importorskip("array_record")
    return pytest.importorskip("tensorflow_datasets")


@pytest.fixture(scope="module")
def builders(tfds):
    """Names of data sets that the library knows in this process, by what they do."""

    class PreparedHere(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = tfds.features.FeaturesDict(dict.fromkeys("qa", tfds.features.Text()))
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples(1200), "test": self._generate_examples(3)}

        def _generate_examples(self, n):
            for i in range(n):
                yield i, {"q": f"what is {i} ?", "a": str(i)}

    class NeedsTensorflow(PreparedHere):
        def _split_generators(self, dl_manager):
            from tensorflow_datasets.core.utils.lazy_imports_utils import tensorflow as tf

            return {"train": tf.io.gfile.listdir(".")}

    class NeedsAPackage(PreparedHere):
        def _split_generators(self, dl_manager):
            import no_such_package.reader  # noqa: F401

    class BrokenOff(PreparedHere):
        def _split_generators(self, dl_manager):
            raise ConnectionError("reset by peer\nat byte 3")

    class DiskFull(PreparedHere):
        def _split_generators(self, dl_manager):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "shard-0")

    class FarAway(PreparedHere):
        url_infos = {"https://nowhere.invalid/rows.json": None, "http://other.invalid/x": None}

    class NeedsTensorflowAtOnce(PreparedHere):
        def __init__(self, **kwargs):
            from tensorflow_datasets.core.utils.lazy_imports_utils import tensorflow as tf

            self.shape = tf.TensorShape([3])
            super().__init__(**kwargs)

    class NeedsAPackageAtOnce(PreparedHere):
        def __init__(self, **kwargs):
            import no_such_package.reader  # noqa: F401

    class AsksAHub(PreparedHere):
        def __init__(self, **kwargs):
            raise type("HubError", (Exception,), {})("nobody answers\nat all")

    made = (PreparedHere, NeedsTensorflow, NeedsAPackage, BrokenOff, DiskFull, FarAway)
    made += (NeedsTensorflowAtOnce, NeedsAPackageAtOnce, AsksAHub)
    return {cls.__name__: cls.name for cls in made}


@pytest.fixture
def ilp_prepare(tmp_path, builders, capsys):
    """Runs the command in this process: exit code, standard output, standard error."""
    file = tmp_path / "study.py"
    file.write_text(FILE)

    def run(name, *words, more=""):
        name = builders.get(name, name)
        argument = f"{file}:name={name},data_dir={tmp_path / 'sets'}{more}"
        code = cli.main(["prepare", "--config", argument, *words])
        return code, *capsys.readouterr()

    return run


def test_writes_once_what_a_stage_then_reads(ilp_prepare, tmp_path):
    code, out, err = ilp_prepare("PreparedHere", more=",twice=true")
    folder = tmp_path / "sets" / "prepared_here" / "1.0.0"
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        f"stage a: prepared_here/1.0.0 written, in {folder}; rows: train 1,200, test 3",
        f"stage b: prepared_here/1.0.0 was there, in {folder}; rows: train 1,200, test 3",
    ]
    before = {file: file.stat().st_mtime_ns for file in folder.iterdir()}
    code, out, _ = ilp_prepare("PreparedHere")
    assert code == 0 and "was there" in out and out.count("\n") == 1
    assert {file: file.stat().st_mtime_ns for file in folder.iterdir()} == before

    stage = default_stage()
    given = {"source": "tfds", "tfds_name": "prepared_here", "data_dir": str(tmp_path / "sets")}
    stage.update(given | {"prompt_field": "q", "response_field": "a"})
    rows, dropped = tfds_source.load(stage, "config.stages.a")
    assert {(r.prompt, r.response) for r in rows} == {
        (f"what is {i} ?", str(i)) for i in range(1200)
    }
    assert not dropped


def test_nothing_to_prepare(ilp_prepare):
    code, out, _ = ilp_prepare("x", more=",source=jsonl")
    assert code == 0 and "nothing to prepare" in out


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_set", "no data set 'no_such_set'.*tensorflow.org/datasets/catalog"),
        ("prepared_here:7.0.0", "no data set.*7.0.0.*catalog"),
        ("NeedsTensorflow", "needs the package tensorflow to be prepared -- install it"),
        ("NeedsAPackage", "needs the package no_such_package to be prepared"),
        ("NeedsTensorflowAtOnce", "at_once' needs the package tensorflow -- prepare it where it"),
        ("NeedsAPackageAtOnce", "needs the package no_such_package -- prepare it where it can"),
        # Both are in the catalogue, and the library imports their group only after one that fails.
        ("wine_quality", "needs the package tensorflow -- prepare it where it can"),
        ("xtreme_s", "needs the package tensorflow -- prepare it where it can"),
        ("AsksAHub", "cannot be looked up .HubError: .*nobody answers"),
        ("BrokenOff", "cannot be prepared .ConnectionError: reset by peer. -- try again"),
        ("FarAway", "cannot be downloaded: nowhere.invalid is not found .no network"),
    ],
)
def test_what_cannot_be_prepared_is_one_line(ilp_prepare, name, message, tmp_path, monkeypatch):
    for proxy in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(proxy, raising=False)
        monkeypatch.delenv(proxy.upper(), raising=False)
    if "tensorflow" in message and importlib.util.find_spec("tensorflow"):
        pytest.skip("tensorflow is installed")
    code, out, err = ilp_prepare(name)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1 and err.startswith("ilp: error: config.stages.a.tfds_name: ")
    assert re.search(message, err)
    assert not list(tmp_path.glob("sets/*/1.0.0"))


def test_a_split_that_is_not_there(ilp_prepare):
    code, _, err = ilp_prepare("PreparedHere", "--config.stages.a.tfds_split=dev")
    assert code == 2 and "config.stages.a.tfds_split" in err and "train, test" in err


def test_a_full_disk_is_a_failure_of_the_run(ilp_prepare):
    code, _, err = ilp_prepare("DiskFull")
    assert code == 1 and "no space left" in err


def test_behind_a_proxy_no_name_is_looked_up(tfds, builders, monkeypatch):
    monkeypatch.setenv("https_proxy", "http://proxy.invalid:1")
    monkeypatch.setattr(prepare.socket, "getaddrinfo", lambda *a: pytest.fail("looked up"))
    builder = tfds.builder(builders["FarAway"], data_dir="/nowhere")
    prepare._check_network(builder, default_stage(), "config.stages.a")
