"""An authority of a test alone, and certificates of it. Debian package: openssl."""

from __future__ import annotations

import subprocess
from pathlib import Path


class Authority:
    """`ca.pem` in a folder, and more certificates beside it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._make("ca", "/CN=tests", "-addext", "keyUsage=critical,keyCertSign,cRLSign")

    def certify(self, name: str, *, is_server: bool) -> None:
        """Makes `NAME.pem` and `NAME-key.pem`: for a server on loop-back, or for who speaks to one."""
        use = "serverAuth" if is_server else "clientAuth"
        words = ("-CA", "ca.pem", "-CAkey", "ca-key.pem", "-addext", "basicConstraints=critical,CA:FALSE")
        names = ("-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-addext", f"extendedKeyUsage={use}")
        self._make(name, f"/CN={name}", *words, *names)

    def _make(self, name: str, subject: str, *more: str) -> None:
        words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        words += ["-days", "2", "-subj", subject, "-keyout", f"{name}-key.pem", "-out", f"{name}.pem", *more]
        done = subprocess.run(words, cwd=self.folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
