"""Differences that have a reason, by case: patterns of lines, each with the fact behind it.

Where it can be read off, checked in BuildKit's source of August 2026: `frontend/dockerfile/dockerfile2llb`, `solver/llbsolver/file`,
`executor/oci` and fsutil's `copy`.
"""

from __future__ import annotations

__all__ = ["NEWER", "OURS"]

_ARG = ("^history .*ARG ", "the history of ARG has the value that counts, not the default")
_CHOWN = ("^history .*--ch(own|mod)=", "the history of COPY names --chown and --chmod")
_CHMOD = ("^root .*BuildKit (dir|file) 0o", "--chmod sets all bits, of directories made for the destination too")
_HEALTH = ("^history .*HEALTHCHECK", "the history has `{Test:[...] ...}` since Go prints a value, not a pointer")
_EXPOSE = ("^history .*EXPOSE", "the history has the ports as a list, not as a map")
_NODES = ("^(root|layer) .*", "fsutil copies devices and named pipes")
_LSTAT = ("BuildKit refuses: error from sender: lstat", "the client of 2021 stats below files for a glob in the middle")
_UNPACK = ("^root ", "--chown applies to what an archive holds")

NEWER: dict[str, tuple[tuple[str, str], ...]] = {
    **dict.fromkeys(
        [
            "copy-chown-name",
            "copy-chown-name-group",
            "copy-chown-number",
            "copy-chown-mixed",
            "copy-chown-variable",
            "copy-chown-existing-dir",
            "copy-chown-new-account",
            "copy-chown-user-ignored",
            "copy-chown-symlinks",
            "from-chown",
            "from-chown-name-of-target",
            "from-setuid-chown",
            "copy-chown-group-only",
            "copy-chown-colon-end",
        ],
        (_CHOWN,),
    ),
    **dict.fromkeys(
        [
            "copy-chmod-file",
            "copy-chmod-dir",
            "copy-chmod-special",
            "copy-chmod-chown",
            "add-chown-chmod",
            "from-chmod",
            "copy-hardlink-mode",
        ],
        (_CHOWN, _CHMOD),
    ),
    **dict.fromkeys(
        [
            "arg-global",
            "arg-global-given",
            "arg-default-and-override",
            "arg-without-default-given",
            "arg-empty-given",
            "env-then-arg-given",
            "arg-predefined-proxy-declared",
            "arg-platform-declared",
            "arg-platform-given",
            "onbuild-arg",
            "run-arg-given",
            "run-arg-platform",
        ],
        (_ARG,),
    ),
    **dict.fromkeys(
        [
            "shell-for-cmd",
            "healthcheck-shell",
            "healthcheck-exec",
            "healthcheck-none",
            "healthcheck-fractions",
            "healthcheck-on-stage",
        ],
        (_HEALTH,),
    ),
    **dict.fromkeys(
        ["expose-forms", "expose-expands", "expose-with-host-part", "stage-config-is-inherited"], (_EXPOSE,)
    ),
    **dict.fromkeys(["copy-glob-in-middle", "copy-glob-double-star", "copy-glob-symlinked-dir-in-middle"], (_LSTAT,)),
    **dict.fromkeys(["from-nodes", "copy-fifo"], (_NODES,)),
    "archive-chown": (_CHOWN, _UNPACK),
    "archive-chmod": (_CHOWN,),
    "archive-zstd": (("^(root|layer|hard links)", "zstd is known"),),
    "copy-through-symlink": (("BuildKit refuses: .* not found", "links on the way are followed"),),
    "copy-dest-dot-slash": (("^(root|layer) .*w/x", "`/.` at the end of a destination means a directory"),),
    "copy-chmod-bad": (("BuildKit builds it", "a --chmod that is no mode is refused"),),
    "healthcheck-zero": (("cannot be less than 1ms", "0 means the default"),),
    "workdir-double": (("^history .*WORKDIR", "the history has the path that counts"),),
    "ignore-all-but-deep": (("^(root|layer) ", "`!**/x` finds what is below an ignored directory"),),
    "syntax-json-then-text": (("^(config Cmd|history)", "text behind a JSON array makes it shell form"),),
    "run-user-root-groups": (("^root /tmp/id", "the user root has its supplementary groups without USER too"),),
    "odd-copy-through-own-loop": (("BuildKit refuses: .* not found", "links on the way are followed"),),
    "odd-workdir-variables": (("BuildKit refuses: .*missing ':'", "`#` and `%` trim values"),),
    "odd-arg-over-env-over-arg": (_ARG,),
    "odd-arg-names": (("^(config Env|history)", "names of ARG are not expanded"),),
    "odd-arg-many": (("^(config Labels|history)", "a name of an ARG sees those before it"),),
    "odd-case-of-everything": (_EXPOSE,),
    "odd-healthcheck-twice": (_HEALTH,),
    "run-stubs-are-gone": (("^(root|layer) ", "mount points that are still empty are removed"),),
}

_NO_USER = ("BuildKit builds it, aerogel refuses.*", "a user or group that is not there is an error, not root")
_OPAQUE = ("only .*opq'\\], aerogel only \\[\\]$", "nothing is below a file or link, so nothing needs hiding")
_TIME = ("^(layer|history)", "a directory with nothing new but its time is left out, since times are fixed")
_WHITEOUT = ("BuildKit builds it, aerogel refuses", "a name that begins with `.wh.` is a removal to whoever unpacks")

OURS: dict[str, tuple[tuple[str, str], ...]] = {
    **dict.fromkeys(["copy-chown-no-such-user", "copy-chown-no-such-group", "copy-chown-name-in-scratch"], (_NO_USER,)),
    **dict.fromkeys(
        ["run-file-to-dir", "run-link-to-dir", "archive-dir-over-file", "archive-dir-over-link"], (_OPAQUE,)
    ),
    **dict.fromkeys(["run-touch-dir-only", "run-write-same"], (_TIME,)),
    **dict.fromkeys(["copy-whiteout-name", "archive-whiteout"], (_WHITEOUT,)),
    "copy-chown-colon-end": (("^root /x", "`user:` is the user's own group, as chown(1) has it"),),
    "copy-socket": (
        ("^(root|layer) .*sock", "a socket is no file that a layer can hold; BuildKit makes an empty file"),
    ),
    "archive-leaves-with-dots": (("aerogel refuses", "an archive that leaves its folder is refused, not clamped"),),
    "archive-hardlink-first": (("aerogel builds it", "the order of hard links does not matter to an index"),),
}

_ODD_NAME = (
    "only buildah refuses: .*matched nothing",
    "a file that a glob found is taken for a glob again: `[odd].txt`",
)
_PARENT = ("^root ", "--chmod is not for directories made for the destination")

BUILDAH: dict[str, tuple[tuple[str, str], ...]] = {
    **dict.fromkeys(["copy-glob-to-slash", "copy-glob-to-linkabs", "copy-glob-to-relative"], (_ODD_NAME,)),
    **dict.fromkeys(["copy-chmod-file", "from-chmod"], (_PARENT,)),
    "copy-special-bits": (("^root /x/setuid", "set-user-id bits of files are lost"),),
    "copy-glob-double-star": (
        ("only buildah refuses", "`**` is no glob of COPY, and what matches nothing is an error"),
    ),
    "from-stage-case": (("only buildah refuses", "names of stages are told apart by case"),),
    "from-whole-over-root": (("^root /(run|etc/hostname)", "mount points of its own stay behind"),),
    "arg-predefined-proxy": (("^config Env", "proxy arguments expand outside of RUN without ARG"),),
    "arg-child-stage": (("^config Env", "a stage does not inherit the ARGs of the stage that it starts from"),),
    "stage-same-name": (("^config Env", "of two stages with one name either may count"),),
    "healthcheck-none": (("^config Healthcheck", "NONE is left out of the config, so that of the base would hold"),),
    "expose-with-host-part": (("^config ExposedPorts", "addresses and ports of the host stay"),),
    "from-bad-name": (("only aerogel refuses", "any name is one of a stage"),),
    "syntax-empty-cmd": (("^config Cmd", "an empty command is left out"),),
}
"""What Debian's buildah 1.28 does otherwise; in each of these aerogel does as BuildKit."""
BUILDAH_AT_TIMES = frozenset({"stage-same-name"})
"""Where it differs in one run and not in another: it builds stages side by side."""
