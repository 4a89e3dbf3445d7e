"""Warnings of programs that an image names and does not have."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from aerogel.cli import main as entry


@pytest.fixture
def warnings(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(entry, "_catch_signals", lambda: None)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AEROGEL_ROOT", str(tmp_path / "root"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    context = tmp_path / "context"
    for name, mode in (("server", 0o755), ("data.txt", 0o644), ("bin/python3", 0o755)):
        path = context / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        path.chmod(mode)

    def build(*lines, compression="gzip", name="app"):
        (context / "Dockerfile").write_text("\n".join(lines) + "\n")
        words = ["build", str(context), "--progress=plain", "--platform=linux/amd64", f"--compression={compression}"]
        words += ["-t", name]
        assert entry.main(words) == 0, capfd.readouterr().err
        return capfd.readouterr().err

    return build


def test_a_missing_program_is_shown_with_its_place(warnings, tmp_path: Path):
    said = warnings("FROM scratch", "COPY server /app/server", 'ENTRYPOINT ["/app/serve", "-v"]', 'CMD ["/no"]')
    assert (
        "warning: `/app/serve` is not in the image, so ENTRYPOINT cannot start it\n"
        "  --> context/Dockerfile:3:14\n"
        ' 3 | ENTRYPOINT ["/app/serve", "-v"]\n'
        "   |              ^^^^^^^^^^\n"
        "hint: did you mean `/app/server`?\n"
    ) in said


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (['CMD ["/app/nowhere"]'], "hint: copy it into the last stage, for example `COPY --from=STAGE /app/nowhere /`"),
        (['CMD ["/app/data.txt"]'], "`/app/data.txt` is not executable, so CMD cannot start it"),
        (['CMD ["/app"]'], "`/app` is a directory, so CMD cannot start it"),
        (["CMD /app/server -v"], "CMD in this form needs the shell `/bin/sh`, which is not in the image"),
        (["CMD /app/server -v"], 'hint: write it so that it needs no shell: `CMD ["/app/server", "-v"]`'),
        (["CMD exec $APP | cat"], '`CMD ["program", "argument"]`'),
        (["ENV PATH=/app/bin", 'CMD ["python"]'], "hint: did you mean `python3`?"),
        (["WORKDIR /app", 'CMD ["./serve"]'], "hint: did you mean `./server`?"),
        (['HEALTHCHECK CMD ["/bin/curl"]', 'CMD ["/app/server"]'], "`/bin/curl` is not in the image, so HEALTHCHECK"),
        (
            [
                "HEALTHCHECK --interval=5s --retries=2 \\",
                "  CMD curl -f http://localhost/a || exit 1",
                'CMD ["/app/server"]',
            ],
            (
                'hint: write `HEALTHCHECK --interval=5s --retries=2 CMD ["/aerogel-probe", "http", "localhost/a"]`\n'
                "hint: and, in this stage, `COPY --from=aerogel/probe /aerogel-probe /aerogel-probe`"
            ),
        ),
        (["HEALTHCHECK CMD nc -z localhost 80", "COPY server /aerogel-probe"], '"tcp", "localhost:80"]`\n'),
        (['HEALTHCHECK CMD ["wget", "-q", "http://[::1]/"]'], '`HEALTHCHECK CMD ["/aerogel-probe", "http", "[::1]/"]`'),
        (["HEALTHCHECK CMD /app/server", 'CMD ["/app/server"]'], '`HEALTHCHECK CMD ["/app/server"]`'),
    ],
)
def test_what_is_said(warnings, lines, said):
    assert said in warnings("FROM scratch", "COPY . /app/", *lines)


@pytest.mark.parametrize(
    "lines",
    [
        ['CMD ["/app/server"]'],
        ["WORKDIR /app", 'CMD ["./server"]'],
        ["ENV PATH=/app/bin:/x", 'CMD ["python3"]'],
        ['ENTRYPOINT ["/app/server"]', 'CMD ["not", "a", "program"]'],
        ['CMD ["/gone"]', 'CMD ["/app/server"]'],
        ["CMD []"],
        ["HEALTHCHECK NONE"],
        ["COPY server /bin/sh", "CMD whatever"],
        ['SHELL ["/app/server", "-c"]', "CMD whatever"],
    ],
)
def test_nothing_is_said_of_what_starts(warnings, lines):
    said = warnings("FROM scratch", "COPY . /app/", *lines)
    assert "cannot start" not in said
    assert "needs the shell" not in said


@pytest.mark.parametrize(
    ("entrypoint", "command", "said"),
    [
        (
            '["/app/bin/python3"]',
            '["python3", "/app/x.py"]',
            (
                "warning: ENTRYPOINT starts `/app/bin/python3` already, which takes `python3` of CMD for what it is to run\n"
                "  --> context/Dockerfile:5:7\n"
                ' 5 | CMD ["python3", "/app/x.py"]\n'
                "   |       ^^^^^^^\n"
                'hint: write `CMD ["/app/x.py"]`\n'
            ),
        ),
        ('["/app/bin/java", "-jar"]', '["java", "-jar", "/x.jar"]', 'hint: write `CMD ["/x.jar"]`'),
        (
            '["/app/bin/python3"]',
            "python3 /app/x.py",
            (
                "warning: CMD in this form gives `/bin/sh` to `/app/bin/python3` of ENTRYPOINT, and `/bin/sh` is not in the "
                "image\n"
                "  --> context/Dockerfile:5:5\n"
                " 5 | CMD python3 /app/x.py\n"
                "   |     ^^^^^^^^^^^^^^^^^\n"
                'hint: write it so that it needs no shell: `CMD ["/app/x.py"]`\n'
            ),
        ),
        ('["/app/server"]', "a b", 'hint: write it so that it needs no shell: `CMD ["a", "b"]`'),
    ],
)
def test_a_command_that_the_entrypoint_of_the_base_gets(warnings, entrypoint, command, said):
    base = ["FROM scratch AS base", "COPY . /app/", f"ENTRYPOINT {entrypoint}", "FROM base"]
    assert said in warnings(*base, f"CMD {command}")


def test_an_entrypoint_of_another_image_counts(warnings):
    warnings("FROM scratch", "COPY . /app/", 'ENTRYPOINT ["/app/bin/python3"]', name="runtime")
    said = warnings("FROM runtime", "COPY data.txt /x.py", 'CMD ["python3", "/x.py"]')
    assert "ENTRYPOINT starts `/app/bin/python3` already" in said


@pytest.mark.parametrize(
    ("entrypoint", "command"),
    [
        ('["/app/bin/python3"]', '["/opt/python3"]'),
        ('["/app/bin/python3", "/app/x.py"]', '["python3"]'),
        ('["/app/server"]', '["server"]'),
        ('["/app/bin/python3"]', '["-m", "python3"]'),
    ],
)
def test_arguments_of_an_entrypoint_are_not_judged(warnings, entrypoint, command):
    base = ["FROM scratch AS base", "COPY . /app/", "COPY server /opt/python3", f"ENTRYPOINT {entrypoint}", "FROM base"]
    assert "warning" not in warnings(*base, f"CMD {command}")


def test_the_stage_that_the_last_one_starts_from_counts(warnings):
    said = warnings("FROM scratch AS base", 'CMD ["/gone"]', "FROM base", "COPY server /server")
    assert "`/gone` is not in the image, so CMD cannot start it" in said


def elf(*, machine: int = 62, loader: str = "") -> bytes:
    """A program of 64 bits with one program header, as the kernel reads it."""
    name = loader.encode() + b"\0"
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    header = ident + struct.pack("<HHIQQQIHHHHHH", 2, machine, 1, 0, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    kind = 3 if loader else 1
    return header + struct.pack("<IIQQQQQQ", kind, 4, 120, 0, 0, len(name), len(name), 1) + name


@pytest.mark.parametrize(
    ("content", "command", "said"),
    [
        (
            elf(loader="/lib64/ld-linux-x86-64.so.2"),
            '["/app"]',
            (
                "warning: `/app` is linked dynamically and its loader `/lib64/ld-linux-x86-64.so.2` is not in the image, so "
                "CMD cannot start it\n"
                "  --> context/Dockerfile:3:7\n"
                ' 3 | CMD ["/app"]\n'
                "   |       ^^^^\n"
                "hint: link it statically: `-static` for C and C++, `CGO_ENABLED=0` for Go, a musl target for Rust\n"
                "hint: or start the last stage from `gcr.io/distroless/base`; C++ and Rust need `gcr.io/distroless/cc`\n"
            ),
        ),
        (elf(loader="/lib/ld-musl-x86_64.so.1"), '["/app"]', "hint: or build it in a stage from `debian`, and start"),
        (elf(machine=183), '["/app"]', "`/app` is built for arm64 and the image for amd64, so CMD cannot start it"),
        (b"#!/bin/sh\necho\n", '["/app"]', "`/app` is a script for `/bin/sh`, which is not in the image, so CMD"),
        (
            b"#!/bin/sh -e\necho\n",
            '["/app"]',
            "hint: start the last stage from an image with a shell, such as `debian`",
        ),
        (b"#!/bin/sh\r\necho\r\n", '["/app"]', "hint: write it with Unix line ends"),
        (b"#!/usr/bin/env python3\n", '["/app"]', "hint: start the last stage from `gcr.io/distroless/python3`"),
        (b"#!/usr/bin/ruby\n", '["/app"]', "hint: start the last stage from an image with `ruby`"),
        (b"#!/bin/sh\n", "/app", "hint: it would not start without a shell either: `/app` is a script for `/bin/sh`"),
    ],
)
def test_what_the_program_needs_is_looked_for(warnings, tmp_path, content, command, said):
    (tmp_path / "context/app").write_bytes(content)
    (tmp_path / "context/app").chmod(0o755)
    for compression in ("gzip", "zstd"):
        assert said in warnings("FROM scratch", "COPY app /", f"CMD {command}", compression=compression)


@pytest.mark.parametrize(
    ("content", "path"),
    [
        (elf(), "/ld"),
        (elf(loader="/ld"), "/ld"),
        (elf(machine=3), "/ld"),
        (elf(loader="/ld")[:90], "/ld"),
        (b"#!\n", "/ld"),
        (b"#!/ld sh\n", "/ld"),
        (b"#!/usr/bin/env -S A=1 python3 -u\n", "/usr/bin/"),
    ],
)
def test_nothing_is_said_of_a_program_that_has_what_it_needs(warnings, tmp_path, content, path):
    context = tmp_path / "context"
    (context / "app").write_bytes(content)
    (context / "env").touch()
    for name in ("app", "env"):
        (context / name).chmod(0o755)
    assert "cannot start" not in warnings(
        "FROM scratch", "COPY app /", f"COPY server {path}", "COPY env bin/python3 /usr/bin/", 'CMD ["/app"]'
    )


def test_the_interpreter_that_env_would_find_is_named(warnings, tmp_path):
    (tmp_path / "context/app").write_bytes(b"#!/usr/bin/env python3\n")
    (tmp_path / "context/app").chmod(0o755)
    said = warnings("FROM scratch", "COPY bin/python3 /usr/bin/", "COPY app /", 'ENTRYPOINT ["/app"]')
    assert 'hint: name the interpreter: `ENTRYPOINT ["python3", "/app"]`' in said


def test_an_index_that_would_have_to_be_made_is_not(warnings, tmp_path, monkeypatch):
    def refuse(*_):
        raise AssertionError("made an index for a remark")

    warnings("FROM scratch", "COPY server /", name="base")
    assert "did you mean `/server`?" in warnings("FROM base", 'CMD ["/serve"]')
    for path in (tmp_path / "root").glob("**/layers-v1/**/index"):
        path.unlink()
    monkeypatch.setattr("aerogel.solve.materials.build_index", refuse)
    assert "/serve" not in warnings("FROM base", 'CMD ["/serve"]', "LABEL another=build")
