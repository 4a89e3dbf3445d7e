"""What containers' policy.json says of images that come from no registry: layouts, archives, daemons."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from images import serve_image
from loop_registry import LoopRegistry, serve_registry
from shell import Shell, make_shell

ACCEPT, REJECT = [{"type": "insecureAcceptAnything"}], [{"type": "reject"}]
COMMANDS = {
    "docker-archive": (("load", "-i", "a.tar"), ("copy", "docker-archive:a.tar", "new:1")),
    "oci-archive": (("copy", "oci-archive:b.tar", "new:1"),),
    "oci": (
        ("load", "-i", "layout"),
        ("copy", "oci:layout:1", "new:1"),
        ("build", "-q", "--build-context", "base=oci-layout://layout", "context"),
    ),
}


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Shell:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return make_shell(tmp_path, monkeypatch, capfd)


@pytest.fixture
def server() -> Iterator[LoopRegistry]:
    with serve_registry() as running:
        yield running


def test_transports(shell: Shell, server: LoopRegistry, tmp_path: Path) -> None:
    serve_image(server, "app", "1")
    for end in ("docker-archive:a.tar", "oci-archive:b.tar", "oci:layout:1"):
        shell("copy", f"docker://{server.host}/app:1", end)
    (tmp_path / "context").mkdir()
    (tmp_path / "context/Dockerfile").write_text("FROM base\nCOPY Dockerfile /d\n")
    place = tmp_path / "config/containers/policy.json"
    place.parent.mkdir(parents=True)

    def say(**transports: object) -> None:
        place.write_text(json.dumps({"default": REJECT, "transports": transports}))

    for transport, commands in COMMANDS.items():
        for words in commands:
            say(docker={"": ACCEPT})
            assert f"`{place}` rejects it" in shell.fails(*words), "the default"
            say(**{transport: {"": ACCEPT}})
            shell(*words)
            say(**{transport: {"": ACCEPT, str(tmp_path): REJECT}})
            assert f"`{place}` for `{tmp_path}` rejects it" in shell.fails(*words)
            say(**{transport: {str(tmp_path): ACCEPT, "/elsewhere": REJECT}})
            shell(*words)
    for transport in ("docker-daemon", "containers-storage"):
        assert f"`{transport}:app` may not be used" in shell.fails("copy", f"{transport}:app", "new:1")
    (tmp_path / "k.pub").write_text("a key")
    say(oci={"": [{"type": "sigstoreSigned", "keyPath": str(tmp_path / "k.pub")}]})
    told = shell.fails("copy", "oci:layout:1", "new:1")
    assert "asks for a signature, which it cannot have" in told
    assert "hint: allow it under `oci` in `transports` of that file" in told
