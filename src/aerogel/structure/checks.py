"""What an image says to tests of files, metadata and licences: a pure question to its tree, its config, its bytes.

Links are followed inside the image and nowhere else. Verdicts are container-structure-test's; the words are ours.
Spec: pkg/types/v2 of GoogleContainerTools/container-structure-test.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from aerogel.errors import AerogelError
from aerogel.files.entry import BLK, CHR, DIR, FIFO, REG, SYM, Entry
from aerogel.files.tree import Tree
from aerogel.oci.types import ContainerConfig
from aerogel.structure.config import CommandTest, ContentTest, ExistenceTest, LicenseTest, MetadataTest, Variable
from aerogel.structure.expand import expand
from aerogel.structure.goregex import translate

__all__ = [
    "MAX_CONTENT",
    "Subject",
    "check_content",
    "check_existence",
    "check_licenses",
    "check_metadata",
    "check_output",
    "environment",
    "excerpt",
    "mode_text",
    "wanted_paths",
]

MAX_CONTENT = 256 << 20
"""Bytes of a file whose content is asked for."""

_DOC = b"usr/share/doc"
_LICENSED = ("libgnutls30",)
"""What container-structure-test lets pass."""
_REFUSED = ("AGPL", "WTFPL")
_SHOWN_LINES = 20
_KINDS = {DIR: "d", SYM: "L", FIFO: "p", BLK: "D", CHR: "Dc"}
_BITS = {"owner": 0o100, "group": 0o010, "other": 0o001, "any": 0o111}


class Subject:
    """An image to be asked. `contents` has the bytes of those of `wanted_paths` that are regular files."""

    def __init__(self, tree: Tree, config: ContainerConfig, contents: Mapping[bytes, bytes | None]) -> None:
        self.tree = tree
        self.config = config
        self._contents = contents

    def read(self, path: str) -> bytes | str:
        """The content of a file, or why there is none."""
        place = _place(self.tree, path, follow=True)
        if isinstance(place, str):
            return place
        entry = self.tree.lookup(place)
        if entry is None:
            return f"`{path}` is not in the image"
        if entry.kind != REG:
            return f"`{path}` is {'a directory' if entry.kind == DIR else 'no file'}"
        found = self._contents.get(place)
        return f"`{path}` is larger than {MAX_CONTENT >> 20} MiB" if found is None else found


def environment(config: ContainerConfig) -> dict[str, str]:
    """The image's own variables."""
    return dict(pair.partition("=")[::2] for pair in config.env)


def _place(tree: Tree, path: str, *, follow: bool) -> bytes | str:
    raw = path.encode("utf-8", "surrogateescape").strip(b"/")
    try:
        return tree.resolve(b"/".join(part for part in raw.split(b"/") if part != b"."), follow_last=follow)
    except AerogelError as error:
        return error.message


def wanted_paths(
    contents: Sequence[ContentTest], licenses: Sequence[LicenseTest], tree: Tree
) -> Iterator[tuple[bytes, int]]:
    """The regular files whose content tests will ask for, with their sizes."""
    paths = [test.path for test in contents]
    for test in licenses:
        paths += test.files
        if test.debian:
            paths += [f"/{place.decode('utf-8', 'surrogateescape')}/copyright" for place in _packages(tree)]
    for path in paths:
        place = _place(tree, path, follow=True)
        entry = None if isinstance(place, str) else tree.lookup(place)
        if entry is not None and entry.kind == REG and isinstance(place, bytes):
            yield place, entry.size


def _packages(tree: Tree) -> Iterator[bytes]:
    root = tree.resolve(_DOC)
    for name in tree.children(root):
        entry = tree.lookup(root + b"/" + name)
        if entry is not None and entry.kind == DIR and name.decode("utf-8", "surrogateescape") not in _LICENSED:
            yield root + b"/" + name


def mode_text(entry: Entry) -> str:
    """The mode as Go's fs.FileMode shows it."""
    letters = _KINDS.get(entry.kind, "")
    mode = 0o777 if entry.kind == SYM else entry.mode
    # Go's order: d a l T L D p S u g c t.
    sign = letters.replace("c", "")
    sign += "u" * bool(mode & 0o4000) + "g" * bool(mode & 0o2000) + "c" * ("c" in letters) + "t" * bool(mode & 0o1000)
    return (sign or "-") + "".join(
        letter if mode >> shift & 1 else "-" for shift, letter in zip(range(8, -1, -1), "rwxrwxrwx", strict=True)
    )


def check_existence(test: ExistenceTest, subject: Subject) -> list[str]:
    """What is wrong; nothing when the test passes."""
    path = expand(test.path, environment(subject.config))
    place = _place(subject.tree, path, follow=False)
    entry = None if isinstance(place, str) else subject.tree.lookup(place)
    if not test.should_exist:
        return [f"`{path}` is in the image, and should not be"] if entry is not None else []
    if entry is None:
        return [f"`{path}` is not in the image{_near(subject.tree, place)}"]
    faults = []
    mode = mode_text(entry)
    if test.permissions and mode != test.permissions:
        faults.append(_difference(f"permissions of `{path}`", test.permissions, mode))
    if test.is_executable_by and not (0o777 if entry.kind == SYM else entry.mode) & _BITS[test.is_executable_by]:
        faults.append(f"`{path}` is not executable by {test.is_executable_by}: it is {mode}")
    if test.uid not in (-1, entry.uid):
        faults.append(_difference(f"owner of `{path}`", str(test.uid), str(entry.uid)))
    if test.gid not in (-1, entry.gid):
        faults.append(_difference(f"group of `{path}`", str(test.gid), str(entry.gid)))
    return faults


def _near(tree: Tree, place: bytes | str) -> str:
    """The nearest thing that is there."""
    if isinstance(place, str):
        return f": {place}"
    parent = place.rpartition(b"/")[0]
    while parent and tree.lookup(parent) is None:
        parent = parent.rpartition(b"/")[0]
    names = [name.decode("utf-8", "replace") for name in tree.children(parent)]
    shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
    return f"; `/{parent.decode('utf-8', 'replace')}` has {shown or 'nothing'}"


def _difference(what: str, expected: str, actual: str) -> str:
    return f"{what}\n- {expected}\n+ {actual}"


def check_content(test: ContentTest, subject: Subject) -> list[str]:
    """What is wrong; nothing when the test passes."""
    found = subject.read(test.path)
    if isinstance(found, str):
        return [found]
    return list(_matches(found.decode("utf-8", "replace"), test.expected, test.excluded, f"`{test.path}`"))


def _matches(text: str, expected: Sequence[str], excluded: Sequence[str], what: str) -> Iterator[str]:
    for pattern in expected:
        if translate(pattern).search(text) is None:
            yield f"{what} has nothing that matches\n- {pattern}\n{excerpt(text)}"
    for pattern in excluded:
        hit = translate(pattern).search(text)
        if hit is not None:
            line = text.count("\n", 0, hit.start()) + 1
            yield f"{what} has what it should not, in line {line}\n- not: {pattern}\n{excerpt(_line_of(text, hit.start()))}"


def _line_of(text: str, at: int) -> str:
    end = text.find("\n", at)
    return text[text.rfind("\n", 0, at) + 1 : end if end >= 0 else len(text)]


def excerpt(text: str) -> str:
    """The first lines of a text, each behind a `+`."""
    lines = text.splitlines()
    shown = [f"+ {line[:200]}{'...' if len(line) > 200 else ''}" for line in lines[:_SHOWN_LINES]]
    if len(lines) > _SHOWN_LINES:
        shown.append(f"  ... and {len(lines) - _SHOWN_LINES} more lines")
    return "\n".join(shown) or "+ (nothing)"


def check_output(test: CommandTest, stdout: str, stderr: str, code: int) -> list[str]:
    """What is wrong with how a command went; nothing when the test passes."""
    faults = list(_matches(stderr, test.expected_error, test.excluded_error, "standard error"))
    faults += _matches(stdout, test.expected_output, test.excluded_output, "standard output")
    if code != test.exit_code:
        told = "" if faults else f"\n{excerpt(stderr or stdout)}"
        faults.append(_difference("exit status", str(test.exit_code), str(code)) + told)
    return faults


def check_licenses(test: LicenseTest, subject: Subject) -> list[str]:
    """What is wrong; nothing when the test passes."""
    faults = []
    if test.debian:
        if subject.tree.lookup(subject.tree.resolve(_DOC)) is None:
            return [f"`/{_DOC.decode()}` is not in the image"]
        for place in _packages(subject.tree):
            faults += _license_faults(f"/{place.decode('utf-8', 'surrogateescape')}/copyright", subject)
    for path in test.files:
        faults += _license_faults(path, subject)
    return faults


def _license_faults(path: str, subject: Subject) -> list[str]:
    found = subject.read(path)
    if isinstance(found, str):
        return [found]
    text = found.decode("utf-8", "replace").upper()
    return [f"`{path}` names the licence {word}" for word in _REFUSED if word in text][:1]


def check_metadata(test: MetadataTest, config: ContainerConfig) -> list[str]:
    """What is wrong; nothing when the test passes."""
    env = environment(config)
    faults = [*_pairs("variable", test.env, env), *_pairs("label", test.labels, config.labels)]
    faults += [f"variable `{key}` is set to `{env[key]}`, and should not be" for key in test.unbound_env if key in env]
    for what, expected, actual in (("entrypoint", test.entrypoint, config.entrypoint), ("cmd", test.cmd, config.cmd)):
        if expected is not None and expected != tuple(actual):
            faults.append(_difference(what, _words(expected), _words(actual)))
    for what, wanted, found in (("workdir", test.workdir, config.working_dir), ("user", test.user, config.user)):
        if wanted and wanted != found:
            faults.append(_difference(what, wanted, found or "(not set)"))
    ports = [port.partition("/")[0] for port in config.exposed_ports]
    for what, all_wanted, all_unwanted, there in (
        ("port", test.exposed_ports, test.unexposed_ports, ports),
        ("volume", test.volumes, test.unmounted_volumes, list(config.volumes)),
    ):
        for each in all_wanted:
            if each not in there:
                hint = "; write the port without its protocol" if "/" in each and what == "port" else ""
                shown = ", ".join(f"`{one}`" for one in there) or "none"
                faults.append(f"{what} `{each}` is not in the config, which has {shown}{hint}")
        faults += [f"{what} `{each}` is in the config, and should not be" for each in all_unwanted if each in there]
    return faults


def _words(words: Sequence[str]) -> str:
    return "[" + ", ".join(f'"{word}"' for word in words) + "]"


def _pairs(what: str, wanted: Sequence[Variable], there: Mapping[str, str]) -> Iterator[str]:
    for pair in wanted:
        actual = there.get(pair.key)
        if actual is None:
            yield f"{what} `{pair.key}` is not set"
        elif translate(pair.value).search(actual) is None if pair.is_regex else pair.value != actual:
            yield _difference(f"{what} `{pair.key}`", pair.value, actual)
