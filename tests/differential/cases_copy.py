"""COPY and ADD of files: sources, destinations, owners, modes, and what lies in the way."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from itertools import product
from pathlib import Path

from cases import Case, Context, Dir, File, Hard, Link

__all__ = ["CASES", "TREE"]


def _xattr(name: str, value: bytes) -> object:
    def make(path: Path) -> None:
        path.write_text("with attributes\n")
        path.chmod(0o755)
        os.setxattr(path, name, value)

    return make


def _socket(path: Path) -> None:
    old = Path.cwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path.name)
    finally:
        os.chdir(old)


def _fifo(path: Path) -> None:
    os.mkfifo(path, 0o640)
    path.chmod(0o640)


def _owned(path: Path) -> None:
    path.write_text("owned\n")
    path.chmod(0o600)
    os.chown(path, 1234, 4321)


TREE: Context = {
    "a.txt": "alpha\n",
    "b.txt": File("beta\n", 0o600),
    "run.sh": File("#!/bin/sh\n", 0o755),
    "setuid": File("suid\n", 0o6711),
    "empty": "",
    "with space": "blank\n",
    "[odd].txt": "odd\n",
    "ünïcode": "utf-8\n",
    "d": Dir(0o750),
    "d/one": "one\n",
    "d/two.txt": File("two\n", 0o444),
    "d/sub": Dir(0o1777),
    "d/sub/three": "three\n",
    "d/void": Dir(0o700),
    "d/inner": Link("one"),
    "d/above": Link("../a.txt"),
    "d/broken": Link("nowhere"),
    "e/one": "the other one\n",
    "e/file.md": "# e\n",
    "tofile": Link("a.txt"),
    "todir": Link("d"),
    "tolink": Link("tofile"),
    "absolute": Link("/e/one"),
    "outside": Link("../../../etc/passwd"),
    "loop": Link("loop"),
    "owned": _owned,
    "hard/first": "hard\n",
    "hard/second": Hard("hard/first"),
    "hard/sub/third": Hard("hard/first"),
    "hard/other": "hard\n",
}

_SOURCES = {
    "file": "a.txt",
    "dir": "d",
    "dirslash": "d/",
    "filelink": "tofile",
    "dirlink": "todir",
    "glob": "*.txt",
}
_DESTS = {
    "missing": "/new/place",
    "slash": "/new/place/",
    "file": "/data/file",
    "dir": "/data/sub",
    "dirslash": "/data/sub/",
    "linkdir": "/todir",
    "linkdirslash": "/todir/",
    "linkabs": "/absolute",
    "linkfile": "/tofile",
    "dangling": "/dangling",
    "danglingslash": "/dangling/",
    "below": "/todir/up/x/y",
    "root": "/",
    "relative": "rel/./x/../y",
    "dot": ".",
}

# What behaves as another source in most places.
_SAME_AS_ANOTHER = ("filelink", "dirslash")

# What a directory or several files meet that is no directory.
_REFUSED = {
    ("dir", "file"),
    ("dirslash", "file"),
    ("dirlink", "file"),
    ("dir", "linkfile"),
    ("dirslash", "linkfile"),
    ("dirlink", "linkfile"),
}


def _matrix() -> Iterator[Case]:
    for (source, path), (dest, place) in product(_SOURCES.items(), _DESTS.items()):
        if source in _SAME_AS_ANOTHER and dest not in ("missing", "slash", "dir", "file"):
            continue
        yield Case(
            f"copy-{source}-to-{dest}",
            f"FROM differential\nWORKDIR /real\nCOPY {path} {place}\n",
            TREE,
            fails=(source, dest) in _REFUSED,
        )


def _lines(name: str, *lines: str, base: str = "differential", fails: bool = False, **more: object) -> Case:
    text = "\n".join([f"FROM {base}", *lines, ""])
    return Case(name, text, TREE, fails=fails, **more)  # type: ignore[arg-type]  # the fields of Case


CASES = [
    *_matrix(),
    _lines("copy-into-scratch", "COPY a.txt /x/y/z", "COPY d /q", base="scratch"),
    _lines("copy-all", "COPY . /ctx"),
    _lines("copy-all-over-root", "COPY . /", base="scratch"),
    _lines("copy-slash-is-the-context", "COPY / /ctx/"),
    _lines("copy-parent-is-clamped", "COPY ../../a.txt /x", "COPY ../d /y", "COPY /../b.txt /z"),
    _lines("copy-many-into-slash", "COPY a.txt b.txt d /many/"),
    _lines("copy-many-without-slash", "COPY a.txt b.txt /data"),
    _lines("copy-two-dirs-merge", "COPY d e /merged/"),
    _lines("copy-same-file-twice", "COPY a.txt a.txt /x/"),
    _lines("copy-json", 'COPY ["with space", "a.txt", "/to dir/"]'),
    _lines("copy-json-one", 'COPY ["with space", "/to dir/other name"]'),
    _lines("copy-quoted", 'COPY "with space" /x/', fails=True),
    _lines("copy-escaped-bracket", "COPY [[]odd].txt /x/"),
    _lines("copy-unicode-name", "COPY ünïcode /ziel/ä"),
    _lines("copy-empty-file", "COPY empty /x"),
    _lines("copy-empty-dir", "COPY d/void /x/void"),
    _lines("copy-special-bits", "COPY setuid /x/", "COPY d/sub /y"),
    _lines("copy-owner-of-context-is-lost", "COPY owned /x"),
    _lines("copy-symlink-to-symlink", "COPY tolink /x"),
    _lines("copy-symlink-absolute", "COPY absolute /x"),
    _lines("copy-symlink-outside", "COPY outside /x", fails=True),
    _lines("copy-symlink-loop", "COPY loop /x", fails=True),
    _lines("copy-symlink-broken", "COPY d/broken /x", fails=True),
    _lines("copy-through-symlink", "COPY todir/two.txt /x/", "COPY todir/sub /y"),
    _lines("copy-nested-symlinks-stay", "COPY d/ /x/"),
    _lines("copy-symlink-into-slash-has-link-name", "COPY tofile todir /x/"),
    _lines("copy-symlink-by-glob", "COPY to* /x/"),
    _lines("copy-missing", "COPY nothing /x", fails=True),
    _lines("copy-missing-of-two", "COPY a.txt nothing /x/", fails=True),
    _lines("copy-glob-question", "COPY ?.txt /x/"),
    _lines("copy-glob-class", "COPY [ab].txt /x/"),
    _lines("copy-glob-class-negated", "COPY [^a].txt /x/"),
    _lines("copy-glob-range", "COPY [a-c].* /x/"),
    _lines("copy-glob-in-middle", "COPY */one /x/"),
    _lines("copy-glob-dirs", "COPY [de] /x/"),
    _lines("copy-glob-everything", "COPY [a-ce]* [[]* /x/"),
    _lines("copy-glob-below", "COPY d/[^b]* /x/"),
    _lines("copy-glob-dirs-slash", "COPY [deh]*/ /x/"),
    _lines("copy-glob-one-match-no-slash", "COPY a.t* /x"),
    _lines("copy-glob-no-match", "COPY a.txt zz* /x/"),
    _lines("copy-glob-double-star", "COPY **/three /x/"),
    _lines("copy-glob-symlinked-dir-in-middle", "COPY t*/one /x/"),
    _lines("copy-file-over-dir", "COPY a.txt /data/sub/deep", "COPY a.txt /data/sub"),
    _lines("copy-file-onto-dir-in-tree", "RUN mkdir -p /x/one", "COPY d /x", fails=True),
    _lines("copy-dir-onto-file-in-tree", "RUN mkdir /x; touch /x/sub", "COPY d /x", fails=True),
    _lines("copy-below-a-file", "COPY a.txt /data/file/x", fails=True),
    _lines("copy-below-a-file-slash", "COPY a.txt /data/file/", fails=True),
    _lines("copy-over-symlink-in-tree", "RUN mkdir /x; ln -s /data/file /x/one", "COPY d /x"),
    _lines("copy-dir-over-symlink-in-tree", "RUN mkdir /x; ln -s /data /x/sub", "COPY d /x", fails=True),
    _lines("copy-symlink-over-file", "RUN mkdir /x; echo 1 >/x/inner; echo 2 >/x/one", "COPY d /x"),
    _lines("copy-symlink-over-dir", "RUN mkdir -p /x/inner/y", "COPY d /x", fails=True),
    _lines("copy-over-hardlink", "COPY a.txt /data/sub/hard"),
    _lines("copy-over-setuid", "COPY a.txt /data/sub/one"),
    _lines("copy-dir-mode-onto-existing", "RUN mkdir -m 700 /x; chown 5:6 /x; mkdir -m 711 /x/sub", "COPY d /x"),
    _lines("copy-dir-mode-new", "COPY d /p/q"),
    _lines("copy-twice-same", "COPY d /x", "COPY d /x"),
    _lines("copy-over-copy", "COPY a.txt /x", "COPY b.txt /x", "COPY run.sh /x"),
    _lines("copy-hardlinks", "COPY hard /x"),
    _lines("copy-hardlinks-by-two-words", "COPY hard/first hard/second /x/"),
    _lines("copy-hardlinks-across-copies", "COPY hard/first /x/", "COPY hard/second /x/"),
    _lines("copy-existing-parents-untouched", "COPY a.txt /data/sub/deep/x", "COPY a.txt /tmp/x"),
    _lines("copy-dest-dotdot", "WORKDIR /a/b", "COPY a.txt ../c/", "COPY a.txt ../../../../d"),
    _lines("copy-dest-double-slash", "COPY a.txt //x//y//"),
    _lines("copy-dest-dot-slash", "WORKDIR /w", "COPY a.txt ./", "COPY b.txt ./x/.", "COPY run.sh x/.."),
    _lines("copy-dest-variable", "ENV to=/x/y", "ARG what=a", "COPY ${what}.txt $to/", "COPY $what.txt ${to}2"),
    _lines("copy-dest-variable-empty", "COPY a.txt /x$nothing", "COPY $none/b.txt /y"),
    _lines("copy-dest-through-out-link", "COPY a.txt /out/x", "COPY a.txt /real/up/y"),
    _lines("copy-chown-name", "COPY --chown=app d /x/y"),
    _lines("copy-chown-name-group", "COPY --chown=app:staff a.txt /x/y/"),
    _lines("copy-chown-number", "COPY --chown=77 a.txt /n/1", "COPY --chown=77:88 d /n/2"),
    _lines("copy-chown-mixed", "COPY --chown=app:7 a.txt /n/1", "COPY --chown=7:staff d /n/2"),
    _lines("copy-chown-variable", "ARG who=app", "ENV grp=staff", "COPY --chown=$who:${grp} a.txt /x"),
    _lines("copy-chown-empty-variable", "COPY --chown=$who a.txt /x"),
    _lines("copy-chown-existing-dir", "COPY --chown=33:33 d /data/sub"),
    _lines("copy-chown-no-such-user", "COPY --chown=nobody a.txt /x", fails=True),
    _lines("copy-chown-no-such-group", "COPY --chown=app:none a.txt /x", fails=True),
    _lines("copy-chown-name-in-scratch", "COPY --chown=root a.txt /x", base="scratch", fails=True),
    _lines("copy-chown-new-account", "RUN echo me:x:55:66::/:/ >>/etc/passwd", "COPY --chown=me a.txt /x"),
    _lines("copy-chown-group-only", "COPY --chown=:staff a.txt /x"),
    _lines("copy-chown-colon-end", "COPY --chown=app: a.txt /x"),
    _lines("copy-chown-user-ignored", "USER app", "COPY a.txt /x", "COPY --chown=33 a.txt /y"),
    _lines("copy-chown-symlinks", "COPY --chown=5:6 d /x"),
    _lines("copy-chmod-file", "COPY --chmod=711 a.txt /x", "COPY --chmod=0640 a.txt /y/z"),
    _lines("copy-chmod-dir", "COPY --chmod=750 d /x/y"),
    _lines("copy-chmod-special", "COPY --chmod=4755 a.txt /x", "COPY --chmod=1777 d /y"),
    _lines("copy-chmod-chown", "COPY --chmod=600 --chown=app d /x/y/z"),
    _lines("copy-chmod-bad", "COPY --chmod=99 a.txt /x", fails=True),
    _lines("copy-flag-unknown", "COPY --form=x a.txt /x", fails=True),
    _lines("copy-no-destination", "COPY a.txt", fails=True),
    _lines("add-file", "ADD a.txt /x", "ADD d /y/", "ADD *.txt /z/"),
    _lines("add-chown-chmod", "ADD --chown=app:staff --chmod=640 a.txt d /x/"),
    _lines("add-not-an-archive", "ADD empty run.sh /x/"),
]

_FROM = "FROM differential AS one\nRUN chown -R 33:50 /data/sub/deep; ln -s sub /data/alias; touch -h /data\n"


def _from(name: str, *lines: str, first: str = _FROM, fails: bool = False) -> Case:
    return Case(name, "\n".join([first + "FROM differential", *lines, ""]), TREE, fails=fails)


CASES += [
    _from("from-stage-name", "COPY --from=one /data /x"),
    _from("from-stage-number", "COPY --from=0 /data/sub /x"),
    _from("from-stage-case", "COPY --from=ONE /data/file /x"),
    _from("from-image", "COPY --from=differential /data /x", first=""),
    _from("from-image-with-tag", "COPY --from=differential:latest data/file x", first=""),
    _from("from-file-owner-kept", "COPY --from=one /data/file /data/sub/two /x/"),
    _from("from-chown", "COPY --from=one --chown=5:6 /data /x"),
    _from("from-chown-name-of-target", "RUN echo me:x:5:6::/: >>/etc/passwd", "COPY --from=one --chown=me /data /x"),
    _from("from-chmod", "COPY --from=one --chmod=700 /data /x"),
    _from("from-symlink", "COPY --from=one /tofile /x", "COPY --from=one /todir /y"),
    _from("from-symlink-alias", "COPY --from=one /data/alias /x", "COPY --from=one /data/alias/two /y"),
    _from("from-symlink-absolute", "COPY --from=one /absolute/ /x"),
    _from("from-dangling", "COPY --from=one /dangling /x", fails=True),
    _from("from-hardlinks", "COPY --from=one /data/sub /x"),
    _from("from-hardlink-one-of-two", "COPY --from=one /data/sub/hard /x"),
    _from("from-setuid", "COPY --from=one /data/sub/one /x"),
    _from("from-setuid-chown", "COPY --from=one --chown=9 /data/sub/one /x"),
    _from("from-glob", "COPY --from=one /data/sub/t* /bin/e* /x/"),
    _from("from-root", "COPY --from=one / /all", first="FROM scratch AS one\nCOPY d /\nCOPY a.txt /q/\n"),
    _from("from-over-existing", "COPY --from=one /data/ /data/"),
    _from("from-whole-over-root", "COPY --from=one / /"),
    _from("from-missing", "COPY --from=one /nothing /x", fails=True),
    _from(
        "from-later-changes",
        "COPY --from=one /f /x",
        first="FROM differential AS one\nRUN echo 1 >/f\nRUN rm /f\n",
        fails=True,
    ),
    _from("from-relative", "COPY --from=one data/file data/sub/../sub/one x/"),
    _from("from-unknown-stage-number", "COPY --from=7 /x /x", fails=True),
    _from(
        "from-nodes",
        "COPY --from=one /n /n",
        first="FROM differential AS one\nRUN mkdir /n; mkfifo -m 640 /n/p; mknod /n/null c 1 3; mknod /n/loop b 7 0\n",
    ),
    Case(
        "from-chain",
        "FROM scratch AS a\nCOPY a.txt /1\nFROM a AS b\nCOPY b.txt /2\nFROM scratch\nCOPY --from=b / /x/\nCOPY --from=a /1 /y\n",
        TREE,
    ),
    Case("copy-hardlink-mode", "FROM scratch\nCOPY --chmod=600 hard /x\n", TREE),
    Case(
        "copy-not-utf8",
        "FROM differential\nCOPY d /x\n",
        {"d/" + os.fsdecode(b"l\xe4tin"): "latin\n", "d/tab\tname": "t\n", "d/new\nline": "n\n"},
    ),
    Case("copy-long-name", "FROM scratch\nCOPY d /x\n", {"d/" + "n" * 200 + "/" + "m" * 250: "long\n"}),
    Case("copy-blank-names", "FROM scratch\nCOPY d /x\n", {"d/ lead": "1\n", "d/trail ": "2\n", "d/ ": "3\n"}),
    Case("copy-whiteout-name", "FROM scratch\nCOPY d /x\n", {"d/.wh.name": "1\n", "d/.dot": "2\n"}),
    Case("copy-fifo", "FROM scratch\nCOPY d /x\n", {"d/pipe": _fifo, "d/one": "1\n"}),
    Case("copy-socket", "FROM scratch\nCOPY d /x\n", {"d/sock": _socket, "d/one": "1\n"}),
    Case(
        "copy-xattrs",
        "FROM scratch\nCOPY d /x\n",
        {
            "d/user": _xattr("user.note", b"hello"),  # type: ignore[dict-item]
            "d/capability": _xattr("security.capability", bytes.fromhex("0100000200040000000000000000000000000000")),  # type: ignore[dict-item]
        },
    ),
    Case("copy-many-files", "FROM scratch\nCOPY . /x\n", {f"f{n:03}": f"{n}\n" for n in range(300)}),
    Case("copy-big-file", "FROM scratch\nCOPY . /x\n", {"big": File(b"\0\1\2\3" * 700_000)}),
]
