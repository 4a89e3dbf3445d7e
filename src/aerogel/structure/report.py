"""What tests found, as text for people and as JUnit's XML. Pure functions of values."""

from __future__ import annotations

import re
from collections.abc import Sequence
from xml.sax.saxutils import escape, quoteattr

from msgspec import Struct

__all__ = ["Verdict", "junit", "text"]

_WIDTH = 8
_NO_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class Verdict(Struct, frozen=True, kw_only=True):
    """How one test went. `kind` is `command`, `content`, `existence`, `license` or `metadata`."""

    file: str
    kind: str
    name: str
    passed: bool
    faults: tuple[str, ...] = ()
    """In words; lines that begin with `-` are what was asked for, with `+` what is there."""
    stdout: str = ""
    stderr: str = ""
    exit_status: int | None = None
    """Of a command that ended."""
    duration_s: float = 0.0


def text(verdicts: Sequence[Verdict], image: str, *, quiet: bool = False) -> str:
    """A line for each test, what is wrong below it, and how many passed; with `quiet` those alone that did not."""
    lines: list[str] = []
    for one in verdicts:
        if one.passed and quiet:
            continue
        lines.append(f"{'ok' if one.passed else 'FAILED':<{_WIDTH}}{one.kind:<11}{one.name}")
        for fault in one.faults:
            lines += [" " * _WIDTH + line for line in fault.splitlines()]
    failed = sum(not one.passed for one in verdicts)
    took = sum(one.duration_s for one in verdicts)
    counts = f"{len(verdicts) - failed} passed" + (f", {failed} failed" if failed else "")
    return "\n".join([*lines, f"{image}: {counts} ({took:.2f} s)"])


def junit(verdicts: Sequence[Verdict], image: str) -> str:
    """JUnit's XML: a suite for each configuration. Spec: what Jenkins and GitLab read."""
    failed = sum(not one.passed for one in verdicts)
    took = sum(one.duration_s for one in verdicts)
    head = f'<testsuites name={_quoted(image)} tests="{len(verdicts)}" failures="{failed}" time="{took:.3f}">'
    lines = ['<?xml version="1.0" encoding="UTF-8"?>', head]
    for file in dict.fromkeys(one.file for one in verdicts):
        cases = [one for one in verdicts if one.file == file]
        bad = sum(not one.passed for one in cases)
        took = sum(one.duration_s for one in cases)
        lines.append(
            f'  <testsuite name={_quoted(file)} tests="{len(cases)}" failures="{bad}" errors="0" time="{took:.3f}">'
        )
        for one in cases:
            lines += _case(one)
        lines.append("  </testsuite>")
    return "\n".join([*lines, "</testsuites>", ""])


def _case(one: Verdict) -> list[str]:
    head = f'    <testcase classname="{one.kind}" name={_quoted(one.name)} time="{one.duration_s:.3f}"'
    inside = [f"      <failure message={_quoted(_first(fault))}>{_text(fault)}</failure>" for fault in one.faults]
    inside += [
        f"      <{tag}>{_text(said)}</{tag}>"
        for tag, said in (("system-out", one.stdout), ("system-err", one.stderr))
        if said
    ]
    return [f"{head}>", *inside, "    </testcase>"] if inside else [f"{head}/>"]


def _first(fault: str) -> str:
    return fault.partition("\n")[0]


def _text(value: str) -> str:
    return escape(_NO_XML.sub("\ufffd", value))


def _quoted(value: str) -> str:
    return quoteattr(_NO_XML.sub("\ufffd", value))
