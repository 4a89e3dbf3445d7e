"""The signals that STOPSIGNAL takes: a name with or without `SIG` in any case, or a number. Pure.

Spec: the names of Linux on this list are those of moby/sys/signal, which BuildKit asks.
"""

from __future__ import annotations

from aerogel.errors import AerogelError, Span, nearest

__all__ = ["check_signal"]

_NAMES = [
    "ABRT",
    "ALRM",
    "BUS",
    "CHLD",
    "CLD",
    "CONT",
    "FPE",
    "HUP",
    "ILL",
    "INT",
    "IO",
    "IOT",
    "KILL",
    "PIPE",
    "POLL",
    "PROF",
    "PWR",
    "QUIT",
    "SEGV",
    "STKFLT",
    "STOP",
    "SYS",
    "TERM",
    "TRAP",
    "TSTP",
    "TTIN",
    "TTOU",
    "URG",
    "USR1",
    "USR2",
    "VTALRM",
    "WINCH",
    "XCPU",
    "XFSZ",
    "RTMIN",
    "RTMAX",
]
_ABOVE_RTMIN = 15
_BELOW_RTMAX = 14


def check_signal(text: str, span: Span | None) -> None:
    """Raises AerogelError `graph.bad-signal`."""
    if text.isascii() and text.removeprefix("-").isdecimal():
        if int(text) != 0:
            return
    else:
        name = text.upper().removeprefix("SIG")
        base, sign, number = name.partition("+" if name.startswith("RTMIN") else "-")
        limit = {"RTMIN": _ABOVE_RTMIN, "RTMAX": _BELOW_RTMAX}.get(base, 0)
        if base in _NAMES and (not sign or (number in map(str, range(1, limit + 1)))):
            return
    guess = nearest(text.upper(), [f"SIG{name}" for name in _NAMES])
    raise AerogelError(
        f"`{text}` is not a signal",
        code="graph.bad-signal",
        span=span,
        hints=[f"did you mean `{guess}`?" if guess else "a signal is a name such as `SIGTERM` or a number above 0"],
    )
