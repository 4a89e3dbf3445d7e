"""Health checks of the field as the words of the probe; what is not understood is left alone."""

from __future__ import annotations

import pytest

from aerogel.commands.health_words import probe_words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("curl -f http://localhost/ || exit 1", "http localhost/"),
        ("curl --fail --silent http://localhost:8080/health || exit 1", "http localhost:8080/health"),
        ("curl -fsS -o /dev/null http://127.0.0.1:3000/api?x=1", "http 127.0.0.1:3000/api?x=1"),
        ("curl -f -m 5 localhost:80 > /dev/null 2>&1 || exit 1", "http localhost:80 --timeout 5"),
        ("curl -sf -H 'Host: a' http://[::1]:80/", "http [::1]:80/ --header Host:\\ a"),
        ("wget --no-verbose --tries=1 --spider http://localhost:8080/ || exit 1", "http localhost:8080/"),
        ("wget -qO- http://localhost:8080/ping", "http localhost:8080/ping"),
        ("wget -q -O /dev/null -T 3 http://127.0.0.1/", "http 127.0.0.1/ --timeout 3"),
        ("/usr/bin/curl -f http://localhost/", "http localhost/"),
        ("sh -c 'curl -f http://localhost/'", "http localhost/"),
        ("nc -z localhost 5432", "tcp localhost:5432"),
        ("nc -zv -w 2 127.0.0.1 6379 || exit 1", "tcp 127.0.0.1:6379 --timeout 2"),
        ("test -f /tmp/ready", "file /tmp/ready"),
        ("[ -e /run/app.pid ] || false", "file /run/app.pid"),
    ],
)
def test_translated(text: str, words: str) -> None:
    import shlex

    assert probe_words(text) == ["/aerogel-probe", *shlex.split(words)]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "curl -f https://localhost/",
        "curl -f http://db/",
        "curl -f http://localhost:$PORT/",
        "curl -X POST http://localhost/",
        "curl http://localhost/ | grep ok",
        "curl -f http://localhost/ && test -f /x",
        "curl -o file http://localhost/",
        "pg_isready -U postgres",
        "nc -z db 5432",
        "test -d /x",
        "curl 'http://localhost",
    ],
)
def test_left_alone(text: str) -> None:
    assert probe_words(text) is None
