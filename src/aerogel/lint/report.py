"""What the rules found in some files, as text for people, as BuildKit's JSON and as SARIF.

Pure functions of values. The JSON is what `docker build --call=check,format=json` prints (BuildKit's
`frontend/subrequests/lint`), with the index of the source where there are several files. Spec of the other: SARIF
2.1.0, OASIS.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Sequence
from urllib.parse import quote

from aerogel.errors import Span, render
from aerogel.lint.dockerfile import RULES
from aerogel.lint.rule import Checked

__all__ = ["buildkit_json", "sarif", "text"]

_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_HOME = "https://docs.docker.com/go/dockerfile/rule/"
_WORDS = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z][a-z]*")


def text(files: Sequence[Checked]) -> str:
    """Every finding with its line and a caret, then how many there are."""
    parts: list[str] = []
    for file in files:
        if file.fault is not None:
            parts.append(render(file.fault))
        parts += (render(finding.diagnostic()) for finding in file.findings)
    warnings = sum(len(file.findings) for file in files)
    faults = sum(len(file.faults()) for file in files)
    counts = [_count(number, word) for number, word in ((faults, "error"), (warnings, "warning")) if number]
    where = f"in {len(files)} files" if len(files) != 1 else f"in {files[0].source.name}"
    return "\n\n".join([*parts, f"{' and '.join(counts) or 'no warnings'} {where}"])


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def buildkit_json(files: Sequence[Checked]) -> str:
    """`warnings`, `sources` and, for a file that could not be checked, `buildError`."""
    summaries = {rule.name: rule.summary for rule in RULES}
    warnings = [
        {
            "ruleName": finding.rule,
            "description": summaries[finding.rule],
            "url": _url(finding.rule),
            "detail": finding.message,
            "location": _location(finding.lines, index),
        }
        for index, file in enumerate(files)
        for finding in file.findings
    ]
    found: dict[str, object] = {
        "warnings": warnings,
        "sources": [
            {
                "filename": file.source.name,
                "data": base64.b64encode(file.source.data).decode(),
                "language": "Dockerfile",
            }
            for file in files
        ],
    }
    for index, file in enumerate(files):
        for fault in file.faults()[:1]:
            lines = (fault.span.line, fault.span.end_line) if fault.span else None
            place = _location(lines, index) if lines else None
            found.setdefault("buildError", {"message": fault.message, "location": place})
    return json.dumps(found, indent=2, ensure_ascii=False)


def _url(rule: str) -> str:
    """The page of the rule in the documentation that BuildKit's own output links to."""
    return f"{_HOME}{'-'.join(_WORDS.findall(rule)).lower()}/"


def _location(lines: tuple[int, int], source: int) -> dict[str, object]:
    first, last = lines
    found: dict[str, object] = {"ranges": [{"start": {"line": first}, "end": {"line": last}}]}
    return {"sourceIndex": source, **found} if source else found


def sarif(files: Sequence[Checked], version: str) -> str:
    """One run with all rules; faults of a file are results of level `error` whose rule is the error's code."""
    rules = [
        {
            "id": rule.name,
            "shortDescription": {"text": rule.summary},
            "helpUri": _url(rule.name),
            "defaultConfiguration": {"level": "warning", "enabled": not rule.experimental},
        }
        for rule in RULES
    ]
    numbers = {rule.name: number for number, rule in enumerate(RULES)}
    results: list[dict[str, object]] = []
    for code, message, hints, span, is_error in _results(files):
        result: dict[str, object] = {"ruleId": code}
        if code in numbers:
            result["ruleIndex"] = numbers[code]
        result["level"] = "error" if is_error else "warning"
        result["message"] = {"text": "\n".join([message, *(f"hint: {hint}" for hint in hints)])}
        result["locations"] = [{"physicalLocation": _physical(span)}] if span is not None else []
        results.append(result)
    driver = {
        "name": "aerogel lint",
        "version": version,
        "informationUri": "https://docs.docker.com/reference/build-checks/",
        "rules": rules,
    }
    run = {"tool": {"driver": driver}, "columnKind": "unicodeCodePoints", "results": results}
    return json.dumps({"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2, ensure_ascii=False)


def _results(files: Sequence[Checked]) -> Iterator[tuple[str, str, tuple[str, ...], Span | None, bool]]:
    for file in files:
        for fault in file.faults():
            yield fault.code, fault.message, fault.hints, fault.span, True
        for finding in file.findings:
            yield finding.rule, finding.message, finding.hints, finding.span, file.is_error


def _physical(span: Span) -> dict[str, object]:
    source = span.source
    last = span.end_line
    end = len(source.data[source.line_starts()[last - 1] : span.end].decode("utf-8", "replace")) + 1
    region = {"startLine": span.line, "startColumn": span.column, "endLine": last, "endColumn": end}
    return {"artifactLocation": {"uri": quote(source.name, errors="surrogateescape")}, "region": region}
