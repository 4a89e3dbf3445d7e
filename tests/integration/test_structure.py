"""Structure tests by two runners, ours and container-structure-test, on a corpus; what `aerogel test` has besides.

A command that cannot be started ends the other runner at once: those stand alone.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from process import Aerogel
from structures import ours, theirs

pytestmark = pytest.mark.host

DOCKERFILE = r"""
FROM gcr.io/distroless/python3
COPY --chmod=4755 a /app/setuid
COPY --chmod=2640 a /app/setgid
COPY --chmod=600 a /app/mine
COPY lines /app/lines
COPY lines /usr/share/doc/libgnutls30/copyright
RUN ["python3", "-c", "import os; os.symlink('/app/lines', '/app/absolute'); os.symlink('lines', '/app/relative');\
 os.symlink('/app', '/linked'); os.symlink('nowhere', '/app/dangling'); os.mkfifo('/app/fifo'); os.mkdir('/app/t');\
 os.chmod('/app/t', 0o1770)"]
ENV A=one B="two words" PATH=/app:$PATH EMPTY=
LABEL a.b="c d" empty=""
EXPOSE 80 53/udp
VOLUME /data
WORKDIR /app
CMD ["a", "b"]
"""


def corpus() -> list[dict[str, Any]]:
    """Configurations whose tests partly pass and partly fail."""
    python = "python3"

    def command(name: str, code: str, **more: Any) -> dict[str, Any]:
        return {"name": name, "command": python, "args": ["-c", code], **more}

    def metadata(**more: Any) -> dict[str, Any]:
        return {"metadataTest": more}

    commands = [
        command("passes", "print('a\\nb')", expectedOutput=["^a$", "a\nb", "^a\\nb\\n$"], excludedOutput=["c"]),
        command("matches no line end", "print('a')", expectedOutput=["a$"]),
        command("several lines", "print('a\\nb')", expectedOutput=["(?m)^a$"], excludedOutput=["^b"]),
        command("classes", "print('x_1 \\v')", expectedOutput=[r"^\w+\s", "[[:alpha:]]_[[:digit:]]", r"\pL"], excludedOutput=[r"\d\s\s"]),
        command("no such output", "print('a')", expectedOutput=["a", "b"]),
        command("excluded output", "print('a')", excludedOutput=["A", "(?i)A"]),
        command("error", "import sys; sys.exit('bad')", exitCode=1, expectedError=["bad"], excludedError=["good"]),
        command("excluded error", "import sys; sys.exit('bad')", exitCode=1, excludedError=["b.d"]),
        command("no error", "pass", expectedError=["."]),
        command("status", "import sys; sys.exit(7)", exitCode=7),
        command("wrong status", "import sys; sys.exit(7)"),
        command("wanted status", "pass", exitCode=7),
        command("image's variable", "print('$A ${B} $$ $C $')", expectedOutput=["^one two words   \\$\n$"]),
        command("own variable", "import os; print(os.environ['X'])", envVars=[{"key": "X", "value": "x$A"}], expectedOutput=["xone"]),
        command("everybody's variable", "import os; print(os.environ['G'])", expectedOutput=["gone!"]),
        command("by path", "import sys; print(sys.executable)", setup=[[python, "-c", "open('/tmp/made', 'w')"]], expectedOutput=["python3"]),
        command("what setup made", "import os; os.remove('/tmp/made')", setup=[[python, "-c", "open('/tmp/made', 'w')"]]),
        command("setup that fails", "print(1)", setup=[[python, "-c", "raise SystemExit(3)"]], expectedOutput=["1"]),
        command("what setup did not make", "open('/tmp/made')"),
        command("what teardown removes", "pass", setup=[[python, "-c", "open('/tmp/t', 'w')"]],
                teardown=[[python, "-c", "import os; os.remove('/tmp/t')"]]),
    ]  # fmt: skip
    existences = [
        {"name": name, "path": path, **more}
        for name, path, more in [
            ("there", "/app/lines", {}),
            ("not there", "/app/none", {}),
            ("should not", "/app/lines", {"shouldExist": False}),
            ("is not", "/app/none", {"shouldExist": False, "permissions": "-rw-r--r--"}),
            ("variable", "/app/$D/lines", {}),
            ("mode", "/app/mine", {"permissions": "-rw-------"}),
            ("wrong mode", "/app/mine", {"permissions": "-rw-r--r--"}),
            ("setuid", "/app/setuid", {"permissions": "urwxr-xr-x", "isExecutableBy": "owner"}),
            ("setgid", "/app/setgid", {"permissions": "grw-r-----"}),
            ("sticky", "/app/t", {"permissions": "dtrwxrwx---"}),
            ("fifo", "/app/fifo", {"permissions": "prw-r--r--"}),
            ("link", "/app/absolute", {"permissions": "Lrwxrwxrwx"}),
            ("dangling", "/app/dangling", {}),
            ("by a link", "/linked/lines", {"permissions": "-rw-r--r--"}),
            ("any", "/app/setuid", {"isExecutableBy": "any"}),
            ("other", "/app/t", {"isExecutableBy": "other"}),
            ("group", "/app/t", {"isExecutableBy": "group"}),
            ("nobody", "/app/mine", {"isExecutableBy": "any"}),
        ]
    ]
    contents = [
        {"name": name, "path": path, "expectedContents": yes, "excludedContents": no}
        for name, path, yes, no in [
            ("whole", "/app/lines", ["\\Aone\ntwo$"], ["three"]),
            ("line", "/app/lines", ["(?m)^two$", "(?m)^one$"], []),
            ("not a line", "/app/lines", ["^two"], []),
            ("absolute link", "/app/absolute", ["one"], []),
            ("relative link", "/app/relative", ["one"], []),
            ("excluded", "/app/lines", [], ["o.e"]),
            ("directory", "/app", [], []),
            ("none", "/app/none", [], []),
            ("dangling", "/app/dangling", [], []),
            ("no variables here", "/app/${A}lines", [], []),
        ]
    ]
    facts = [
        metadata(envVars=[{"key": "A", "value": "one"}, {"key": "B", "value": "^two w", "isRegex": True}, {"key": "EMPTY", "value": ""}]),
        metadata(envVars=[{"key": "A", "value": "on"}]),
        metadata(envVars=[{"key": "NONE", "value": ""}]),
        metadata(envVars=[{"key": "B", "value": "words .", "isRegex": True}]),
        metadata(unboundEnvVars=[{"key": "NONE"}]),
        metadata(unboundEnvVars=[{"key": "EMPTY"}]),
        metadata(labels=[{"key": "a.b", "value": "c d"}, {"key": "empty", "value": ""}]),
        metadata(labels=[{"key": "a.b", "value": "c"}]),
        metadata(exposedPorts=["80", "53"], unexposedPorts=["81", "80/tcp"]),
        metadata(exposedPorts=["80/tcp"]),
        metadata(unexposedPorts=["53"]),
        metadata(entrypoint=["/usr/bin/python3.13"], cmd=["a", "b"], workdir="/app", user="0"),
        metadata(entrypoint=[]),
        metadata(cmd=["a"]),
        metadata(cmd=["a", "c"]),
        metadata(cmd=None, workdir="/"),
        metadata(user="root"),
        metadata(volumes=["/data"], unmountedVolumes=["/dat"]),
        metadata(volumes=["/dat"]),
        metadata(unmountedVolumes=["/data"]),
        {"licenseTests": [{"debian": True}, {"files": ["/usr/share/doc/tzdata/copyright"]}, {"files": ["/none"]}]},
    ]  # fmt: skip
    whole = {"globalEnvVars": [{"key": "G", "value": "g${A}!"}], "commandTests": commands}
    files = {"fileExistenceTests": existences, "fileContentTests": contents}
    alone = [{"commandTests": [{"name": "none", "command": "none", "exitCode": 127}]}]
    return [{"schemaVersion": "2.0.0", **one} for one in (whole, files, *facts, *alone)]


@pytest.mark.network
def test_the_other_runner_has_the_same_verdicts(aerogel: Aerogel, other: Path, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(DOCKERFILE)
    (tmp_path / "a").write_text("a")
    (tmp_path / "lines").write_text("one\ntwo")
    aerogel("build", "-q", "-t", "structure-corpus", str(tmp_path))
    (tmp_path / "lent").mkdir()
    files = []
    for number, config in enumerate(corpus()):
        files.append(tmp_path / f"{number}.yaml")
        files[-1].write_text(yaml.safe_dump(config))
    found = ours(aerogel, "structure-corpus", *files)
    assert sum(passed for *_, passed in found) > 30
    assert sum(not passed for *_, passed in found) > 30
    assert found[:-1] == theirs(aerogel, other, "structure-corpus", tmp_path / "lent", *files[:-1])
    assert not found[-1][2]
    assert theirs(aerogel, other, "structure-corpus", tmp_path / "lent", files[-1]) == []
    # As JSON the same, but for what is left out of it.
    again = []
    for file in files[:2]:
        config = yaml.safe_load(file.read_text())
        again.append(file.with_suffix(".json"))
        again[-1].write_text(json.dumps(config))
    assert ours(aerogel, "structure-corpus", *again) == found[: len(ours(aerogel, "structure-corpus", *files[:2]))]


@pytest.mark.network
def test_options_of_commands_and_reports(aerogel: Aerogel, tmp_path: Path) -> None:
    (tmp_path / "env").write_text("FROM_FILE='in file'\n")
    (tmp_path / "lent").mkdir()
    (tmp_path / "lent/file").write_text("lent")
    code = "import os, sys; print(os.getuid(), os.getgid(), os.environ.get('FROM_FILE'), os.environ.get('GIVEN'),"
    code += "open('/lent/file').read(), sys.stdout.isatty(), sep='|')"
    config = {
        "schemaVersion": "2.0.0",
        "containerRunOptions": {
            "user": "1000:1001",
            "allocateTty": True,
            "envFile": "env",
            "envVars": ["GIVEN", "NOT_GIVEN"],
            "capabilities": ["NET_ADMIN"],
            "bindMounts": ["./lent:/lent:ro"],
        },
        "commandTests": [
            {
                "name": "a",
                "command": "python3",
                "args": ["-c", code],
                "expectedOutput": ["^1000.1001.in file.given.lent.True"],
            },
            {"name": "late", "command": "python3", "args": ["-c", "import time; time.sleep(60)"]},
        ],
    }
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(config))
    done = aerogel(
        *("test", "gcr.io/distroless/python3", "-c", "a.yaml", "--junit", "r.xml", "--timeout=3", "--progress=plain"),
        check=False,
        cwd=tmp_path,
        env={"GIVEN": "given"},
    )
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert lines[:2] == ["ok      command    a", "FAILED  command    late"]
    assert lines[2].strip() == "`python3` did not end within 3 s and was killed"
    assert re.fullmatch(r"gcr\.io/distroless/python3: 1 passed, 1 failed \(\d+\.\d\d s\)", lines[3])
    assert 'tests="2" failures="1"' in (tmp_path / "r.xml").read_text()


@pytest.mark.network
def test_a_program_of_go_is_told_what_it_lacks(aerogel: Aerogel, other: Path, tmp_path: Path) -> None:
    """The other runner is a static program of Go that speaks TLS and looks up time zones."""
    shutil.copy(other / "container-structure-test", tmp_path / "program")
    (tmp_path / "Dockerfile").write_text('FROM scratch\nCOPY program /program\nENTRYPOINT ["/program"]\n')
    said = aerogel("build", "--progress=plain", str(tmp_path)).stderr
    assert "warning: MissingCertificates: `/program` can speak TLS" in said
    assert "warning: MissingTimeZones: `/program` looks up time zones" in said
    (tmp_path / "Dockerfile").write_text(
        'FROM gcr.io/distroless/static\nCOPY program /program\nENTRYPOINT ["/program"]\n'
    )
    assert "warning" not in aerogel("build", "--progress=plain", str(tmp_path)).stderr


@pytest.mark.network
@pytest.mark.parametrize("rung", ["root", "single", "chroot"])
def test_each_command_has_a_copy_of_its_own(aerogel: Aerogel, tmp_path: Path, rung: str) -> None:
    def write(path: str) -> list[str]:
        return ["python3", "-c", f"open('{path}', 'w').write('{path}')"]

    read = "import os; print(open('/etc/made').read(), open('/tmp/made').read(), os.listdir('/opt'))"
    tests = [
        {"name": "all of its setup", "command": "python3", "args": ["-c", read], "expectedOutput": ["^/etc/made /tmp/made \\[\\]\n$"],
         "setup": [write("/etc/made"), write("/tmp/made"), ["python3", "-c", "import os; os.makedirs('/opt', exist_ok=True)"]]},
        {"name": "nothing of others", "command": "python3", "args": ["-c", "open('/etc/made')"], "exitCode": 1},
    ]  # fmt: skip
    (tmp_path / "a.yaml").write_text(yaml.safe_dump({"schemaVersion": "2.0.0", "commandTests": tests}))
    words = ("test", "gcr.io/distroless/python3", "-c", str(tmp_path / "a.yaml"), "--progress=plain")
    aerogel(*words, env={"AEROGEL_ISOLATION": rung})
    assert not list((aerogel.state / "cache/scratch").iterdir())


@pytest.mark.network
def test_output_is_a_pipe_that_the_user_owns(aerogel: Aerogel, tmp_path: Path) -> None:
    code = "print('one', flush=True)\nopen('/dev/stdout', 'w').write('two\\n')\nopen('/dev/stderr', 'w').write('bad')\n"
    code += "import os; print(os.getuid(), 'x' * 100_000 + '|')"
    expected = {"expectedOutput": ["^one\ntwo\n65532 x+\\|\n$"], "expectedError": ["^bad$"]}
    tests = [{"name": "a", "command": "python3", "args": ["-c", code], **expected}]
    (tmp_path / "a.yaml").write_text(yaml.safe_dump({"schemaVersion": "2.0.0", "commandTests": tests}))
    aerogel("test", "gcr.io/distroless/python3:nonroot", "-c", str(tmp_path / "a.yaml"), "--progress=plain")
