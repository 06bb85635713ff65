"""A bucket on this machine that speaks enough of Google Cloud Storage's JSON API to be run on.

    python benchmarks/bucket_server.py --port 9923

``gcsfs`` and TensorStore use it where ``environment(port)`` is set; see ``faults.py``. Objects lie
in memory and are gone with the process. ``POST /outage`` with a number of seconds as its body makes
every request after it fail with 503 for as long, ``POST /restore`` ends that; ``GET /counts`` says
how many requests were answered and how many failed.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

BUCKET = "pods"


def environment(port: int) -> dict[str, str]:
    """What makes gcsfs (through ``etils.epath``) and TensorStore take this for Google's."""
    address = f"http://localhost:{port}"
    return {
        "STORAGE_EMULATOR_HOST": address,
        "TENSORSTORE_GCS_HTTP_URL": address,
        "GOOGLE_AUTH_TOKEN_FOR_TESTING": "none",
    }


class Objects:
    """Contents by name, each with a generation that grows with every write."""

    def __init__(self):
        self.lock = threading.RLock()
        self.of: dict[str, tuple[bytes, int]] = {}
        self.uploads: dict[str, tuple[str, bytearray]] = {}
        self.generation = 0
        self.down_until = 0.0
        self.counts = {"answered": 0, "failed": 0}

    def put(self, name: str, content: bytes) -> dict:
        with self.lock:
            self.generation += 1
            self.of[name] = (bytes(content), self.generation)
            return self.about(name)

    def about(self, name: str) -> dict:
        content, generation = self.of[name]
        return {
            "kind": "storage#object",
            "name": name,
            "bucket": BUCKET,
            "size": str(len(content)),
            "generation": str(generation),
            "metageneration": "1",
            "updated": "2026-01-01T00:00:00.000Z",
            "timeCreated": "2026-01-01T00:00:00.000Z",
            "contentType": "application/octet-stream",
            "md5Hash": base64.b64encode(hashlib.md5(content).digest()).decode(),
        }


class Handler(BaseHTTPRequestHandler):
    """Answers one request; ``objects`` is set on a subclass."""

    protocol_version = "HTTP/1.1"
    objects: Objects

    def log_message(self, *_):
        pass

    def answer(self, status: int, content: bytes | dict = b"", **headers: str) -> None:
        if isinstance(content, dict):
            content = json.dumps(content).encode()
            headers["Content-Type"] = "application/json"
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _route(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        address = urlsplit(self.path)
        query = {k: v[0] for k, v in parse_qs(address.query, keep_blank_values=True).items()}
        objects, path = self.objects, address.path
        with objects.lock:
            if path == "/outage":
                objects.down_until = time.monotonic() + float(body)
                return self.answer(200)
            if path == "/restore":
                objects.down_until = 0.0
                return self.answer(200)
            if path == "/counts":
                return self.answer(200, objects.counts)
            down = time.monotonic() < objects.down_until
            objects.counts["failed" if down else "answered"] += 1
            if down:
                return self.answer(503, {"error": {"code": 503, "message": "Backend Error"}})
            if path.startswith("/upload/"):
                return self._upload(query, body)
            path = path.removeprefix("/download")
            *_, tail = path.partition(f"/b/{BUCKET}")
            if tail == "":
                return self.answer(200, {"kind": "storage#bucket", "name": BUCKET})
            if tail == "/o":
                return self._list(query)
            name = tail.removeprefix("/o/")
            for verb in ("/copyTo/", "/rewriteTo/"):
                if verb in name:
                    return self._copy(*name.split(verb))
            return self._object(unquote(name), query)

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = _route

    def _object(self, name: str, query: dict[str, str]) -> None:
        objects = self.objects
        if name not in objects.of:
            return self.answer(404, {"error": {"code": 404, "message": "No such object"}})
        content, generation = objects.of[name]
        if not self._meets(query, generation):
            return None
        if self.command == "DELETE":
            del objects.of[name]
            return self.answer(204)
        if query.get("alt") != "media":
            return self.answer(200, objects.about(name))
        headers = {
            "X_Goog_Generation": str(generation),
            "X_Goog_Metageneration": "1",
            "X_Goog_Stored_Content_Length": str(len(content)),
            "Content_Type": "application/octet-stream",
        }
        wanted = self.headers.get("Range")
        if not wanted or not content:
            return self.answer(200, content, **headers)
        first, _, last = wanted.removeprefix("bytes=").partition("-")
        begin = int(first) if first else len(content) - int(last)
        end = min(int(last) + 1 if first and last else len(content), len(content))
        if begin >= len(content):
            return self.answer(416, **headers)
        headers["Content_Range"] = f"bytes {begin}-{end - 1}/{len(content)}"
        return self.answer(206, content[begin:end], **headers)

    def _meets(self, query: dict[str, str], generation: int) -> bool:
        """Whether the request's conditions hold; else it is answered."""
        if "ifGenerationMatch" in query and int(query["ifGenerationMatch"]) != generation:
            self.answer(412, {"error": {"code": 412, "message": "Precondition Failed"}})
            return False
        if "ifGenerationNotMatch" in query and int(query["ifGenerationNotMatch"]) == generation:
            self.answer(304)
            return False
        return True

    def _list(self, query: dict[str, str]) -> None:
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter")
        items, folders = [], set()
        for name in sorted(self.objects.of):
            if not name.startswith(prefix) or name < query.get("startOffset", ""):
                continue
            rest = name[len(prefix) :]
            if delimiter and delimiter in rest:
                folders.add(prefix + rest.split(delimiter)[0] + delimiter)
            else:
                items.append(self.objects.about(name))
        items = items[: int(query.get("maxResults") or 10**9)]
        found = {"kind": "storage#objects", "items": items, "prefixes": sorted(folders)}
        self.answer(200, {k: v for k, v in found.items() if v})

    def _copy(self, source: str, target: str) -> None:
        if unquote(source) not in self.objects.of:
            return self.answer(404, {"error": {"code": 404, "message": "No such object"}})
        content, _ = self.objects.of[unquote(source)]
        about = self.objects.put(unquote(target.removeprefix(f"b/{BUCKET}/o/")), content)
        size = about["size"]
        done = {"kind": "storage#rewriteResponse", "done": True, "resource": about}
        self.answer(200, {**about, **done, "objectSize": size, "totalBytesRewritten": size})

    def _upload(self, query: dict[str, str], body: bytes) -> None:
        objects = self.objects
        if "upload_id" in query:
            return self._chunk(query["upload_id"], body)
        kind, name = query["uploadType"], query.get("name")
        if kind == "multipart":
            mark = self.headers["Content-Type"].split("boundary=")[1].strip("'\"").encode()
            _, about, content, *_ = body.split(b"--" + mark)
            name = name or json.loads(about.split(b"\n\n" if b"\r\n\r\n" not in about else
                                                  b"\r\n\r\n", 1)[1])["name"]  # fmt: skip
            separator = b"\r\n\r\n" if b"\r\n\r\n" in content else b"\n\n"
            body = content.split(separator, 1)[1]
            body = body.removesuffix(b"\n").removesuffix(b"\r")
        if kind == "resumable":
            name = name or json.loads(body)["name"]
        held = objects.of.get(name)
        if not self._meets(query, held[1] if held else 0):
            return None
        if kind != "resumable":
            return self.answer(200, objects.put(name, body))
        number = str(len(objects.uploads))
        objects.uploads[number] = (name, bytearray())
        host = self.headers["Host"]
        where = f"http://{host}/upload/storage/v1/b/{BUCKET}/o?uploadType=resumable"
        return self.answer(200, Location=f"{where}&upload_id={number}")

    def _chunk(self, number: str, body: bytes) -> None:
        name, content = self.objects.uploads[number]
        begin, _, total = self.headers.get("Content-Range", "bytes */*")[6:].partition("/")
        if begin != "*":
            del content[int(begin.split("-")[0]) :]
        content += body
        if total != "*" and len(content) == int(total):
            return self.answer(200, self.objects.put(name, content))
        return self.answer(308, Range=f"bytes=0-{len(content) - 1}")


def serve(port: int) -> ThreadingHTTPServer:
    """A server of an empty bucket, not yet answering; ``serve_forever`` starts it."""
    handler = type("OwnHandler", (Handler,), {"objects": Objects()})
    server = ThreadingHTTPServer(("localhost", port), handler)
    server.daemon_threads = True
    return server


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, default=9923)
    serve(parser.parse_args().port).serve_forever()
