"""Findings as text, as BuildKit's JSON and as SARIF."""

from __future__ import annotations

import base64
import json

from aerogel.commands.checking import Checker
from aerogel.errors import Source
from aerogel.lint.dockerfile import RULES
from aerogel.lint.report import buildkit_json, sarif, text
from aerogel.lint.rule import Checked

BAD = b"FROM debian AS Build\nRUN echo \\\n  two\n\nCMD run\n"


def checked(data: bytes, name: str = "Dockerfile") -> Checked:
    return Checker().file(Source(name, data), None)


def test_text() -> None:
    report = text([checked(BAD)])
    assert report.endswith("\n\n2 warnings in Dockerfile")
    assert " 5 | CMD run\n   |     ^^^" in report
    assert text([checked(b"FROM debian\n")]) == "no warnings in Dockerfile"
    both = text([checked(b"FROM\n"), checked(BAD, "other")])
    assert both.endswith("\n\n1 error and 2 warnings in 2 files")


def test_json_is_that_of_buildkit() -> None:
    report = json.loads(buildkit_json([checked(b"FROM debian\n", "one"), checked(BAD, "two")]))
    assert list(report) == ["warnings", "sources"]
    first, second = report["warnings"]
    assert first["ruleName"] == "StageNameCasing"
    assert first["url"] == "https://docs.docker.com/go/dockerfile/rule/stage-name-casing/"
    assert second == {
        "ruleName": "JSONArgsRecommended",
        "description": "CMD and ENTRYPOINT are JSON arrays",
        "url": "https://docs.docker.com/go/dockerfile/rule/json-args-recommended/",
        "detail": "JSON arguments recommended for CMD to prevent unintended behavior related to OS signals",
        "location": {"sourceIndex": 1, "ranges": [{"start": {"line": 5}, "end": {"line": 5}}]},
    }
    assert [base64.b64decode(source["data"]) for source in report["sources"]] == [b"FROM debian\n", BAD]


def test_json_of_a_broken_file() -> None:
    report = json.loads(buildkit_json([checked(b"FROM debian\nRNU x\n")]))
    assert report["warnings"] == []
    assert report["buildError"]["location"] == {"ranges": [{"start": {"line": 2}, "end": {"line": 2}}]}


def test_sarif() -> None:
    report = json.loads(sarif([checked(BAD), checked(b"FROM debian\nRNU x\n", "a b/Dockerfile")], "1.0"))
    assert report["version"] == "2.1.0"
    (run,) = report["runs"]
    rules = run["tool"]["driver"]["rules"]
    assert [rule["id"] for rule in rules] == [rule.name for rule in RULES]
    for result in run["results"]:
        assert result["level"] in ("error", "warning")
        assert result["message"]["text"]
        if "ruleIndex" in result:
            assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
        region = result["locations"][0]["physicalLocation"]["region"]
        assert 1 <= region["startLine"] <= region["endLine"]
        assert min(region["startColumn"], region["endColumn"]) >= 1
    assert [result["ruleId"] for result in run["results"]][-1] == "dockerfile.unknown-instruction"
    assert run["results"][0]["locations"][0]["physicalLocation"]["region"] == {
        "startLine": 1,
        "startColumn": 16,
        "endLine": 1,
        "endColumn": 21,
    }
    assert run["results"][-1]["locations"][0]["physicalLocation"]["artifactLocation"] == {"uri": "a%20b/Dockerfile"}
