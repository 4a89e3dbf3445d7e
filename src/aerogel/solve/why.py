"""Why a step ran again: the first input that differs from the last build, found by comparing two records.

Pure but for what `Lookup` reads. A cause has causes of its own: a step ran because the result of another changed, which
changed because a file did. What is compared of a step: its operation, what it takes from outside the graph (files by
list), and the results of the steps that it works on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from difflib import SequenceMatcher
from typing import Any, NamedTuple

import msgspec

from aerogel.store.builds import Row

__all__ = ["Cause", "Lookup", "Record", "explain", "pairs"]

Record = dict[str, Any]

_MAX_FILES = 200
_KINDS = {0x30: "file", 0x32: "link", 0x33: "device", 0x34: "device", 0x35: "folder", 0x36: "fifo"}
_FIELDS = {
    "argv": "command",
    "cwd": "working directory",
    "user": "user",
    "network": "network",
    "security": "security",
    "hostname": "host name",
    "hosts": "hosts",
    "inline": "heredoc",
    "sources": "sources",
    "dest": "destination",
    "chown": "owner (--chown)",
    "chmod": "mode (--chmod)",
    "link": "--link",
    "parents": "--parents",
    "exclude": "--exclude",
    "unpack": "--unpack",
    "keep_owner": "where it copies from",
    "path": "path",
}


class Cause(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One reason, with what led to it.

    `kind` is one of `first`, `new`, `no-cache`, `gone`, `unfinished`, `removed`, `same`, `skipped`, `instruction`,
    `variable`, `mount`, `platform`, `time`, `base`, `image`, `file`, `url`, `git`, `step`, `unknown`.
    """

    kind: str
    text: str
    path: str = ""
    old: str = ""
    new: str = ""
    step: int = 0
    status: str = ""
    causes: tuple[Cause, ...] = ()


class Lookup(NamedTuple):
    """How records are completed: lists of files by digest, facts of kept results by key; None when not kept.

    `is_there` says whether a file lies in the build context now, ignored or not.
    """

    selection: Callable[[str], dict[bytes, Row] | None]
    facts: Callable[[str], Record | None]
    is_there: Callable[[str], bool] = lambda _: False


def pairs(new: Record, old: Record) -> dict[int, int]:
    """Which step of the old build is the same as one of the new: positions in their lists of steps."""
    found: dict[int, int] = {}
    stages = {step["stage"] for step in new["steps"]}
    for stage in stages:
        ours = [at for at, step in enumerate(new["steps"]) if step["stage"] == stage]
        theirs = [at for at, step in enumerate(old["steps"]) if step["stage"] == stage]
        a = [old["steps"][at]["title"] for at in theirs]
        b = [new["steps"][at]["title"] for at in ours]
        for tag, i1, i2, j1, j2 in SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
            if tag == "equal":
                found.update(zip(ours[j1:j2], theirs[i1:i2], strict=True))
            elif tag == "replace":
                rest = theirs[i1:i2]
                for at in ours[j1:j2]:
                    kind = new["steps"][at]["op"]["type"]
                    match = next((each for each in rest if old["steps"][each]["op"]["type"] == kind), None)
                    if match is not None:
                        found[at] = match
                        rest = rest[rest.index(match) + 1 :]
    return found


def explain(new: Record, old: Record | None, at: int, lookup: Lookup) -> tuple[Cause, ...]:
    """Why step `at` of a build got its status, compared with an older build (None: there is none)."""
    return _Explaining(new, old, lookup).step(at)


class _Explaining:
    def __init__(self, new: Record, old: Record | None, lookup: Lookup) -> None:
        self.new = new
        self.old = old
        self.lookup = lookup
        self.pairs = pairs(new, old) if old is not None else {}
        self.ours = _by_node(new)
        self.theirs = _by_node(old) if old is not None else {}

    def step(self, at: int) -> tuple[Cause, ...]:
        step = self.new["steps"][at]
        if step["status"] == "CACHED":
            return (Cause(kind="same", text="nothing that it depends on has changed"),)
        if step["status"] == "SKIPPED":
            return (Cause(kind="skipped", text="a later result was known, so nothing asked for this one"),)
        if step.get("note") == "no-cache":
            return (Cause(kind="no-cache", text="`--no-cache` or `--no-cache-filter` asked for it"),)
        if self.old is None:
            return (Cause(kind="first", text="no earlier build of this Dockerfile, context and target is known"),)
        differences = tuple(self.differences(at))
        if differences:
            return differences
        return (self.unexplained(step, at),)

    def unexplained(self, step: Record, at: int) -> Cause:
        """Nothing differs: then the result was not there."""
        match = self.pairs.get(at)
        before = self.old["steps"][match] if self.old is not None and match is not None else {}
        if step.get("note") == "gone":
            return Cause(kind="gone", text="its kept layer is not in the store any more, or not for this isolation")
        if before.get("status") in ("FAILED", "CANCELED", ""):
            return Cause(kind="unfinished", text="it was not finished in the last build, so no result was kept")
        if step["status"] == "REUSED":
            return Cause(kind="same", text="what it reads has not changed")
        return Cause(kind="removed", text="nothing differs: its result was removed from the store (`aerogel prune`)")

    def differences(self, at: int) -> Iterator[Cause]:
        """What differs, the nearest first: the instruction, what it takes, the steps that it works on."""
        step = self.new["steps"][at]
        match = self.pairs.get(at)
        if self.old is None or match is None:
            yield Cause(kind="new", text="the instruction is new", new=step["title"])
            return
        before = self.old["steps"][match]
        if step["op"]["type"] == "base":
            if step["op"] != before["op"]:
                yield _base(step["title"], before["op"], step["op"])
            return
        if step["key"] and step["key"] == before["key"]:
            return
        yield from _operations(step, before)
        if step["platform"] != before["platform"]:
            yield Cause(kind="platform", text="the platform changed", old=before["platform"], new=step["platform"])
        if self.new.get("times") != self.old.get("times"):
            old, new = str(self.old.get("times")), str(self.new.get("times"))
            yield Cause(kind="time", text="the times that files get changed (SOURCE_DATE_EPOCH)", old=old, new=new)
        yield from self._taken(step, before)
        is_command = step["op"]["type"] == "run"
        found = False
        for number, digest in [*enumerate(step["inputs"])][0 if is_command else 1 :]:
            for cause in self._input(step, before, number, digest):
                found = True
                yield cause
        # A copy looks at little of its root: that is named when nothing nearer is.
        if not is_command and not found and step["inputs"]:
            yield from self._input(step, before, 0, step["inputs"][0])

    def _taken(self, step: Record, before: Record) -> Iterator[Cause]:
        known = {number: (kind, digest) for number, kind, digest in before["taken"]}
        for number, kind, digest in step["taken"]:
            old_kind, old = known.get(number, ("", ""))
            if old == digest or kind != old_kind:
                continue
            if kind == "context":
                for cause in self._files(old, digest, "files of the context changed"):
                    is_ignored = cause.text.endswith(" is gone") and self.lookup.is_there(cause.path)
                    told = f"`{cause.path}` is not taken any more, though it is there (is it ignored now?)"
                    yield msgspec.structs.replace(cause, text=told) if is_ignored else cause
                continue
            source = step["sources"].get(step["inputs"][number], {}) if number < len(step["inputs"]) else {}
            name = source.get("url") or source.get("remote") or "it"
            what = "the content of" if kind == "http" else "the commit of"
            yield Cause(kind="url" if kind == "http" else "git", text=f"{what} `{name}` changed", old=old, new=digest)

    def _files(self, old: str, new: str, otherwise: str) -> Iterator[Cause]:
        """The files that differ between two lists."""
        before, after = self.lookup.selection(old), self.lookup.selection(new)
        if before is None or after is None:
            yield Cause(kind="file", text=f"{otherwise} (the list of the files is not kept any more)", old=old, new=new)
            return
        found = [path for path in sorted(before.keys() | after.keys()) if before.get(path) != after.get(path)]
        for path in found[:_MAX_FILES]:
            yield _file(path, before.get(path), after.get(path))
        if not found:
            yield Cause(kind="file", text=otherwise, old=old, new=new)
        if len(found) > _MAX_FILES:
            yield Cause(kind="file", text=f"and {len(found) - _MAX_FILES} more files")

    def _input(self, step: Record, before: Record, number: int, digest: str) -> Iterator[Cause]:
        if number >= len(before["inputs"]):
            return
        old_digest = before["inputs"][number]
        ours, theirs = self.ours.get(digest), self.theirs.get(old_digest)
        if ours is None or theirs is None:
            now, then = step["sources"].get(digest, {}), before["sources"].get(old_digest, {})
            if now.get("type") == "base" and then.get("type") == "base" and now != then:
                yield _base("the image that it reads", then, now)
            return
        child = self.new["steps"][ours]
        if self._same_result(child, self.old["steps"][theirs] if self.old is not None else {}):
            return
        causes = tuple(self.differences(ours)) or (self._ran_again(child),)
        selected = tuple(self._selected(step, before, number))
        if selected == () and number > 0 and step["status"] == "RAN" and self._is_known(step, before):
            return
        verb = "is the same on other layers" if child["status"] == "REUSED" else "gives another result"
        text = f"`{child['title']}` {verb if child['number'] else 'is another image'}"
        yield Cause(
            kind="step",
            text=text,
            step=child["number"],
            status=child["status"],
            causes=(*selected, *causes),
        )

    @staticmethod
    def _same_result(child: Record, before: Record) -> bool:
        if child["key"] and child["key"] == before.get("key") and child.get("note") != "no-cache":
            return True
        return bool(child.get("layers")) and child.get("layers") == before.get("layers")

    def _ran_again(self, child: Record) -> Cause:
        if child.get("note") == "no-cache":
            return Cause(kind="no-cache", text="it ran again for `--no-cache` and gave something else")
        if child["status"] == "RAN":
            return Cause(kind="unknown", text="it ran again with the same inputs and gave something else")
        return Cause(kind="unknown", text="nothing of it differs in the records")

    def _is_known(self, step: Record, before: Record) -> bool:
        return all(self._facts(each).get("copied") for each in (step, before))

    def _selected(self, step: Record, before: Record, number: int) -> Iterator[Cause]:
        """Of what is read of another stage, the files that differ."""
        now, then = self._facts(step), self._facts(before)
        if number == 0:
            return
        if step["op"]["type"] == "copy" and now.get("copied") and then.get("copied"):
            if now["copied"] != then["copied"]:
                yield from self._files(then["copied"], now["copied"], "what it copies changed")
            return
        new, old = (facts.get("shown", [])[number : number + 1] for facts in (now, then))
        for left, right in zip(*old, *new, strict=False) if old and new else ():
            if left != right:
                yield from self._files(left, right, "what the mount shows changed")

    def _facts(self, step: Record) -> Record:
        return (self.lookup.facts(step["key"]) if step["key"] else None) or {}


def _by_node(record: Record) -> dict[str, int]:
    found: dict[str, int] = {}
    for at, step in enumerate(record["steps"]):
        found.setdefault(step["node"], at)
    return found


def _base(title: str, old: Record, new: Record) -> Cause:
    then, now = (each["diff_ids"][-1] if each["diff_ids"] else "scratch" for each in (old, new))
    return Cause(kind="base", text=f"`{title}`: the layers of the image changed", old=then, new=now)


def _operations(step: Record, before: Record) -> Iterator[Cause]:
    new, old = step["op"], before["op"]
    if new["type"] != old["type"]:
        yield Cause(kind="instruction", text="the instruction changed", old=before["title"], new=step["title"])
        return
    for name in dict.fromkeys([*new, *old]):
        was, now = old.get(name), new.get(name)
        if was == now:
            continue
        if name == "env":
            yield from _variables(dict(was or ()), dict(now or ()), [*(was or ())], [*(now or ())])
        elif name == "mounts":
            yield from _mounts(was or [], now or [])
        elif name == "argv" and step["title"] != before["title"]:
            yield Cause(kind="instruction", text="the command changed", old=before["title"], new=step["title"])
        else:
            text = f"{_FIELDS.get(name, name)} changed"
            yield Cause(kind="instruction", text=text, path=name, old=_plain(was), new=_plain(now))


def _variables(old: dict[str, str], new: dict[str, str], was: list[Any], now: list[Any]) -> Iterator[Cause]:
    changed = [name for name in sorted(old.keys() | new.keys()) if old.get(name) != new.get(name)]
    for name in changed:
        verb = "is new" if name not in old else "is gone" if name not in new else "changed"
        text = f"argument or variable `{name}` {verb}"
        yield Cause(kind="variable", text=text, path=name, old=old.get(name, ""), new=new.get(name, ""))
    if not changed and was != now:
        yield Cause(kind="variable", text="the order of the variables changed")


def _mounts(old: list[Record], new: list[Record]) -> Iterator[Cause]:
    for number in range(max(len(old), len(new))):
        was, now = (each[number] if number < len(each) else None for each in (old, new))
        if was is None or now is None:
            mount: Record = now or was or {}
            verb = "is new" if was is None else "is gone"
            what = " ".join(filter(None, (mount["type"], mount.get("id", ""))))
            yield Cause(kind="mount", text=f"mount `{what}` at `{mount['target']}` {verb}", path=mount["target"])
            continue
        for name in dict.fromkeys([*was, *now]):
            if was.get(name) != now.get(name):
                text = f"{name} of the {now['type']} mount at `{now['target']}` changed"
                path = now["target"]
                yield Cause(kind="mount", text=text, path=path, old=_plain(was.get(name)), new=_plain(now.get(name)))


def _plain(value: object) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return msgspec.json.encode(value).decode()


def _file(path: bytes, old: Row | None, new: Row | None) -> Cause:
    name = path.decode("utf-8", "replace") or "."
    if old is None or new is None:
        return Cause(kind="file", text=f"`{name}` is {'new' if old is None else 'gone'}", path=name)
    if old[1] != new[1]:
        was, now = _KINDS.get(old[1], "other"), _KINDS.get(new[1], "other")
        return Cause(kind="file", text=f"`{name}`: kind: {was} -> {now}", path=name, old=was, new=now)
    if old[2] != new[2]:
        was, now = f"{old[2]:04o}", f"{new[2]:04o}"
        return Cause(kind="file", text=f"`{name}`: mode {was} -> {now}", path=name, old=was, new=now)
    if old[3:5] != new[3:5]:
        was, now = f"{old[3]}:{old[4]}", f"{new[3]}:{new[4]}"
        return Cause(kind="file", text=f"`{name}`: owner {was} -> {now}", path=name, old=was, new=now)
    if old[6] != new[6]:
        was, now = (each[6].decode("utf-8", "replace") for each in (old, new))
        return Cause(kind="file", text=f"`{name}`: link to `{was}` -> `{now}`", path=name, old=was, new=now)
    sizes = f", {old[5]} -> {new[5]} bytes" if old[5] != new[5] else f", {new[5]} bytes as before"
    return Cause(kind="file", text=f"`{name}`: content{sizes}", path=name, old=old[7].hex(), new=new[7].hex())
