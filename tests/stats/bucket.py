"""A bucket in memory under ``gs://``, where epath looks for Google's: no folders, no renames.

What of Google Cloud Storage matters to files of a run: an object appears when its upload ends, a
folder exists as long as an object lies in it, and a rename is a copy and a deletion.
"""

import io

from fsspec import AbstractFileSystem


class Bucket(AbstractFileSystem):
    """``objects``: content by address, without ``gs://``."""

    protocol = ("gcs", "gs")
    cachable = False

    def __init__(self, objects, **kwargs):
        super().__init__(**kwargs)
        self.objects = objects

    def _open(self, path, mode="rb", **_):
        if mode == "wb":
            return _Upload(self.objects, path)
        if path not in self.objects:
            raise FileNotFoundError(path)
        return io.BytesIO(self.objects[path])

    def info(self, path, **_):
        path = self._strip_protocol(path).rstrip("/")
        if path in self.objects:
            return {"name": path, "type": "file", "size": len(self.objects[path])}
        if any(name.startswith(f"{path}/") for name in self.objects):
            return {"name": path, "type": "directory", "size": 0}
        raise FileNotFoundError(path)

    def ls(self, path, detail=True, **_):
        path = self._strip_protocol(path).rstrip("/")
        below = [name[len(path) + 1 :] for name in self.objects if name.startswith(f"{path}/")]
        names = sorted({f"{path}/{name.split('/')[0]}" for name in below})
        return [self.info(name) for name in names] if detail else names

    def mkdir(self, path, create_parents=True, **_):
        pass

    def makedirs(self, path, exist_ok=False):
        pass

    def _rm(self, path):
        path = self._strip_protocol(path)
        if path not in self.objects:
            raise FileNotFoundError(path)
        del self.objects[path]

    def cp_file(self, path1, path2, **_):
        self.objects[self._strip_protocol(path2)] = self.objects[self._strip_protocol(path1)]


class _Upload(io.BytesIO):
    def __init__(self, objects, path):
        super().__init__()
        self._objects, self._path = objects, path

    def close(self):
        if not self.closed:
            self._objects[self._path] = self.getvalue()
        super().close()
