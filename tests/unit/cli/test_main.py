"""The entry point as a process, as a user meets it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from aerogel import __version__
from aerogel.cli import main as entry
from aerogel.commands import table
from aerogel.commands import version as version_command
from aerogel.errors import AerogelError

SOURCE = Path(__file__).parents[3] / "src"


def environ(**more):
    return {"PATH": os.defpath, "HOME": "/nowhere", "PYTHONPATH": str(SOURCE), **more}


def aerogel(*words, **more):
    return subprocess.run(
        [sys.executable, "-m", "aerogel", *words], capture_output=True, text=True, env=environ(**more), cwd="/"
    )


@pytest.fixture(autouse=True)
def _quiet_place(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in list(os.environ):
        if name.startswith(("AEROGEL_", "XDG_")):
            monkeypatch.delenv(name)


@pytest.mark.parametrize("words", [["--version"], ["-v"]])
def test_version(words, capsys):
    assert entry.main(words) == 0
    assert capsys.readouterr().out == f"aerogel version {__version__}\n"


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"], ["help"]])
def test_overview(words, capsys):
    assert entry.main(words) == 0
    assert "aerogel COMMAND" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["help", "version"], ["version", "--help"], ["version", "-h"]])
def test_help(words, capsys):
    assert entry.main(words) == 0
    assert "usage: aerogel version" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["vresion"], "error: aerogel has no command `vresion`\nhint: did you mean `version`?\n"),
        (["frobnicate"], "error: aerogel has no command `frobnicate`\nhint: `aerogel --help` lists the commands\n"),
        (["--halp"], "error: aerogel has no flag `--halp`\nhint: did you mean `--help`?\n"),
        (["help", "vresion"], "error: aerogel has no command `vresion`\nhint: did you mean `version`?\n"),
        (
            ["update", "web"],
            "error: aerogel has no command `update`\nhint: `aerogel ps`, `logs`, `exec`, `attach`",
        ),
        (
            ["system", "info"],
            "error: aerogel has no command `system info`\nhint: there is `aerogel system df`, `aerogel system prune`\n",
        ),
        (
            ["cache", "-x"],
            "error: aerogel has no command `cache`\nhint: there is `aerogel cache ls`, `aerogel cache list`",
        ),
        (
            ["buildx", "bulld", "."],
            "error: aerogel has no command `buildx bulld`\nhint: did you mean `buildx build`?\n",
        ),
    ],
)
def test_unknown_words(words, message, capsys):
    assert entry.main(words) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == message if message.endswith("\n") else said.err.startswith(message)


@pytest.mark.parametrize("word", ["registry", "key", "cache", "base", "volume"])
def test_a_word_that_begins_commands_lists_them(word, capsys):
    for words in ([word], [word, "--help"], ["help", word]):
        assert entry.main(words) == 0
        said = capsys.readouterr()
        assert said.err == ""
        assert said.out.startswith(f"usage: aerogel {word} COMMAND")
        for one in table.COMMANDS:
            if one.name.startswith(f"{word} "):
                assert f"  {one.name} " in said.out
                assert one.help in said.out


@pytest.mark.parametrize("words", [names[0] for names in table._ABSENT])
def test_commands_of_docker_that_are_absent_say_what_to_use(words, capsys):
    assert table.find_command([words]) is None
    assert entry.main([words]) == 2
    hint = capsys.readouterr().err.splitlines()[1]
    assert "did you mean" not in hint
    assert "`aerogel --help`" not in hint


def test_result_as_text_and_json(capsys):
    assert entry.main(["version", "--format", "{{.version}} {{json .parts}}"]) == 0
    assert capsys.readouterr().out.startswith(f'{__version__} {{"msgspec"')
    assert entry.main(["-D", "version", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["version"] == __version__


def run_with(error, monkeypatch, *words):
    def run(options: version_command.Version, world: version_command.World) -> version_command.VersionResult:
        raise error

    monkeypatch.setattr(version_command, "run", run)
    return entry.main(["version", *words])


def test_errors_have_the_house_form(monkeypatch, capsys):
    error = AerogelError("no `https://a:b@c.example`", code="x.y", hints=["do it"], exit_status=4)
    assert run_with(error, monkeypatch) == 4
    assert capsys.readouterr().err == "error: no `https://***@c.example`\nhint: do it\n"
    assert run_with(error, monkeypatch, "--debug") == 4
    assert "Traceback" in capsys.readouterr().err
    assert run_with(error, monkeypatch, "--progress=json") == 4
    assert json.loads(capsys.readouterr().err)["code"] == "x.y"


def test_errors_of_the_host(monkeypatch, capsys):
    assert run_with(OSError(28, "No space left on device", "/x"), monkeypatch) == 3
    assert capsys.readouterr().err.startswith("error: no space left on device: `/x`\nhint: free some space")


def test_bugs_ask_for_a_report(monkeypatch, capsys):
    assert run_with(KeyError("oops"), monkeypatch) == 1
    text = capsys.readouterr().err
    assert "Traceback" in text
    assert "please report it" in text


def test_interrupt(monkeypatch, capsys):
    assert run_with(KeyboardInterrupt(), monkeypatch) == 130
    assert capsys.readouterr().err == "canceled\n"


def test_broken_pipe_is_silent():
    with subprocess.Popen(
        [sys.executable, "-m", "aerogel", "version"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environ(),
        cwd="/",
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 141


def test_broken_pipe_for_both_streams(tmp_path):
    """`aerogel build . 2>&1 | head -1`, whose reader has gone before the first line."""
    (tmp_path / "Dockerfile").write_text("FROM scratch\nLABEL a=b\n")
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "aerogel", "build", str(tmp_path)],
        stdout=writer,
        stderr=writer,
        env=environ(AEROGEL_ROOT=str(tmp_path / "root")),
    )
    os.close(writer)
    assert done.returncode == 141


def test_full_device():
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "aerogel", "version"], stdout=full, stderr=subprocess.PIPE, env=environ(), cwd="/"
        )
    assert done.returncode == 3
    assert done.stderr.startswith(b"error: no space left on device")


def test_termination_unwinds(tmp_path):
    program = (
        "import sys, time\n"
        "from aerogel.cli import main as entry\n"
        "from aerogel.commands import version\n"
        "from aerogel.commands.world import World\n"
        "def run(options: version.Version, world: World) -> version.VersionResult:\n"
        "    try:\n"
        "        print('ready', flush=True)\n"
        "        time.sleep(60)\n"
        "    finally:\n"
        "        print('cleaned', flush=True)\n"
        "version.run = run\n"
        "sys.exit(entry.main(['version']))\n"
    )
    for number, status in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, env=environ()) as process:
            assert process.stdout.readline() == b"ready\n"
            time.sleep(0.02)
            process.send_signal(number)
            assert process.stdout.read() == b"cleaned\n"
            assert process.wait() == status


def test_names_that_are_not_utf8_pass_through():
    done = subprocess.run(
        [sys.executable, "-m", "aerogel", "version", "--format", b"\xff{{.version}}"],
        capture_output=True,
        env=environ(LC_ALL="C.UTF-8"),
        cwd="/",
    )
    assert done.stdout == b"\xff" + __version__.encode() + b"\n"


@pytest.mark.parametrize("number", [5, 6, 9, 20, 45, 70, 100])
def test_an_interrupt_shows_no_traceback_however_early(number, tmp_path):
    """The interrupt comes at the so-manyth import of a run."""
    program = (
        "import os, signal, sys\n"
        "class Hook:\n"
        f"    left = {number}\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        Hook.left -= 1\n"
        "        if Hook.left == 0:\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Hook())\n"
        "from aerogel.cli.main import main\n"
        "sys.exit(main())\n"
    )
    environ = {"PATH": os.defpath, "HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", program, "images", "--json"], env=environ, cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "canceled\n")


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_that_hits_a_finalizer_is_not_lost(name: str) -> None:
    """What is raised there is shown and ends nothing: the signal comes again."""
    code = (
        "import signal, time\n"
        "from aerogel.cli import main\n"
        "main._catch_signals()\n"
        "main._catch_lost_signals()\n"
        "class Loud:\n"
        "    def __del__(self):\n"
        f"        signal.raise_signal(signal.{name})\n"
        "try:\n"
        "    Loud()\n"
        "    time.sleep(600)\n"
        "except BaseException as error:\n"
        "    print(type(error).__name__)\n"
        "class Wrong:\n"
        "    def __del__(self):\n"
        "        raise ValueError('else')\n"
        "Wrong()\n"
    )
    environ = {"PATH": os.defpath, "PYTHONPATH": os.pathsep.join(sys.path)}
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, env=environ, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == {"SIGINT": "KeyboardInterrupt\n", "SIGTERM": "_Terminated\n"}[name]
    assert done.stderr.startswith("Exception ignored in: <function Wrong.__del__")
    assert done.stderr.endswith("ValueError: else\n")


def test_an_interrupt_while_a_module_is_half_imported():
    program = (
        "import sys, types\n"
        "from aerogel.cli.main import _end\n"
        "sys.modules['os'] = types.ModuleType('os')\n"
        "_end(2, None)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], env=environ(), cwd="/", capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "canceled\n")


LATE = """
import atexit, sys, threading, time
def late():
    if {is_thread}:
        threading.main_thread().join()  # it has no more to do
    time.sleep(0.3)
    sys.stdout.write("late\\n")
if {is_thread}:
    threading.Thread(target=late).start()
else:
    atexit.register(late)
class Last:
    def __del__(self):
        print("taken apart")
last = Last()
sys.argv = ["aerogel", "images", "--json"]
from aerogel.cli.main import main
sys.exit(main())
"""


@pytest.mark.parametrize(("is_thread", "end"), [(False, "late\n"), (True, "late\ntaken apart\n")])
def test_the_end_waits_for_what_is_still_to_do_and_for_nothing_else(is_thread, end, tmp_path):
    """What is registered and threads, but not that Python takes itself apart, unless it has to."""
    program = LATE.format(is_thread=is_thread)
    done = subprocess.run(
        [sys.executable, "-c", program], env=environ(HOME=str(tmp_path)), cwd="/", capture_output=True, text=True
    )
    assert (done.returncode, done.stdout.partition("\n}\n")[2], done.stderr) == (0, end, "")


def test_a_profiler_gets_to_its_end(tmp_path):
    program = "import cProfile, sys; sys.argv = ['aerogel', 'images']; cProfile.run('from aerogel.cli.main import main; main()')"
    done = subprocess.run(
        [sys.executable, "-c", program], env=environ(HOME=str(tmp_path)), cwd="/", capture_output=True, text=True
    )
    assert "function calls" in done.stdout, done.stderr
