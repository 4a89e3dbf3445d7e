from __future__ import annotations

import io
import json
import os
import pty
import threading
import time

import pytest

from aerogel.cli.console import JsonConsole, PlainConsole, make_console
from aerogel.cli.lines import LineCutter, clean, describe_progress
from aerogel.cli.live import _Running
from aerogel.errors import Diagnostic, visible
from aerogel.events import Message, Progress, StepDone, StepLog, StepStarted, Warned
from aerogel.redact import Redactor
from aerogel.settings import load_settings

EVENTS = [
    Message("FROM debian -> composed"),
    StepStarted(3, "RUN make"),
    StepLog(3, b"one\ntw"),
    StepLog(3, b"err\n", 2),
    StepLog(3, b"o\n\n10%\r50%\r100%\nlast"),
    Progress(3, "fetch", 5, 10),
    Warned(Diagnostic("be careful", code="x.y")),
    StepDone(3, "RAN", 1.25, "12 files"),
    StepStarted(4, "COPY a b"),
    StepDone(4, "CACHED", 0.0),
    StepStarted(5, "RUN false"),
    StepDone(5, "FAILED", 0.04),
]


def run(form, events=EVENTS, secrets=(), **environ):
    stream = io.StringIO()
    redactor = Redactor()
    for secret in secrets:
        redactor.add(secret)
    console = make_console(form, stream, load_settings({"HOME": "/nowhere", **environ}, "/"), redactor)
    for event in events:
        console.emit(event)
    console.close()
    console.close()
    return stream.getvalue()


def test_plain():
    assert run("plain").splitlines() == [
        "FROM debian -> composed",
        "#3 RUN make",
        "#3 one",
        "#3 err",
        "#3 two",
        "#3",
        "#3 100%",
        "warning: be careful",
        "#3 last",
        "#3 DONE 1.2s 12 files",
        "#4 COPY a b",
        "#4 CACHED",
        "#5 RUN false",
        "#5 ERROR 0.0s",
    ]


def test_a_long_transfer_says_how_far_it_is():
    """By the clock of the test; a transfer that stands still says so in longer and longer intervals."""
    stream, now = io.StringIO(), [0.0]
    console = PlainConsole(stream, Redactor(), clock=lambda: now[0], tick_s=3600)

    def at(seconds, *events):
        now[0] = seconds
        for event in events:
            console.emit(event)
        console.tick()

    at(0, StepStarted(1, "FROM x"), Progress(1, "Release file of y", 0, 0))
    at(1.4)
    at(1.5)
    at(1.9, Progress(1, "index", 1_000_000, 9_000_000))
    at(2.9, Progress(1, "index", 2_000_000, 9_000_000))
    at(3.0, Progress(1, "index", 3_000_000, 9_000_000))
    for tenth in range(31, 150):
        at(tenth / 10)
    at(15, StepLog(1, b"unpacking\n"), Progress(9, "of no step", 1, 2))
    at(20, Progress(1, "packages", 3, 31, "packages"), Progress(1, "packages", 31, 31, "packages"))
    at(21, StepDone(1, "RAN", 21))
    at(60, Progress(1, "late", 1, 2))
    console.close()
    assert stream.getvalue().splitlines() == [
        "#1 FROM x",
        "#1 Release file of y: no answer yet",
        "#1 index: 3.0 MB of 9.0 MB",
        "#1 index: 3.0 MB of 9.0 MB",
        "#1 index: 3.0 MB of 9.0 MB",
        "#1 index: 3.0 MB of 9.0 MB",
        "#1 unpacking",
        "#1 packages: 3 of 31 packages",
        "#1 DONE 21.0s",
    ]


def test_sizes_have_the_unit_that_fits():
    sizes = [(12_300, 52_000), (12_300, 9_700_000), (12_300, 0), (2_500_000, 0)]
    assert [describe_progress(Progress(1, "index", done, total)) for done, total in sizes] == [
        "12.3 kB of 52.0 kB",
        "0.0 MB of 9.7 MB",
        "12.3 kB",
        "2.5 MB",
    ]


def test_a_terminal_shows_digests_short():
    digest = "sha256:" + "0123456789ab" + "0" * 52
    message = [Message(f"FROM debian -> composed from debian trixie, 78 packages, {digest}")]
    assert "78 packages, sha256:0123456789ab\n" in run("tty", message, COLUMNS="200")
    assert digest in run("plain", message)


def test_auto_is_plain_where_nobody_watches():
    assert run("auto") == run("plain")


def test_quiet():
    assert run("quiet") == ""


def test_json_lines():
    lines = [json.loads(line) for line in run("json").splitlines()]
    assert lines[1] == {"event": "started", "step": 3, "name": "RUN make"}
    assert {"event": "log", "step": 3, "stream": 2, "line": "err"} in lines
    assert {"event": "log", "step": 3, "stream": 1, "line": "100%"} in lines
    told = {"label": "fetch", "done": 5, "total": 10, "unit": "bytes", "blob": "", "rate": 0, "left_s": 0}
    assert {"event": "progress", "step": 3, **told} in lines
    assert lines[-1] == {"event": "done", "step": 5, "status": "FAILED", "duration_s": 0.04, "note": ""}


BLOBS = [f"sha256:{letter * 64}" for letter in "abc"]


def test_json_tells_rate_and_rest_of_each_blob():
    stream, now = io.StringIO(), [100.0]
    console = JsonConsole(stream, Redactor(), clock=lambda: now[0])
    console.emit(StepStarted(1, "pull app"))
    for passed, done in ((0, 0), (2, 4_000_000), (10, 10_000_000)):
        now[0] = 100.0 + passed
        console.emit(Progress(1, "app", done // 2, 10_000_000, blob=BLOBS[0]))
        console.emit(Progress(1, "app", done, 20_000_000))
    console.emit(StepDone(1, "RAN", 10.0))
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    told = [(line["blob"], line["rate"], line["left_s"]) for line in lines if line["event"] == "progress"]
    assert told == [
        (BLOBS[0], 0, 0),
        ("", 0, 0),
        (BLOBS[0], 1_000_000, 8.0),
        ("", 2_000_000, 8.0),
        (BLOBS[0], 500_000, 10.0),
        ("", 1_000_000, 10.0),
    ]


def test_a_terminal_has_a_line_for_each_blob_that_moves():
    running = _Running("pull app")
    running.far(Progress(1, "app", 0, 60_000_000))
    for blob in BLOBS:
        running.far(Progress(1, "app", 0, 20_000_000, blob=blob))
    running.began -= 10
    for pace in running.paces.values():
        pace._began_s -= 10
    running.far(Progress(1, "app", 20_000_000, 20_000_000, blob=BLOBS[0]))
    running.far(Progress(1, "app", 5_000_000, 20_000_000, blob=BLOBS[1]))
    running.far(Progress(1, "app", 25_000_000, 60_000_000))
    whole, moving, waiting = running.transfers(time.monotonic())
    assert whole.startswith("app 25.0 MB of 60.0 MB, 2.")
    assert whole.endswith(" s left")
    assert moving.strip().startswith("bbbbbbbbbbbb 5.0 MB of 20.0 MB, ")
    assert moving.endswith(" s left")
    assert waiting.strip() == "cccccccccccc 0.0 MB of 20.0 MB"


def test_plain_lines_tell_of_the_whole_only():
    text = run("plain", [StepStarted(1, "pull"), Progress(1, "app", 1, 2, blob=BLOBS[0]), StepDone(1, "RAN", 9.0)])
    assert text.splitlines() == ["#1 pull", "#1 DONE 9.0s"]


def test_output_without_a_line_end_comes_at_the_close():
    assert run("plain", [StepStarted(1, "a"), StepLog(1, b"rest")]).splitlines() == ["#1 a", "#1 rest"]


def test_secrets_are_hidden_in_every_form():
    events = [
        StepStarted(1, "RUN login hunter2secret"),
        StepLog(1, b"using hunter2secret at https://me:pw@host.example/x\n"),
    ]
    for form in ("plain", "json", "tty"):
        text = run(form, events, ["hunter2secret"])
        assert "hunter2secret" not in text
        assert "me:pw" not in text
    assert "#1 using *** at https://***@host.example/x" in run("plain", events, ["hunter2secret"])


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (b"\x1b[31mred\x1b[0m", "red"),
        (b"\x1b]0;title\x07text", "text"),
        (b"\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        (b"\x1b]52;c;aGk=", ""),
        (b"\x1bP1$r\x1b\\x", "x"),
        (b"\x1b(Bplain\x1b", "plain"),
        (b"\xc2\x9b2Jx", "x"),
        (b"bell\x07 \x08 \x00", "bell\\x07 \\x08 \\x00"),
        (b"tab\tkept", "tab\tkept"),
        (b"\xff\xfe", "\ufffd\ufffd"),
        ("right\u202eleft".encode(), "right\\u202eleft"),
        ("äöü 漢字".encode(), "äöü 漢字"),
    ],
)
def test_no_terminal_control_passes(raw, shown):
    assert LineCutter().feed(raw + b"\n") == [shown]


@pytest.mark.parametrize("start", range(1, 12))
def test_no_sequence_survives_being_cut(start):
    raw = b"\x1b]0;ti\x1b[2Jtle\x07a\x1b[31mb\n"
    cutter = LineCutter()
    text = "".join(cutter.feed(raw[:start]) + cutter.feed(raw[start:]))
    assert "\x1b" not in text


def test_a_line_that_never_ends_is_cut():
    cutter = LineCutter()
    assert len(cutter.feed(b"x" * 70000)) == 1
    assert cutter.rest() == []


def test_null_bytes_are_counted():
    cutter = LineCutter()
    assert cutter.feed(bytes(70000)) == ["\\x00 70000 times"]
    assert cutter.feed(bytes(3) + b"\n") == ["\\x00" * 3]
    assert cutter.feed(b"x" + bytes(2000) + b"\n") == ["x" + "\\x00" * 2000]


@pytest.mark.parametrize("odd", ["", "\x1b[1m", "\r", "\x00", "\xe4", "\x9b2J", "\u202e"])
def test_many_lines_at_once_are_shown_like_each_alone(odd):
    lines = ["", "plain", f"one{odd}two\tthree", " end "]
    data = "".join(f"{line}\n" for line in lines).encode()
    assert LineCutter().feed(data) == [LineCutter().feed(f"{line}\n".encode())[0] for line in lines]


def test_many_kinds_of_control_characters():
    text = "".join(map(chr, (*range(0x20), *range(0x7F, 0xA0), 0x200B, 0x202E, 0xE0001)))
    assert len(text) > 60
    wanted = "".join(f"\\x{ord(c):02x}" if ord(c) < 256 else f"\\u{ord(c):04x}" for c in text)
    assert visible(text) == wanted.replace("\\x09", "\t").replace("\\x0a", "\n")
    assert visible(text[:30]) == wanted[: 30 * 4].replace("\\x09", "\t").replace("\\x0a", "\n")


def test_clean_leaves_no_escape_character():
    assert "\x1b" not in clean("".join(map(chr, range(0x100))) + "\x1b")


def test_threads_do_not_mix_lines():
    stream = io.StringIO()
    console = make_console("plain", stream, load_settings({"HOME": "/"}, "/"), Redactor())

    def work(step):
        console.emit(StepStarted(step, "s"))
        for _ in range(200):
            console.emit(StepLog(step, b"word" * 5))
            console.emit(StepLog(step, b"\n"))
        console.emit(StepDone(step, "RAN", 0.0))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = stream.getvalue().splitlines()
    assert len(lines) == 4 * 202
    assert {line.split(" ", 1)[1] for line in lines} == {"s", "word" * 5, "DONE 0.0s"}


def test_terminal_shows_finished_steps_and_gives_the_terminal_back():
    main, side = pty.openpty()
    with os.fdopen(side, "w") as stream:
        settings = load_settings({"HOME": "/", "TERM": "xterm"}, "/")
        console = make_console("auto", stream, settings, Redactor())
        assert type(console).__name__ == "LiveConsole"
        for event in EVENTS:
            console.emit(event)
        console.close()
    text = b""
    while True:
        try:
            data = os.read(main, 65536)
        except OSError:
            break
        if not data:
            break
        text += data
    os.close(main)
    shown = text.decode()
    assert "=> RUN make 12 files" in shown
    assert "=> CACHED COPY a b" in shown
    assert "=> FAILED RUN false" in shown
    assert "warning" in shown
    assert shown.rfind("\x1b[?25h") > shown.rfind("\x1b[?25l")


@pytest.mark.parametrize("environ", [{"CI": "true", "TERM": "xterm"}, {"TERM": "dumb"}, {}])
def test_a_terminal_that_cannot_redraw_gets_lines(environ):
    main, side = pty.openpty()
    with os.fdopen(side, "w") as stream:
        settings = load_settings({"HOME": "/", **environ}, "/")
        assert type(make_console("auto", stream, settings, Redactor())).__name__ == "PlainConsole"
    os.close(main)


def test_no_color():
    settings = load_settings({"HOME": "/", "TERM": "xterm", "NO_COLOR": "1"}, "/")
    assert not settings.wants_color(is_terminal=True)
    assert load_settings({"HOME": "/", "TERM": "xterm"}, "/").wants_color(is_terminal=True)
    assert load_settings({"HOME": "/", "AEROGEL_COLOR": "always"}, "/").wants_color(is_terminal=False)
