"""The rules for Dockerfiles: every page's examples, and the ways to switch a rule off."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from aerogel.dockerfile.parse import parse
from aerogel.errors import AerogelError, Source, render
from aerogel.graph.request import Request
from aerogel.graph.stages import plan
from aerogel.graph.steps import BaseImage, lower
from aerogel.lint.dockerfile import RULES, check, wrong_platform
from aerogel.lint.image import IMAGE_RULES
from aerogel.lint.rule import Finding, Options, Subject
from aerogel.oci.types import ImageConfig

PAGES = Path(__file__).resolve().parents[3] / "docs" / "lint"


def findings(text: str, **known: object) -> list[Finding]:
    return check(Subject(parse(Source("Dockerfile", text.encode())), **known))


def rules(text: str, **known: object) -> list[str]:
    return [finding.rule for finding in findings(text, **known)]


def test_every_rule_has_a_page() -> None:
    rules = (*RULES, *IMAGE_RULES)
    assert sorted(rule.name for rule in rules) == sorted(page.stem for page in PAGES.glob("*.md"))
    assert len(RULES) == 22


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule.check], ids=lambda rule: rule.name)
def test_pages_are_true(rule) -> None:
    page = (PAGES / f"{rule.name}.md").read_text()
    output = re.search(r"```text\n(.*?)\n```", page, re.DOTALL)
    bad, good = re.findall(r"```dockerfile\n(.*?)```", page, re.DOTALL)
    ignored = {"is_ignored": lambda path: path == "secret.txt"}
    found = [finding for finding in findings(bad, **ignored) if finding.rule == rule.name]
    assert output is not None
    assert render(found[0].diagnostic()) == output.group(1)
    assert rule.name not in rules(good, **ignored)
    for text in (bad, good):
        planned = plan(parse(Source("Dockerfile", text.encode())), Request())
        assert lower(planned, lambda *_: BaseImage((), ImageConfig())).target.node.digest


def test_the_page_of_the_rule_that_needs_an_image() -> None:
    page = (PAGES / "InvalidBaseImagePlatform.md").read_text()
    stage = parse(Source("Dockerfile", b"FROM debian\n")).stages[0]
    finding = wrong_platform(stage.origin, "debian", "linux/amd64", "linux/arm64")
    assert render(finding.diagnostic()) in page


def test_the_file_switches_rules_off() -> None:
    bad = "FROM debian AS Build\nEXPOSE 80/TCP\n"
    assert rules(bad) == ["StageNameCasing", "ExposeProtoCasing"]
    assert rules("# check=skip=ExposeProtoCasing;error=true\n" + bad) == ["StageNameCasing"]
    assert rules("# check=skip=all\n" + bad) == []


def test_a_comment_switches_a_rule_off_for_one_instruction() -> None:
    text = "FROM debian\n# check=skip=ExposeProtoCasing\nEXPOSE 80/TCP\nEXPOSE 81/TCP\n"
    assert [finding.lines for finding in findings(text)] == [(4, 4)]


def test_options_by_argument() -> None:
    subject = Subject(parse(Source("Dockerfile", b"# check=skip=all\n# x\nARG a\nFROM debian AS B\n")))
    assert [finding.rule for finding in check(subject, Options())] == ["StageNameCasing"]
    experimental = Options(skip=frozenset(["all"]), experimental=frozenset(["all"]))
    assert [finding.rule for finding in check(subject, experimental)] == ["InvalidDefinitionDescription"]


@pytest.mark.parametrize("text", ["skpi=all", "error=maybe", "all"])
def test_broken_options(text: str) -> None:
    with pytest.raises(AerogelError) as caught:
        findings(f"# check={text}\nFROM debian\n")
    assert caught.value.code == "lint.bad-options"
    assert caught.value.span is not None
    assert caught.value.span.line == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("FROM debian\nRUN $x\nENV a=$b\n", []),
        ("FROM scratch\nENV a=$b\nENV c=$a d=${PATH:-$e}\n", ["UndefinedVar", "UndefinedVar"]),
        ("FROM scratch\nARG a b=$a\nENV c=$a$b\n", []),
        ("FROM scratch AS one\nARG a=1\nENV b=2\nFROM one\nENV c=$a$b\n", []),
        ("FROM scratch AS one\nARG a=1\nFROM scratch\nENV c=$a\n", ["UndefinedVar"]),
        ("FROM scratch\nCOPY <<A <<'B' /x/\n$a\nA\n$b\nB\n", ["UndefinedVar"]),
        ("FROM scratch\nCOPY --chown=$u '$no' /x\n", ["UndefinedVar"]),
        ("FROM scratch\nRUN --mount=target=$t,from=x true\n", ["UndefinedVar"]),
        ("FROM debian\nWORKDIR $dir\n", []),
        ("FROM debian\nWORKDIR /a\nWORKDIR b\n", []),
        ("FROM debian AS a\nWORKDIR /a\nFROM a\nWORKDIR b\n", []),
        ("FROM --platform=$BUILDPLATFORM debian\nFROM --platform=$TARGETPLATFORM a\n", ["RedundantTargetPlatform"]),
        ("FROM --platform=linux/arm64 debian AS x\n", ["FromPlatformFlagConstDisallowed"]),
        ("FROM ${A}\n", ["InvalidDefaultArgInFrom", "UndefinedArgInFrom"]),
        ('FROM debian\nSHELL ["/bin/bash", "-c"]\nCMD x\n', []),
        ("from debian as x\nrun true\n", []),
        ("FROM debian\nRun true\n", ["ConsistentInstructionCasing"]),
        ("FROM debian\nARG PUBLIC_KEY TOKEN_FILE monkey KEY\n", ["SecretsUsedInArgOrEnv"]),
        ("FROM debian\nEXPOSE 8000-8010/udp [::1]:80:80\n", ["ExposeInvalidFormat"]),
    ],
)
def test_rules(text: str, expected: list[str]) -> None:
    assert rules(text) == expected


def test_a_base_that_was_read_is_known() -> None:
    text = "FROM debian\nWORKDIR $HOEM\nENV a=$LANG\n"
    found = findings(text, base_environment=lambda _: {"HOME": "/root", "LANG": "C"})
    assert [finding.message for finding in found] == [
        "Usage of undefined variable '$HOEM' (did you mean $HOME?)",
        'Relative workdir "" can have unexpected results if the base image changes',
    ]
    assert found[0].span.text == "$HOEM"
