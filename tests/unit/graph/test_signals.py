"""The signals of STOPSIGNAL."""

from __future__ import annotations

import pytest

from aerogel.errors import AerogelError, Source, Span
from aerogel.graph.signals import check_signal

SPAN = Span(Source("Dockerfile", b"STOPSIGNAL x"), 0, 12)


@pytest.mark.parametrize(
    "text", ["SIGTERM", "term", "SigQuit", "9", "64", "SIGRTMIN", "RTMIN+15", "SIGRTMAX-14", "usr1"]
)
def test_signals(text: str) -> None:
    check_signal(text, SPAN)


@pytest.mark.parametrize("text", ["", "0", "SIG", "SIGNOTHING", "RTMIN+16", "RTMIN+0", "TERM+1", "RTMAX-15", "9x"])
def test_no_signals(text: str) -> None:
    with pytest.raises(AerogelError) as caught:
        check_signal(text, SPAN)
    assert caught.value.code == "graph.bad-signal"
