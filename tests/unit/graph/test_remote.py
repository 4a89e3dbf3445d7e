"""Which words are addresses, and what they say."""

from __future__ import annotations

import pytest

from aerogel.errors import AerogelError
from aerogel.graph.ops import Git, Http, Node
from aerogel.graph.remote import is_remote, parse_git, parse_remote


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://h/a/x.git", Git("https://h/a/x.git")),
        ("http://h/x.git#", Git("http://h/x.git")),
        ("https://h/x.git#main", Git("https://h/x.git", "main")),
        ("https://h/x.git#main:a/b", Git("https://h/x.git", "main", "a/b")),
        ("https://h/x.git#:a", Git("https://h/x.git", "", "a")),
        ("https://h/x.git#feature%23one", Git("https://h/x.git", "feature#one")),
        ("https://h/x.git?tag=v1", Git("https://h/x.git", "refs/tags/v1")),
        ("https://h/x.git?branch=b&subdir=s", Git("https://h/x.git", "refs/heads/b", "s")),
        ("https://h/x.git?ref=r&commit=0123", Git("https://h/x.git", "r", checksum="0123")),
        ("https://h/x.git?keep-git-dir&submodules=0", Git("https://h/x.git", keep_git_dir=True, submodules=False)),
        ("git://h/x", Git("git://h/x")),
        ("ssh://git@h:22/x#v", Git("ssh://git@h:22/x", "v")),
        ("git@h:a/x.git#v:d", Git("git@h:a/x.git", "v", "d")),
        ("git@h:a/x?branch=b", Git("git@h:a/x", "refs/heads/b")),
    ],
)
def test_git_addresses(text: str, expected: Git) -> None:
    assert parse_git(text) == expected
    assert parse_remote(text) == expected
    assert is_remote(text)


@pytest.mark.parametrize(
    ("text", "url", "name"),
    [
        ("http://h/a/b.txt", "http://h/a/b.txt", "b.txt"),
        ("https://h/b%20c?x=y.git#z", "https://h/b%20c?x=y.git", "b c"),
        ("https://h/x.gitea", "https://h/x.gitea", "x.gitea"),
        ("HTTPS://h/a/", "HTTPS://h/a/", "a"),
        ("http://h", "http://h", "__unnamed__"),
        ("http://h/?q", "http://h/?q", "__unnamed__"),
        ("http://h/..", "http://h/..", "__unnamed__"),
    ],
)
def test_files(text: str, url: str, name: str) -> None:
    assert parse_remote(text) == Http(url, name)


@pytest.mark.parametrize(
    "text", ["a/b", "./git@h", "github.com/a/b", "file:///x.git", "ftp://h/x", "c:/x", "x.git", ""]
)
def test_paths(text: str) -> None:
    assert parse_remote(text) is None
    assert not is_remote(text)


def test_a_name_never_leaves_its_folder() -> None:
    for text in ("http://h/a%2Fb", "http://h/..%2f..%2fetc", "http://h/%2e%2e", "http://h/a%00b"):
        found = parse_remote(text)
        assert isinstance(found, Http)
        assert "/" not in found.name
        assert "\0" not in found.name
        assert found.name not in ("", ".", "..")


def test_flag_makes_no_url_a_repository() -> None:
    assert parse_remote("https://h/x", keep_git_dir=True) == Http("https://h/x", "x")
    assert parse_remote("https://h/x.git", keep_git_dir=True) == Git("https://h/x.git", keep_git_dir=True)


@pytest.mark.parametrize(
    "text",
    [
        "https://h/x.git?ref=a&ref=b",
        "https://h/x.git?ref=",
        "https://h/x.git?depth=1",
        "https://h/x.git?ref=a#b",
        "https://h/x.git?branch=a&tag=b",
        "https://h/x.git?submodules=maybe",
        "https://h/x.git?commit=xyz",
        "https://h/x.git?mtime=now",
        "https://h/x.git?fetch-by-commit=yes",
        "https://h/x.git?fetch-by-commit=1&checksum=abcd",
        "https://h/x.git#--upload-pack=x",
        "https://h/x.git#v:../..",
    ],
)
def test_wrong_addresses(text: str) -> None:
    with pytest.raises(AerogelError) as caught:
        parse_remote(text)
    assert caught.value.code == "graph.bad-git-url"
    assert caught.value.hints


@pytest.mark.parametrize(("query", "flag"), [("keep-git-dir=0&ref=a", True), ("ref=a&keep-git-dir=true#:d", False)])
def test_address_and_flag_contradict(query: str, flag: bool) -> None:
    if "#" not in query:
        assert parse_remote(f"https://h/x.git?{query}", keep_git_dir=False) == Git("https://h/x.git", "a")
    with pytest.raises(AerogelError) as caught:
        parse_remote(f"https://h/x.git?{query}", keep_git_dir=flag)
    assert caught.value.code == "graph.bad-git-url"
    assert "the flag says" in caught.value.hints[0]


@pytest.mark.parametrize("checksum", ["sha256:12", "md5:" + "0" * 32, "0" * 64, "sha512:" + "0" * 128])
def test_wrong_checksum_of_a_file(checksum: str) -> None:
    with pytest.raises(AerogelError) as caught:
        parse_remote("http://h/f", checksum=checksum)
    assert caught.value.code == "graph.bad-checksum"


@pytest.mark.parametrize(("text", "checksum"), [("https://h/x.git?commit=aaaa", "bbbb"), ("https://h/x.git", "v1")])
def test_wrong_checksum_of_a_commit(text: str, checksum: str) -> None:
    with pytest.raises(AerogelError) as caught:
        parse_remote(text, checksum=checksum)
    assert caught.value.code in ("graph.bad-checksum", "graph.bad-git-url")


def test_golden_digests() -> None:
    nodes = (Node(Http("https://h/f", "f")), Node(Git("https://h/x.git", "v1", "d")))
    assert [node.digest for node in nodes] == [
        "sha256:0781eff7398c3155015162dd073760c8e6e8dced15c748e0c0e03adaea7ff7e5",
        "sha256:cdae8bce390dd9cebb826dd7825ada8c04bcffb97785b8e1055a6b6631bc4f29",
    ]


@pytest.mark.parametrize(
    "changed",
    [
        Git("https://h/y.git"),
        Git("https://h/x.git", "r"),
        Git("https://h/x.git", "", "d"),
        Git("https://h/x.git", keep_git_dir=True),
        Git("https://h/x.git", submodules=False),
    ],
)
def test_every_field_counts(changed: Git) -> None:
    assert Node(changed).digest != Node(Git("https://h/x.git")).digest
