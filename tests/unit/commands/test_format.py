from __future__ import annotations

import pytest

from aerogel.commands import format as form
from aerogel.errors import AerogelError


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [(0, "0B"), (999, "999B"), (1000, "1kB"), (77_800_000, "77.8MB"), (999_900, "1MB"), (123_456_789_012, "123GB")],
)
def test_size(size_bytes, text):
    assert form.size(size_bytes) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "Less than a second ago"),
        (1, "1 second ago"),
        (59, "59 seconds ago"),
        (61, "About a minute ago"),
        (3000, "50 minutes ago"),
        (3700, "About an hour ago"),
        (47 * 3600, "47 hours ago"),
        (3 * 86400, "3 days ago"),
        (15 * 86400, "2 weeks ago"),
        (61 * 86400, "2 months ago"),
        (800 * 86400, "2 years ago"),
        (400 * 86400, "13 months ago"),
    ],
)
def test_age(seconds, text):
    assert form.age(seconds) == text


def test_columns():
    assert form.columns(("A", "LONG"), [("xyz", "1"), ("", "2")]) == "A     LONG\nxyz   1\n      2"


ROWS = [{"Name": "a", "Size": "1kB"}, {"Name": "bb", "Size": "2kB"}]
FIELDS = [("Name", "NAME"), ("Size", "SIZE")]


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("", "NAME   SIZE\na      1kB\nbb     2kB"),
        ("json", '{"Name":"a","Size":"1kB"}\n{"Name":"bb","Size":"2kB"}'),
        ("{{.Name}}:{{ .Size }}", "a:1kB\nbb:2kB"),
        ("{{json .Name}}", '"a"\n"bb"'),
        ("{{json .}}", '{"Name":"a","Size":"1kB"}\n{"Name":"bb","Size":"2kB"}'),
        ("table {{.Name}}\\t{{.Size}}", "NAME   SIZE\na      1kB\nbb     2kB"),
    ],
)
def test_templates(template, text):
    assert form.table_or_template(template, FIELDS, ROWS) == text


def test_quiet():
    assert form.table_or_template("", FIELDS, ROWS, quiet_field="Name") == "a\nbb"


@pytest.mark.parametrize(("template", "hint"), [("{{.Nam}}", "did you mean `.Name`?"), ("{{if .X}}", "--format json")])
def test_wrong_templates(template, hint):
    with pytest.raises(AerogelError) as caught:
        form.expand_template(template, ROWS[0])
    assert caught.value.code == "cli.template"
    assert hint in "".join(caught.value.hints)
