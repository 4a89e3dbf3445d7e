"""A build that fails after its last step: its cache has all the same what the steps made."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from shell import Shell, make_shell

DOCKERFILE = """\
# check=error=true
FROM scratch
COPY Dockerfile /a
COPY note /note
CMD ["/nothing"]
"""


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Shell:
    return make_shell(tmp_path, monkeypatch, capfd)


def test_an_image_that_is_refused(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = tmp_path / "context"
    context.mkdir()
    (context / "note").write_text("one")
    (context / "Dockerfile").write_text(DOCKERFILE)
    told = shell.fails("build", "--cache-to", "type=local,dest=cache", "context")
    assert "the image breaks the rule `MissingProgram`" in told
    assert "write cache" in told
    listed = json.loads((tmp_path / "cache/index.json").read_bytes())
    # What a build that was killed left goes after a week: until then it may be one that still runs.
    blobs = tmp_path / "cache/blobs/sha256"
    for name in ("1" * 64, "2" * 64, ".left"):
        (blobs / name).write_text("x")
        if name != "2" * 64:
            os.utime(blobs / name, (0, 0))
    (context / "note").write_text("two")
    shell.fails("build", "--cache-to", "type=local,dest=cache", "context")
    assert {name for name in os.listdir(blobs) if name[0] == "." or len(set(name)) == 1} == {"2" * 64}
    (context / "note").write_text("one")
    listed = json.loads((tmp_path / "cache/index.json").read_bytes())
    # Another fault, earlier: the list does not shrink, and nothing is written where nothing is new.
    (context / "Dockerfile").write_text(DOCKERFILE.replace("COPY note /note", "COPY missing /note"))
    shell.fails("build", "--cache-to", "type=local,dest=cache", "context")
    assert json.loads((tmp_path / "cache/index.json").read_bytes()) == listed
    monkeypatch.setenv("AEROGEL_ROOT", str(tmp_path / "other"))
    (context / "Dockerfile").write_text(DOCKERFILE)
    words = ("build", "--cache-from", "type=local,src=cache", "context")
    assert "CACHED" in shell.fails(*words)
    assert "COPY note /note\n" in shell.err
    assert not [name for name in os.listdir(tmp_path / "cache/blobs/sha256") if name.startswith(".")]
