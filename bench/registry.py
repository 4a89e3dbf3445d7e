"""Debian's docker-registry on loop-back for the harness, and what is in an image that was pushed to it."""

from __future__ import annotations

import hashlib
import http.client
import json
import shutil
import socket
import subprocess
import tarfile
import time
import zlib
from pathlib import Path
from typing import Any

ACCEPT = "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"
_NOT_COUNTED = (
    "etc/hosts",
    "etc/resolv.conf",
    "etc/hostname",
    "run/",
    "dev/",
    "proc/",
    "sys/",
    "etc/mtab",
    "var/log/",
    "var/cache/ldconfig/",
)


class Registry:
    """One process with its files in `folder`, on a free port. `wipe` empties it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.host = f"localhost:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        (self.folder / "files").mkdir(parents=True, exist_ok=True)
        config = self.folder / "config.yml"
        config.write_text(
            "version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\n"
            f"storage: {{filesystem: {{rootdirectory: {self.folder}/files}}, delete: {{enabled: true}}}}\n"
            f"http: {{addr: 127.0.0.1:{self.port}}}\n"
        )
        self._process = subprocess.Popen(
            ["docker-registry", "serve", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        for _ in range(200):
            try:
                self._get("/v2/")
            except OSError:
                time.sleep(0.02)
            else:
                return
        raise SystemExit("error: docker-registry does not answer")

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def wipe(self) -> None:
        self.stop()
        shutil.rmtree(self.folder / "files")
        self.start()

    def _get(self, path: str) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request("GET", path, headers={"Accept": ACCEPT})
        return connection.getresponse()

    def manifest(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self._get(f"/v2/{name}/manifests/latest").read())
        if "layers" not in found:
            raise SystemExit(f"error: there is no image `{name}` in the registry: {found}")
        return found

    def size(self, name: str) -> int:
        """Bytes of config and layers."""
        manifest = self.manifest(name)
        return sum(one["size"] for one in (manifest["config"], *manifest["layers"]))

    def contents(self, name: str) -> dict[str, tuple[object, ...]]:
        """The files of the image: path, mode, owner, content, link; no directories, no times.

        What builders leave of mounts in a layer (`etc/hosts` and the like) and what dpkg writes times into is not counted.
        """
        found: dict[str, tuple[object, ...]] = {}
        for layer in self.manifest(name)["layers"]:
            response = self._get(f"/v2/{name}/blobs/{layer['digest']}")
            with tarfile.open(fileobj=_Plain(response), mode="r|") as tar:
                for entry in tar:
                    path = entry.name.removeprefix("./")
                    base = path.rpartition("/")[2]
                    if base.startswith(".wh."):
                        gone = path.replace(".wh.", "", 1)
                        for old in [one for one in found if one == gone or one.startswith(f"{gone}/")]:
                            del found[old]
                    elif not entry.isdir() and not path.startswith(_NOT_COUNTED):
                        content = tar.extractfile(entry) if entry.isreg() else None
                        digest = hashlib.file_digest(content, "sha256").hexdigest() if content else ""  # type: ignore[arg-type]
                        if entry.islnk():
                            found[path] = found[entry.linkname.removeprefix("./")]
                        else:
                            found[path] = (entry.mode & 0o7777, entry.uid, entry.gid, digest, entry.linkname)
        return found

    def unpack(self, name: str, folder: Path) -> None:
        """The files of the only layer of an image of ours, without their folders."""
        folder.mkdir(parents=True)
        (layer,) = self.manifest(name)["layers"]
        response = self._get(f"/v2/{name}/blobs/{layer['digest']}")
        with tarfile.open(fileobj=_Plain(response), mode="r|") as tar:
            for entry in tar:
                content = tar.extractfile(entry) if entry.isreg() else None
                if content is not None:
                    (folder / Path(entry.name).name).write_bytes(content.read())


class _Plain:
    """A gzip stream as its plain bytes, any number of members."""

    def __init__(self, raw: http.client.HTTPResponse) -> None:
        self._raw = raw
        self._inflate = zlib.decompressobj(31)

    def read(self, size: int) -> bytes:
        while True:
            if self._inflate.eof:
                rest = self._inflate.unused_data or self._raw.read(1 << 16)
                if not rest:
                    return b""
                self._inflate = zlib.decompressobj(31)
            else:
                rest = self._inflate.unconsumed_tail or self._raw.read(1 << 16)
            data = self._inflate.decompress(rest, size)
            if data or not rest:
                return data
