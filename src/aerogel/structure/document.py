"""YAML and JSON as values that know where they stand, so that a fault in a configuration has a line and a caret.

Scalars stay the text that was written: what type is meant is for the reader to say, as with Go's yaml.v2.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from aerogel.errors import EXIT_USAGE, AerogelError, Source, Span, nearest

__all__ = ["Value", "fault", "parse"]

_MAX_DEPTH = 20
_HINT = "`docs/guides/structure-tests.md` shows how it looks"
_MAX_NODES = 200_000
"""Aliases counted each time: a small file can stand for a very large one."""
_TRUE = frozenset(("y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"))
_FALSE = frozenset(("n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"))
_NULL = frozenset(("", "~", "null", "Null", "NULL"))


class Value(NamedTuple):
    """A map, a list or a scalar (its text; None is null). `where` names it for messages.

    `key` is the place of the key that it has in its map.
    """

    data: dict[str, Value] | list[Value] | str | None
    where: str
    span: Span | None
    key: Span | None = None

    def fields(self, known: tuple[str, ...]) -> dict[str, Value]:
        """The entries of a map, none but `known`. Raises AerogelError `test.config`."""
        if self.data is None:
            return {}
        if not isinstance(self.data, dict):
            raise self.fault("is to be a map")
        for name, value in self.data.items():
            if name not in known:
                near = nearest(name, known)
                what = f" of `{self.where}`" if self.where else ""
                raise fault(
                    f"`{name}` is no key{what}",
                    value.key,
                    f"did you mean `{near}`?" if near else f"keys are {', '.join(known)}",
                )
        return {name: value for name, value in self.data.items() if value.data is not None}

    def items(self) -> Iterator[Value]:
        """The entries of a list."""
        if self.data is None:
            return
        if not isinstance(self.data, list):
            raise self.fault("is to be a list")
        yield from self.data

    def text(self) -> str:
        if isinstance(self.data, str):
            return self.data
        raise self.fault("is to be a text")

    def texts(self) -> tuple[str, ...]:
        return tuple(each.text() for each in self.items())

    def boolean(self) -> bool:
        if self.data not in _TRUE and self.data not in _FALSE:
            raise self.fault("is to be true or false")
        return self.data in _TRUE

    def number(self) -> int:
        if not isinstance(self.data, str) or not re.fullmatch(r"[-+]?\d{1,18}", self.data):
            raise self.fault("is to be a number")
        return int(self.data)

    def fault(self, what: str, hint: str = "") -> AerogelError:
        return fault(f"`{self.where}` {what}" if self.where else f"the file {what}", self.span, hint)


def fault(message: str, span: Span | None, hint: str = "") -> AerogelError:
    """Something that is wrong with a configuration."""
    return AerogelError(message, code="test.config", span=span, hints=[hint or _HINT], exit_status=EXIT_USAGE)


def parse(source: Source) -> Value:
    """A whole file. Raises AerogelError `test.config`."""
    return _json(source) if source.name.endswith(".json") else _yaml(source)


def _json(source: Source) -> Value:
    try:
        text = source.data.decode()
        json.loads(text, parse_int=str, parse_float=str)
    except UnicodeDecodeError as error:
        raise fault("the file is not UTF-8", Span(source, error.start, error.end)) from None
    except json.JSONDecodeError as error:
        at = len(text[: error.pos].encode())
        raise fault(f"the file is no JSON: {error.msg.lower()}", Span(source, at, at)) from None
    except RecursionError:
        raise fault("the file is nested too deep", None) from None
    return _Json(source, text).value("", 0)


_SPACE = re.compile(r"[ \t\r\n]*")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_WORD = re.compile(r"[^ \t\r\n,\]}]+")


class _Json:
    """Goes through a text that is JSON; `at` is where, in characters."""

    def __init__(self, source: Source, text: str) -> None:
        self._source = source
        self._text = text
        self._is_ascii = text.isascii()
        self._at = 0

    def _next(self) -> str:
        """The next character that counts."""
        self._at = _SPACE.match(self._text, self._at).end()  # type: ignore[union-attr]  # it fits everywhere
        return self._text[self._at]

    def _span(self, start: int) -> Span:
        """From a place to here, at most to the end of its line."""
        line_end = self._text.find("\n", start)
        end = self._at if line_end < 0 else min(self._at, line_end)
        if self._is_ascii:
            return Span(self._source, start, end)
        first = len(self._text[:start].encode())
        return Span(self._source, first, first + len(self._text[start:end].encode()))

    def _string(self) -> str:
        found = _STRING.match(self._text, self._at)
        assert found is not None  # the text is JSON
        self._at = found.end()
        return str(json.loads(found[0]))

    def value(self, where: str, depth: int) -> Value:
        """The value that begins here. Raises `test.config` for a key that is there twice."""
        sign = self._next()
        start = self._at
        if depth > _MAX_DEPTH:
            raise fault("the file is nested too deep", self._span(start))
        data: dict[str, Value] | list[Value] | str | None
        if sign == "{":
            data = self._map(where, depth)
        elif sign == "[":
            data = self._list(where, depth)
        elif sign == '"':
            data = self._string()
        else:
            word = _WORD.match(self._text, self._at)
            assert word is not None  # the text is JSON
            self._at, data = word.end(), None if word[0] == "null" else word[0]
        return Value(data, where, self._span(start))

    def _map(self, where: str, depth: int) -> dict[str, Value]:
        found: dict[str, Value] = {}
        self._at += 1
        while self._next() != "}":
            start = self._at
            name = self._string()
            key = self._span(start)
            if name in found:
                raise fault(f"`{_below(where, name)}` is there twice", key)
            self._next()
            self._at += 1  # the colon
            inner = self.value(_below(where, name), depth + 1)
            found[name] = inner._replace(span=key if inner.data is None else inner.span, key=key)
            self._at += self._next() == ","
        self._at += 1
        return found

    def _list(self, where: str, depth: int) -> list[Value]:
        found: list[Value] = []
        self._at += 1
        while self._next() != "]":
            found.append(self.value(f"{where}[{len(found)}]", depth + 1))
            self._at += self._next() == ","
        self._at += 1
        return found


def _yaml(source: Source) -> Value:
    import yaml

    try:
        text = source.data.decode("utf-8-sig")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except UnicodeDecodeError as error:
        raise fault("the file is not UTF-8", Span(source, error.start, error.end)) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at = len(text[: mark.index].encode()) if mark is not None else 0
        raise fault(f"the file is no YAML: {error.problem or error.context}", Span(source, at, at)) from None
    except yaml.YAMLError as error:
        raise fault(f"the file is no YAML: {str(error).splitlines()[0]}", None) from None
    except RecursionError:
        raise fault("the file is nested too deep", None) from None
    if node is None:
        raise fault("the file is empty", None, "it begins with `schemaVersion: 2.0.0`")
    return _node(node, "", _Offsets(source, text), 0)


class _Offsets:
    """Spans of nodes, whose marks count characters."""

    def __init__(self, source: Source, text: str) -> None:
        self.count = 0
        self._source = source
        self._text = text
        self._shift = len(source.data) - len(text.encode())

    def span(self, node: Any) -> Span:
        start, end = node.start_mark.index, node.end_mark.index
        line_end = self._text.find("\n", start)
        end = end if line_end < 0 else min(end, line_end)
        first = len(self._text[:start].encode()) + self._shift
        return Span(self._source, first, first + len(self._text[start:end].encode()))


def _node(node: Any, where: str, offsets: _Offsets, depth: int) -> Value:
    import yaml

    span = offsets.span(node)
    offsets.count += 1
    if depth > _MAX_DEPTH or offsets.count > _MAX_NODES:
        raise fault("the file is too large or nested too deep", span)
    if isinstance(node, yaml.ScalarNode):
        is_null = node.style is None and node.value in _NULL
        return Value(None if is_null else node.value, where, span)
    if isinstance(node, yaml.SequenceNode):
        return Value([_node(one, f"{where}[{n}]", offsets, depth + 1) for n, one in enumerate(node.value)], where, span)
    found: dict[str, Value] = {}
    merged: dict[str, Value] = {}
    for key, value in node.value:
        if isinstance(key, yaml.ScalarNode) and key.value == "<<" and key.style is None:
            for each in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                more = _node(each, where, offsets, depth + 1).data
                merged = {**more, **merged} if isinstance(more, dict) else merged
            continue
        if not isinstance(key, yaml.ScalarNode):
            raise fault("a key is to be a text", offsets.span(key))
        if key.value in found:
            raise fault(f"`{_below(where, key.value)}` is there twice", offsets.span(key))
        inner = _node(value, _below(where, key.value), offsets, depth + 1)
        place = offsets.span(key)
        found[key.value] = inner._replace(span=place if inner.data is None else inner.span, key=place)
    return Value({**merged, **found}, where, span)


def _below(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name
