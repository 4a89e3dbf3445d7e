from __future__ import annotations

import io
import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aerogel.debian.index import PackageIndex, write_index
from aerogel.debian.resolve import Chosen, essential_names, resolve
from aerogel.errors import AerogelError, render


def index(text: str, suite: str = "trixie") -> PackageIndex:
    """An index from lines `name version [field: value; ...]`."""
    paragraphs = []
    for line in text.strip().splitlines():
        head, _, fields = line.strip().partition(" [")
        name, version, *arch = head.split()
        given = "".join(f"{field.strip()}\n" for field in fields.rstrip("]").split(";") if field.strip())
        paragraphs.append(
            f"Package: {name}\nVersion: {version}\nArchitecture: {(arch or ['amd64'])[0]}\nFilename: x\nSize: 1\n"
            f"SHA256: {'0' * 64}\n{given}"
        )
    out = io.BytesIO()
    write_index(["\n".join(paragraphs).encode()], out, "test")
    return PackageIndex(out.getvalue(), suite=suite, component="main", arch="amd64")


def names(found: Sequence[Chosen]) -> list[str]:
    return [chosen.package.name for chosen in found]


def test_the_closure_with_dependencies_first() -> None:
    found = resolve(
        ["app"],
        [index("app 1 [Depends: b, a; Pre-Depends: p]\na 1 [Depends: c]\nb 1 [Depends: c]\nc 1\np 1\nunused 1")],
        arch="amd64",
    )
    assert names(found) == ["c", "a", "p", "b", "app"]
    why = {chosen.package.name: chosen.why for chosen in found}
    assert why == {
        "app": ("app",),
        "a": ("app", "a"),
        "b": ("app", "b"),
        "c": ("app", "b", "c"),
        "p": ("app", "p"),
    }


def test_the_highest_version_of_all_suites() -> None:
    main = index("ssl 3.0-1 [Depends: old]\nold 1\napp 1 [Depends: ssl]")
    security = index("ssl 3.0-1+deb13u1 [Depends: new]\nnew 1", "trixie-security")
    for order in ([main, security], [security, main]):
        found = resolve(["app"], order, arch="amd64")
        assert [(c.package.name, c.package.suite) for c in found] == [
            ("new", "trixie-security"),
            ("ssl", "trixie-security"),
            ("app", "trixie"),
        ]


def test_an_older_version_when_it_is_named() -> None:
    suites = [index("x 1"), index("x 2", "trixie-updates")]
    assert resolve(["x (= 1)"], suites, arch="amd64")[0].package.suite == "trixie"
    assert resolve(["x (<< 2)"], suites, arch="amd64")[0].package.version == "1"


ALTERNATIVES = """
app 1 [Depends: editor | nano, mail]
nano 1
vim 1 [Provides: editor, vi (= 9)]
zile 1 [Provides: editor; Priority: important]
exim 1 [Provides: mail]
postfix 1 [Provides: mail]
"""


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (["app"], {"app", "zile", "exim"}),  # the provider of higher priority, then the first by name
        (["app", "nano"], {"app", "nano", "exim"}),  # what is asked for is preferred
        (["app", "vim", "postfix"], {"app", "vim", "postfix"}),
        (["mail", "postfix"], {"postfix"}),
        (["vi (>= 8)"], {"vim"}),
        (["nonsense | nano"], {"nano"}),
        (["nano, vim"], {"nano", "vim"}),
    ],
)
def test_alternatives_and_providers(asked: list[str], expected: set[str]) -> None:
    assert set(names(resolve(asked, [index(ALTERNATIVES)], arch="amd64"))) == expected
    assert set(names(resolve(asked[::-1], [index(ALTERNATIVES)], arch="amd64"))) == expected


@pytest.mark.parametrize("asked", ["editor (>= 1)", "vi (>= 10)", "nano:arm64", "nano [arm64]"])
def test_what_does_not_satisfy(asked: str) -> None:
    with pytest.raises(AerogelError) as caught:
        resolve([asked], [index(ALTERNATIVES)], arch="amd64")
    assert caught.value.code == "debian.unsatisfiable"


def test_architecture_qualifiers() -> None:
    universe = index("app 1 [Depends: py:any, lib:amd64, n:native]\npy 1\nlib 1\nn 1 all")
    assert set(names(resolve(["app"], [universe], arch="amd64"))) == {"app", "py", "lib", "n"}


def test_another_architecture() -> None:
    universe = index("app 1 riscv64 [Depends: doc]\ndoc 1 all")
    assert names(resolve(["app"], [universe], arch="riscv64")) == ["doc", "app"]
    with pytest.raises(AerogelError):
        resolve(["app"], [universe], arch="amd64")


def test_skipped_names_count_as_there() -> None:
    universe = index("app 1 [Depends: debconf (>= 9) | cdebconf, lib]\nlib 1\ndebconf 1\ncdebconf 1")
    assert names(resolve(["app"], [universe], arch="amd64", skip={"debconf"})) == ["lib", "app"]
    assert names(resolve(["app"], [universe], arch="amd64", skip=["cdebconf"])) == ["lib", "app"]


def test_recommends_only_when_asked_for() -> None:
    universe = index("app 1 [Recommends: extra, gone]\nextra 1 [Depends: lib]\nlib 1")
    assert names(resolve(["app"], [universe], arch="amd64")) == ["app"]
    assert set(names(resolve(["app"], [universe], arch="amd64", recommends=True))) == {"lib", "extra", "app"}


def test_essential() -> None:
    universe = index("app 1\nbash 1 [Essential: yes; Depends: lib]\nlib 1\nabc 1 [Essential: yes]")
    assert essential_names([universe]) == ["abc", "bash"]
    assert names(resolve(["app"], [universe], arch="amd64", essential=True)) == ["abc", "app", "lib", "bash"]


def test_cycles_are_cut() -> None:
    universe = index("libc6 1 [Depends: libgcc]\nlibgcc 1 [Depends: base, libc6]\nbase 1\nself 1 [Depends: self]")
    assert names(resolve(["libc6", "self"], [universe], arch="amd64")) == ["base", "libgcc", "libc6", "self"]


def test_a_chain_of_thousands() -> None:
    lines = "\n".join(f"p{i} 1 [Depends: p{i + 1}]" for i in range(3000)) + "\np3000 1"
    found = resolve(["p0"], [index(lines)], arch="amd64")
    assert names(found) == [f"p{i}" for i in range(3000, -1, -1)]


def test_the_error_prints_the_chain() -> None:
    universe = index("app 1 [Depends: mid]\nmid 1 [Depends: libfo (>= 2) | other]\nlibfoo 1")
    with pytest.raises(AerogelError) as caught:
        resolve(["app"], [universe, index("libfo 1", "trixie-security")], arch="amd64")
    assert render(caught.value) == (
        "error: `mid` needs `libfo (>= 2) | other`, which no package of trixie, trixie-security (amd64) satisfies\n"
        "  app needs mid needs libfo (>= 2) | other\n"
        "  there is only libfo 1 amd64 (trixie-security)\n"
        "  nothing is called or provides `other` in trixie, trixie-security (amd64)"
    )


def test_the_error_for_a_name_that_nobody_has() -> None:
    with pytest.raises(AerogelError) as caught:
        resolve(["libpq55"], [index("libpq5 1")], arch="amd64")
    assert render(caught.value) == (
        "error: `libpq55` is asked for, which no package of trixie (amd64) satisfies\n"
        "  libpq55 is asked for\n"
        "  nothing is called or provides `libpq55` in trixie (amd64)\n"
        "hint: did you mean `libpq5`?"
    )


def test_two_versions_of_one_name() -> None:
    universe = index("app 1 [Depends: lib (= 1), plugin]\nplugin 1 [Depends: lib (= 2)]")
    with pytest.raises(AerogelError, match=r"`plugin` needs `lib \(= 2\)`") as caught:
        resolve(["app"], [universe, index("lib 1"), index("lib 2")], arch="amd64")
    assert "lib 1 amd64 was chosen already: app needs lib" in caught.value.detail


def test_conflicts() -> None:
    universe = index(
        "a 1 [Conflicts: mail]\nexim 1 [Provides: mail; Conflicts: mail]\nb 2 [Breaks: c (<< 2)]\nc 1\nd 1 [Breaks: c (<< 1)]"
    )
    with pytest.raises(AerogelError, match="`a 1 amd64` and `exim 1 amd64` cannot be together") as caught:
        resolve(["a", "exim"], [universe], arch="amd64")
    assert caught.value.code == "debian.conflict"
    with pytest.raises(AerogelError, match="Breaks: c"):
        resolve(["b", "c"], [universe], arch="amd64")
    assert names(resolve(["exim", "c", "d"], [universe], arch="amd64")) == ["c", "d", "exim"]


GRAPH = st.lists(st.lists(st.integers(0, 7), max_size=4), min_size=8, max_size=8)


@given(GRAPH, st.permutations(range(8)))
def test_any_graph_gives_its_closure_in_one_order(graph: list[list[int]], order: list[int]) -> None:
    lines = [
        f"p{i} 1 [Depends: {', '.join(f'p{j}' for j in needed)}]" if needed else f"p{i} 1"
        for i, needed in enumerate(graph)
    ]
    asked = [f"p{i}" for i in order[:3]]
    found = names(resolve(asked, [index("\n".join(lines))], arch="amd64"))
    closure = set(asked)
    while True:
        more = closure | {f"p{j}" for name in closure for j in graph[int(name[1:])]}
        if more == closure:
            break
        closure = more
    assert set(found) == closure
    assert len(found) == len(closure)
    for again in itertools.islice(itertools.permutations(asked), 3):
        assert names(resolve(list(again), [index("\n".join(lines))], arch="amd64")) == found


def test_an_index_read_in_any_pieces() -> None:
    text = "Package: a\nVersion: 1\nFilename: f\nSize: 2\nSHA256: AB\nTag: x,\n y\nDepends: b,\n c\n\n\n\nPackage: b\nVersion: 2\nFilename: f\nSHA256: 0\nSource: src (1.5)\nProvides: v (= 1), w\n"
    data = text.encode()
    made = set()
    for size in (1, 7, 40, len(data)):
        out = io.BytesIO()
        assert write_index((data[i : i + size] for i in range(0, len(data), size)), out, "test") == 2
        made.add(out.getvalue())
    assert len(made) == 1
    found = PackageIndex(made.pop(), suite="s", component="main", arch="amd64")
    (a,), (b,) = found.named("a"), found.named("b")
    assert (a.depends, a.size, a.sha256, a.source, a.source_version) == ("b, c", 2, "ab", "a", "1")
    assert (b.source, b.source_version, b.size) == ("src", "1.5", 0)
    assert found.providers("v") == found.providers("w") == (b,)
    assert found.named("") == found.named("zzz") == found.providers("a") == ()


def test_an_empty_index() -> None:
    out = io.BytesIO()
    assert write_index([], out, "test") == 0
    found = PackageIndex(out.getvalue(), suite="s", component="main", arch="amd64")
    assert (list(found.names()), found.named("a"), found.essential()) == ([], (), ())
