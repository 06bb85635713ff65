"""The bucket that faults are tried in keeps what Google's promises of objects."""

import importlib.util
import json
import threading
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import Request, urlopen

import pytest

SERVER = Path(__file__).parents[2] / "benchmarks" / "bucket_server.py"


@pytest.fixture
def ask():
    """``ask(method, path, body=b"", **headers)``: status, content and headers of an answer."""
    spec = importlib.util.spec_from_file_location("bucket_server", SERVER)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    server = module.serve(0)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def run(method, path, body=b"", **headers):
        address = (
            path if path.startswith("http") else f"http://localhost:{server.server_port}{path}"
        )
        request = Request(address, body, headers, method=method)
        try:
            with urlopen(request) as answer:
                return answer.status, answer.read(), answer.headers
        except HTTPError as error:
            return error.code, error.read(), error.headers

    yield run
    server.shutdown()
    server.server_close()


OBJECTS = "/storage/v1/b/pods/o"


def put(ask, name, content, more=""):
    return ask("POST", f"/upload{OBJECTS}?uploadType=media&name={quote(name, '')}{more}", content)


def test_contents_and_conditions(ask):
    assert put(ask, "runs/a", b"0123456789", "&ifGenerationMatch=0")[0] == 200
    assert put(ask, "runs/a", b"other", "&ifGenerationMatch=0")[0] == 412
    path = f"{OBJECTS}/runs%2Fa"
    status, content, headers = ask("GET", f"{path}?alt=media")
    assert (status, content) == (200, b"0123456789")
    generation = headers["X-Goog-Generation"]
    assert json.loads(ask("GET", path)[1])["generation"] == generation
    assert ask("GET", f"{path}?alt=media", Range="bytes=2-4")[:2] == (206, b"234")
    assert ask("GET", f"{path}?alt=media", Range="bytes=7-")[:2] == (206, b"789")
    assert ask("GET", f"{path}?alt=media", Range="bytes=10-")[0] == 416
    assert ask("GET", f"{path}?alt=media&ifGenerationNotMatch={generation}")[0] == 304
    assert ask("POST", f"{path}/copyTo/b/pods/o/b")[0] == 200
    assert ask("DELETE", path)[0] == 204 and ask("GET", path)[0] == 404
    assert ask("GET", f"{OBJECTS}/b?alt=media")[1] == b"0123456789"


def test_folders_are_what_names_have_in_common(ask):
    for name in ("runs/a/1", "runs/a/2", "runs/b", "else"):
        put(ask, name, b"x")
    found = json.loads(ask("GET", f"{OBJECTS}?delimiter=/&prefix=runs/")[1])
    assert [one["name"] for one in found["items"]] == ["runs/b"]
    assert found["prefixes"] == ["runs/a/"]
    assert len(json.loads(ask("GET", f"{OBJECTS}?prefix=runs/")[1])["items"]) == 3


def test_an_object_appears_when_its_upload_ends(ask):
    _, _, headers = ask("POST", f"/upload{OBJECTS}?uploadType=resumable&name=a")
    where = headers["Location"]
    assert ask("PUT", where, b"01234", **{"Content-Range": "bytes 0-4/*"})[0] == 308
    assert ask("GET", f"{OBJECTS}/a")[0] == 404
    assert ask("PUT", where, b"56", **{"Content-Range": "bytes 5-6/7"})[0] == 200
    assert ask("GET", f"{OBJECTS}/a?alt=media")[1] == b"0123456"


def test_an_outage_loses_nothing(ask):
    put(ask, "a", b"x")
    ask("POST", "/outage", b"60")
    assert put(ask, "a", b"y")[0] == 503 and ask("GET", f"{OBJECTS}/a")[0] == 503
    ask("POST", "/restore")
    assert ask("GET", f"{OBJECTS}/a?alt=media")[:2] == (200, b"x")
    assert json.loads(ask("GET", "/counts")[1]) == {"answered": 2, "failed": 2}
