"""The image config while the instructions of one stage edit it, with the history they leave.

Pure. The texts of the history are BuildKit's to the letter, Go's formats included, so that tools which read them
keep working.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from aerogel.graph.ops import Node
from aerogel.oci.types import ContainerConfig, Healthcheck, History, ImageConfig, RootFS, timestamp

__all__ = [
    "COMMENT",
    "DEFAULT_PATH",
    "ConfigState",
    "go_duration",
    "go_list",
    "go_quote",
    "healthcheck_text",
    "split_env",
]

COMMENT = "buildkit.dockerfile.v0"
"""What BuildKit writes as the comment of each history entry; tools recognise Dockerfile steps by it."""

EXPORTER_COMMENT = "buildkit.exporter.image.v0"

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_DEFAULT_SHELL = ("/bin/sh", "-c")

_GO_ESCAPES = {7: "\\a", 8: "\\b", 12: "\\f", 10: "\\n", 13: "\\r", 9: "\\t", 11: "\\v", 34: '\\"', 92: "\\\\"}


class _Past(NamedTuple):
    """A history entry with its node, and what came before: stages that start from each other share it."""

    before: _Past | None
    entry: History
    node: Node | None


class ConfigState:
    """A stage's image config in the making. `clone` gives a stage that starts from it its own copy."""

    __slots__ = ("base", "config", "env", "has_cmd", "history", "labels", "ports", "triggers")

    def __init__(self, base: ImageConfig) -> None:
        self.base = base
        self.config: ContainerConfig = base.config
        self.env: dict[str, str] = dict(split_env(item) for item in base.config.env)
        self.env.setdefault("PATH", DEFAULT_PATH)
        self.labels = dict(base.config.labels)
        self.ports = dict(base.config.exposed_ports)
        self.triggers = list(base.config.on_build)
        self.history: _Past | None = None
        self.has_cmd = False

    def clone(self) -> ConfigState:
        """A copy for a stage built FROM this one."""
        copy = ConfigState(self.base)
        copy.config = self.config
        copy.env = dict(self.env)
        copy.labels = dict(self.labels)
        copy.ports = dict(self.ports)
        copy.triggers = list(self.triggers)
        copy.history = self.history
        return copy

    def edit(self, **changes: object) -> None:
        """Replaces fields of the container config by name; `labels`, `ports`, `triggers` and `env` are set apart."""
        self.config = msgspec.structs.replace(self.config, **changes)

    def commit(self, text: str, node: Node | None = None) -> None:
        """Adds a history entry; with `node` it is the entry of that node's layer."""
        suffix = " # buildkit" if node is not None and not text.startswith("WORKDIR ") else ""
        entry = History(created_by=text + suffix, comment=COMMENT, empty_layer=node is None)
        self.history = _Past(self.history, entry, node)

    def commit_base(self, text: str, node: Node) -> None:
        """The entry of a layer that no instruction made, as BuildKit's exporter names it."""
        self.history = _Past(self.history, History(created_by=text, comment=EXPORTER_COMMENT), node)

    def shell(self) -> tuple[str, ...]:
        """What the shell form runs with."""
        return self.config.shell or _DEFAULT_SHELL

    def finish(self, diff_ids: tuple[str, ...], empty: frozenset[str], epoch_s: int) -> ImageConfig:
        """The config of the finished image.

        `diff_ids` are all its layers; a node whose digest is in `empty` made no layer, so its entry is marked
        `empty_layer`. `epoch_s` is the creation time of the image and of the new history entries.
        """
        created = timestamp(epoch_s)
        entries: list[History] = []
        past = self.history
        while past is not None:
            is_empty = past.entry.empty_layer or (past.node is not None and past.node.digest in empty)
            entries.append(msgspec.structs.replace(past.entry, created=created, empty_layer=is_empty))
            past = past.before
        config = msgspec.structs.replace(
            self.config,
            env=tuple(f"{key}={value}" for key, value in self.env.items()),
            labels=self.labels,
            exposed_ports=self.ports,
            on_build=tuple(self.triggers),
        )
        return msgspec.structs.replace(
            self.base,
            created=created,
            config=config,
            rootfs=RootFS(diff_ids=tuple(diff_ids)),  # type: ignore[arg-type]  # NewType of str
            history=(*self.base.history, *reversed(entries)),
        )


def split_env(item: str) -> tuple[str, str]:
    """`NAME=value` as a pair; a bare name has the empty value."""
    key, _, value = item.partition("=")
    return key, value


def go_quote(text: str) -> str:
    """Go's `%q` of a string."""
    out = ['"']
    for character in text:
        code = ord(character)
        if code in _GO_ESCAPES:
            out.append(_GO_ESCAPES[code])
        elif character.isprintable():
            out.append(character)
        elif code < 0x80:
            out.append(f"\\x{code:02x}")
        elif 0xDC80 <= code <= 0xDCFF:
            out.append(f"\\x{code - 0xDC00:02x}")
        else:
            out.append(f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}")
    out.append('"')
    return "".join(out)


def go_list(words: tuple[str, ...], *, quoted: bool = False) -> str:
    """Go's `%v` (or `%q`) of a list of strings."""
    return "[" + " ".join(go_quote(word) if quoted else word for word in words) + "]"


def go_duration(nanoseconds: int) -> str:
    """Go's text of a duration: `1m30s`, `1.5s`, `500ms`, `0s`."""
    if nanoseconds == 0:
        return "0s"
    sign, rest = ("-", -nanoseconds) if nanoseconds < 0 else ("", nanoseconds)
    for unit, size in (("ns", 1), ("µs", 1000), ("ms", 1_000_000)):
        if rest < size * 1000:
            return f"{sign}{_decimal(rest, size)}{unit}"
    minutes, rest = divmod(rest, 60_000_000_000)
    hours, minutes = divmod(minutes, 60)
    text = f"{_decimal(rest, 1_000_000_000)}s"
    if hours:
        return f"{sign}{hours}h{minutes}m{text}"
    return f"{sign}{minutes}m{text}" if minutes else sign + text


def _decimal(value: int, unit: int) -> str:
    """`value / unit` with no more digits than needed."""
    whole, part = divmod(value, unit)
    if not part:
        return str(whole)
    digits = len(str(unit)) - 1
    return f"{whole}.{part:0{digits}d}".rstrip("0")


def healthcheck_text(check: Healthcheck) -> str:
    """Go's `%+v` of the health check."""
    return (
        f"{{Test:{go_list(check.test)} Interval:{go_duration(check.interval)} Timeout:{go_duration(check.timeout)} "
        f"StartPeriod:{go_duration(check.start_period)} StartInterval:{go_duration(check.start_interval)} "
        f"Retries:{check.retries}}}"
    )
