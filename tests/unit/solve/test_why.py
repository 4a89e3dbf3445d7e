"""Matching the steps of two builds, and what is said when a record lacks something. Pure: no build runs."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from aerogel.commands.gantt import Bar, as_svg, seconds
from aerogel.graph.ops import Git, Run
from aerogel.solve.facts import facts_of
from aerogel.solve.why import Cause, Lookup, explain, pairs

NOTHING = Lookup(lambda _: None, lambda _: None)


def step(title: str, node: str, key: str, *inputs: str, status: str = "RAN", stage: str = "a", **more: object) -> dict:
    kind = {"R": "run", "C": "copy", "F": "base"}[title[0]]
    op = (
        {"type": kind, "argv": [title], "env": []}
        if kind == "run"
        else {"type": kind, "diff_ids": [node if kind == "base" else ""]}
    )
    return {
        "number": 1,
        "stage": stage,
        "title": title,
        "node": node,
        "key": key,
        "inputs": list(inputs),
        "sources": {},
        "taken": [],
        "platform": "linux/amd64",
        "op": op,
        "status": status,
        **more,
    }


def test_steps_are_matched_by_their_text_then_by_their_kind() -> None:
    old = {
        "steps": [
            step("FROM x", "b", "0"),
            step("RUN one", "1", "1"),
            step("COPY a", "2", "2"),
            step("RUN two", "3", "3"),
        ]
    }
    new = {
        "steps": [
            step("FROM x", "b", "0"),
            step("RUN zero", "z", "z"),
            step("RUN one", "1", "1"),
            step("COPY b", "4", "4"),
            step("RUN two", "5", "5"),
            step("RUN two", "6", "6", stage="other"),
        ]
    }
    assert pairs(new, old) == {0: 0, 2: 1, 3: 2, 4: 3}


def test_lists_that_are_not_kept_any_more() -> None:
    old = {"times": 1, "steps": [step("COPY a", "1", "1", taken=[[1, "context", "sha256:a"]])]}
    new = {"times": 1, "steps": [step("COPY a", "2", "2", taken=[[1, "context", "sha256:b"]])]}
    (cause,) = explain(new, old, 0, NOTHING)
    assert (cause.kind, cause.old, cause.new) == ("file", "sha256:a", "sha256:b")
    assert "not kept any more" in cause.text


def test_a_change_far_below_is_followed() -> None:
    old = {"steps": [step("FROM x", "b", "0"), step("RUN one", "1", "1", "b"), step("RUN two", "2", "2", "1")]}
    new = {"steps": [step("FROM x", "c", "9"), step("RUN one", "3", "3", "c"), step("RUN two", "4", "4", "3")]}
    (cause,) = explain(new, old, 2, NOTHING)
    chain: list[Cause] = [cause]
    while chain[-1].causes:
        chain.append(chain[-1].causes[0])
    assert [each.kind for each in chain] == ["step", "step", "base"]
    assert (chain[-1].old, chain[-1].new) == ("b", "c")


def test_a_step_that_gave_something_else_with_the_same_inputs() -> None:
    old = {"steps": [step("RUN date", "1", "1", layers="x"), step("RUN two", "2", "2", "1")]}
    new = {"steps": [step("RUN date", "1", "1", layers="y", note="no-cache"), step("RUN two", "2", "3", "1")]}
    (cause,) = explain(new, old, 1, NOTHING)
    assert [each.kind for each in cause.causes] == ["no-cache"]


def test_statuses_explain_themselves() -> None:
    record = {"steps": [step("RUN a", "1", "1", status=status) for status in ("CACHED", "SKIPPED", "RAN", "REUSED")]}
    assert [explain(record, record, at, NOTHING)[0].kind for at in range(4)] == ["same", "skipped", "removed", "same"]
    assert explain(record, None, 2, NOTHING)[0].kind == "first"
    record["steps"][2]["note"] = "gone"
    assert explain(record, record, 2, NOTHING)[0].kind == "gone"


def test_facts_hide_what_is_called_a_secret() -> None:
    env = (("API_TOKEN", "abc"), ("TOKENS", "shown"), ("DB_PASSWORD", "\udcff"), ("URL", "https://me:pw@host/x"))
    facts = facts_of(Run(argv=("curl", "https://me:pw@host/"), env=env, cwd="/"), b"salt")
    assert "pw" not in str(facts)
    assert "abc" not in str(facts)
    assert dict(facts["env"])["TOKENS"] == "shown"
    other = facts_of(Run(argv=(), env=(("API_TOKEN", "xyz"),), cwd="/"), b"salt")
    assert dict(other["env"])["API_TOKEN"] != dict(facts["env"])["API_TOKEN"]
    elsewhere = facts_of(Run(argv=(), env=(("API_TOKEN", "abc"),), cwd="/"), b"other")
    assert dict(elsewhere["env"])["API_TOKEN"] != dict(facts["env"])["API_TOKEN"], "or one could try what it is"
    assert facts_of(Git("https://me:pw@host/x.git"), b"")["remote"] == "https://***@host/x.git"


def test_the_picture_is_xml_whatever_stands_in_a_step() -> None:
    bars = [Bar(1, 'RUN <b> & "q" \x1b[0m', "RAN", 0.5, 2.5), Bar(2, "x" * 300, "CACHED", 0.0, 0.0)]
    root = ET.fromstring(as_svg("a < b", bars, 3.0))
    titles = [each.text for each in root.iter("{http://www.w3.org/2000/svg}title")]
    assert titles[1] == '#1 RUN <b> & "q" �[0m: RAN, 2.0 s'
    assert ET.fromstring(as_svg("nothing", [], 0.0)) is not None
    assert [seconds(value) for value in (0.0123, 3.44, 125.4)] == ["12 ms", "3.4 s", "2 min 05 s"]
