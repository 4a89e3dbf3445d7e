"""An image of busybox alone, built without network: for tests of containers. Debian package: busybox-static."""

from __future__ import annotations

import shutil
from pathlib import Path

from process import Aerogel

HEAD = """FROM scratch
COPY busybox /bin/busybox
RUN ["/bin/busybox", "--install", "-s", "/bin"]
RUN mkdir -p /etc /tmp /home/app /srv && chmod 1777 /tmp && chown 1000:1001 /home/app && \\
    printf 'root:x:0:0:root:/:/bin/sh\\napp:x:1000:1001::/home/app:/bin/sh\\n' >/etc/passwd && printf 'root:x:0:\\napp:x:1001:\\n' >/etc/group
"""


def build_small_image(aerogel: Aerogel, folder: Path, name: str, more: str = "") -> None:
    """Builds `name` in a new folder; `more` are instructions after those that make it."""
    folder.mkdir()
    shutil.copy(shutil.which("busybox") or "", folder / "busybox")
    (folder / "Dockerfile").write_text(HEAD + more)
    aerogel("build", "-q", "-t", name, str(folder))
