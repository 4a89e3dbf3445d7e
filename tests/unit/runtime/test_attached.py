"""Being attached to a container, with the process that holds it played by a thread."""

from __future__ import annotations

import os
import signal
import socket
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from aerogel.runtime import attached
from aerogel.sandbox import wire


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> tuple[Any, socket.socket]:
    """An `Attached`, and the other end of its connection."""
    ours, theirs = socket.socketpair()
    monkeypatch.setattr(attached, "connected", lambda _seen: ours)
    container = SimpleNamespace(
        sandbox=SimpleNamespace(tty=False), stop_signal=signal.SIGUSR2, grace_s=600.0, is_input_once=False, name="box"
    )
    streams = SimpleNamespace(stdin=0, stdout=1, stderr=2)
    return attached.Attached(SimpleNamespace(container=container), streams, b""), theirs  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("number", "passed"), [(signal.SIGINT, signal.SIGINT), (signal.SIGTERM, signal.SIGUSR2)], ids=["int", "term"]
)
def test_a_signal_as_soon_as_the_command_runs_is_its_own(
    ends: tuple[Any, socket.socket], number: int, passed: int
) -> None:
    """Its first word may be answered with Ctrl-C before anybody here has read that it runs."""
    own, theirs = ends
    seen: list[dict[str, Any]] = []
    sent = threading.Event()

    def hold() -> None:
        found = wire.receive(theirs)
        assert found is not None
        for fd in found[1]:
            os.close(fd)
        os.kill(os.getpid(), number)
        sent.wait(60)
        wire.send(theirs, {"ok": True})
        said = wire.receive(theirs)
        assert said is not None
        seen.append(said[0])
        wire.send(theirs, {"exit": {"code": 137, "signal": 9, "oom": False, "fault": None}})

    before = signal.getsignal(number)
    take = own._got

    def got(number: int) -> None:
        take(number)
        sent.set()

    own._got = got
    holder = threading.Thread(target=hold)
    holder.start()
    with own, theirs:
        end = own.follow(takes_input=False, passes_signals=True, asks_to_end=True)
        holder.join(60)
    assert end.code == 137
    assert seen == [{"signal": passed}]
    assert signal.getsignal(number) is before


def test_a_second_one_gives_up_who_does_not_answer(ends: tuple[Any, socket.socket]) -> None:
    own, theirs = ends

    def hold() -> None:
        wire.receive(theirs)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        while own._early != [signal.SIGINT]:
            threading.Event().wait(0.01)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    holder = threading.Thread(target=hold)
    holder.start()
    with own, theirs, pytest.raises(KeyboardInterrupt):
        own.follow(takes_input=False, passes_signals=True)
    holder.join(60)
