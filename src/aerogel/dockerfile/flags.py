"""The flags of an instruction, checked against those it has: `--name`, `--name=value`, repeated or not.

Spec: BuildKit, `frontend/dockerfile/instructions`, flags; labs features included.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from aerogel.dockerfile.ast import Flag, Word
from aerogel.dockerfile.split import Split
from aerogel.errors import AerogelError, nearest

__all__ = ["BOOLEAN", "LIST", "STRING", "Flags", "read_flags"]

BOOLEAN = "boolean"
STRING = "string"
LIST = "list"


class Flags:
    """The flags of one instruction that are right."""

    __slots__ = ("_booleans", "_words")

    def __init__(self) -> None:
        self._words: dict[str, list[Word]] = {}
        self._booleans: dict[str, bool] = {}

    def word(self, name: str) -> Word | None:
        """The value of a string flag."""
        words = self._words.get(name)
        return words[0] if words else None

    def words(self, name: str) -> tuple[Word, ...]:
        """The values of a list flag."""
        return tuple(self._words.get(name, ()))

    def boolean(self, name: str) -> bool | None:
        return self._booleans.get(name)


def read_flags(parts: Split, kinds: Mapping[str, str], faults: list[AerogelError]) -> Flags:
    """Check the flags of `parts`; `kinds` gives `BOOLEAN`, `STRING` or `LIST` for each name."""
    flags = Flags()
    seen: set[str] = set()
    for flag in parts.flags:
        kind = kinds.get(flag.name)
        if kind is None:
            faults.append(_unknown(parts, flag, list(kinds)))
            continue
        if flag.name in seen and kind != LIST:
            faults.append(
                AerogelError(
                    f"`--{flag.name}` is given twice",
                    code="dockerfile.duplicate-flag",
                    span=flag.span,
                )
            )
            continue
        seen.add(flag.name)
        if kind == BOOLEAN:
            _read_boolean(flag, flags, faults)
        elif flag.value is None:
            faults.append(
                AerogelError(
                    f"`--{flag.name}` needs a value",
                    code="dockerfile.missing-flag-value",
                    span=flag.span,
                    hints=[f"the form is `--{flag.name}=VALUE`, without a blank"],
                )
            )
        else:
            flags._words.setdefault(flag.name, []).append(flag.value)
    return flags


def _read_boolean(flag: Flag, flags: Flags, faults: list[AerogelError]) -> None:
    text = "true" if flag.value is None else flag.value.text.lower()
    if text in ("true", "false"):
        flags._booleans[flag.name] = text == "true"
        return
    span = flag.value.span if flag.value is not None and text else flag.span
    written = f", not `{flag.value.text}`" if flag.value is not None and text else ""
    message = f"`--{flag.name}` is `true` or `false`{written}"
    faults.append(AerogelError(message, code="dockerfile.bad-flag-value", span=span))


def _unknown(parts: Split, flag: Flag, known: Sequence[str]) -> AerogelError:
    keyword = parts.keyword.text.upper()
    hints = []
    near = nearest(flag.name, known)
    if near is not None:
        hints.append(f"did you mean `--{near}`?")
    elif known:
        hints.append(f"{keyword} has " + ", ".join(f"`--{name}`" for name in known))
    if not known or keyword == "RUN":
        hints.append(f"if it belongs to the arguments, write `{keyword} -- ...`")
    span = flag.span
    name_end = span.start + len(f"--{flag.name}".encode("utf-8", "surrogateescape"))
    if flag.value is not None and name_end < span.end:
        span = type(span)(span.source, span.start, name_end)
    return AerogelError(
        f"{keyword} has no flag `--{flag.name}`", code="dockerfile.unknown-flag", span=span, hints=hints
    )
