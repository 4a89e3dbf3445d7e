from __future__ import annotations

import pytest

from aerogel.redact import Redactor, redact


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("https://host/x@y", "https://host/x@y"),
        ("https://u:p@host/x", "https://***@host/x"),
        ("https://u:p@ss@host/x", "https://***@host/x"),
        ("see http://a@b and ssh://c@d.", "see http://***@b and ssh://***@d."),
        ("`https://token@h`", "`https://***@h`"),
    ],
)
def test_urls(text, shown):
    assert redact(text) == shown


def test_secrets():
    redactor = Redactor()
    redactor.add("first line\nsecond line\n")
    redactor.add("abc")
    redactor.add("first line and more")
    assert redactor.text("a first line and more; first line; second line; abc") == "a ***; ***; ***; abc"
