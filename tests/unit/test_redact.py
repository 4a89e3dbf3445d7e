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


def test_a_stream_is_hidden_however_it_is_cut():
    redactor = Redactor()
    assert redactor.stream() is None
    redactor.add("abacab", "abad\nsecond", "\udcff\0xyz")
    data = b"abababacab-abad-second-\xff\x00xyz-aba"
    for first in range(len(data) + 1):
        for second in range(first, len(data) + 1):
            stream = redactor.stream()
            pieces = [stream.feed(data[:first]), stream.feed(data[first:second]), stream.feed(data[second:])]
            assert b"".join([*pieces, stream.rest()]) == b"abab***-***-***-***-aba"
            assert stream.rest() == b""


def test_a_stream_holds_back_no_more_than_it_must():
    redactor = Redactor()
    redactor.add("password")
    stream = redactor.stream()
    assert [stream.feed(each) for each in (b"line\n", b"the pass", b" is past\n", b"pas", b"sword!")] == [
        b"line\n",
        b"the ",
        b"pass is past\n",
        b"",
        b"***!",
    ]
