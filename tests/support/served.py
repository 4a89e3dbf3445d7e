"""`aerogel registry serve` in a process of its own, and a client that says exactly what it sends."""

from __future__ import annotations

import hashlib
import http.client
import json
import re
import signal
import subprocess
import threading
from typing import Any, NamedTuple

from process import Aerogel

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
EMPTY = "application/vnd.oci.empty.v1+json"
ENDED = 128 + signal.SIGTERM


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    def code(self) -> str:
        return str(json.loads(self.body)["errors"][0]["code"])


class Client:
    """A registry by its address."""

    def __init__(self, host: str) -> None:
        self.host = host

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Reply:
        connection = http.client.HTTPConnection(self.host, timeout=60)
        try:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body=body, headers=named)
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return Reply(answer.status, found, answer.read())
        finally:
            connection.close()

    def blob(self, name: str, data: bytes) -> dict[str, Any]:
        location = self.ask("POST", f"/v2/{name}/blobs/uploads/").headers["location"]
        digest = sha(data)
        sign = "&" if "?" in location else "?"
        put = self.ask("PUT", f"{location}{sign}digest={digest}", data, Content_Type="application/octet-stream")
        assert put.status == 201, put
        return {"mediaType": "application/octet-stream", "digest": digest, "size": len(data)}

    def manifest(self, name: str, reference: str = "", **more: Any) -> tuple[str, bytes]:
        """An artifact of one small blob; returns its digest and its bytes."""
        config = {**self.blob(name, b"{}"), "mediaType": EMPTY}
        value = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [self.blob(name, b"x")], **more}
        data = json.dumps(value).encode()
        put = self.ask("PUT", f"/v2/{name}/manifests/{reference or sha(data)}", data, Content_Type=MANIFEST)
        assert put.status == 201, put
        return sha(data), data


class Registry(Client):
    """A server of its own process."""

    def __init__(self, aerogel: Aerogel, *words: str) -> None:
        self.process = subprocess.Popen(
            aerogel.argv("registry", "serve", "--listen=127.0.0.1:0", "--progress=plain", *words),
            env=aerogel.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stderr is not None
        line = self.process.stderr.readline()
        found = re.search(r"on (https?)://(127\.0\.0\.1:\d+)", line)
        assert found is not None, line + self.process.stderr.read()
        super().__init__(found[2])
        self.log: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(line)

    def stop(self) -> int:
        """0 when it ended well. SIGTERM, as SIGINT is ignored by what a shell starts in the background."""
        self.process.terminate()
        status = self.process.wait(timeout=60)
        self._reader.join(60)
        for pipe in (self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()
        return 0 if status == ENDED and not any("Traceback" in line for line in self.log) else status


def sha(data: bytes, algorithm: str = "sha256") -> str:
    return f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"
