"""`docker-bake.json` in the shape of HCL: strings are templates, objects are blocks where the schema has blocks.

Spec: HCL JSON syntax specification, as far as bake files use it.
"""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

from aerogel.bake.expressions import Scope, fault, template
from aerogel.bake.hcl import Attribute, Block, Body
from aerogel.bake.values import ValueFault, number
from aerogel.errors import EXIT_USAGE, AerogelError, Source, Span

__all__ = ["JsonExpression", "parse_json"]

_BLOCKS = ("variable", "group", "target", "function")


class JsonExpression:
    """A value of the file; the strings in it are evaluated."""

    def __init__(self, data: Any, span: Span) -> None:
        self.data = data
        self.span = span

    def value(self, scope: Scope) -> Any:
        return self._value(self.data, scope)

    def keyword(self) -> str:
        """The word when the value is nothing but a word; else empty."""
        return self.data if isinstance(self.data, str) and self.data.isidentifier() else ""

    def words(self) -> list[str]:
        """The words of a list of words."""
        if isinstance(self.data, list) and all(isinstance(item, str) for item in self.data):
            return list(self.data)
        raise fault("a list of names is needed", self.span, 'write `["first", "second"]`')

    def _value(self, data: Any, scope: Scope) -> Any:
        if isinstance(data, str):
            return template(data, _place(self.span.source, data, self.span), scope)
        if isinstance(data, list):
            return [self._value(item, scope) for item in data]
        if isinstance(data, dict):
            return {str(self._value(key, scope)): self._value(item, scope) for key, item in data.items()}
        try:
            return number(data) if isinstance(data, Decimal) else data
        except ValueFault as error:
            raise fault(str(error), self.span) from None


def _place(source: Source, text: str, otherwise: Span) -> Span:
    """Where a string stands: the first place from `otherwise` on that looks like it."""
    for written in (json.dumps(text), json.dumps(text, ensure_ascii=False)):
        at = source.data.find(written.encode(), otherwise.start)
        if at >= 0:
            return Span(source, at, at + len(written.encode()))
    return otherwise


def parse_json(source: Source) -> Body:
    """Raises `bake.syntax`, `bake.duplicate`."""
    try:
        data = json.loads(source.data.decode("utf-8"), parse_float=Decimal, object_pairs_hook=_Pairs)
    except (ValueError, RecursionError) as error:
        at = getattr(error, "pos", getattr(error, "start", 0))
        before = len(source.data.decode("utf-8", "replace")[:at].encode()) if hasattr(error, "pos") else at
        plain = "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
        message = getattr(error, "msg", "it is nested too deeply" if isinstance(error, RecursionError) else plain)
        raise AerogelError(
            f"`{source.name}` is not JSON: {message[:1].lower()}{message[1:]}",
            code="bake.syntax",
            span=Span(source, before, before + 1),
            exit_status=EXIT_USAGE,
            hints=["strings and keys stand in double quotes, nothing follows the last element"],
        ) from None
    if not isinstance(data, _Pairs):
        raise AerogelError(
            f"`{source.name}` is not an object",
            code="bake.syntax",
            span=Span(source, 0, 1),
            exit_status=EXIT_USAGE,
            hints=['write `{"target": {"app": {...}}}`'],
        )
    return _Reader(source).top(data)


class _Pairs(list[tuple[str, Any]]):
    """An object with its keys in order, as often as they stand there."""


class _Reader:
    def __init__(self, source: Source) -> None:
        self.source = source
        self.at = 0

    def top(self, data: _Pairs) -> Body:
        attributes: dict[str, Attribute] = {}
        blocks: list[Block] = []
        for key, value in data:
            span = self.find(key)
            if key not in _BLOCKS:
                attributes[key] = Attribute(key, span, self.expression(value, span))
                continue
            for labelled in [value] if isinstance(value, _Pairs) else value if isinstance(value, list) else ():
                blocks += [self.block(key, name, body) for name, body in labelled]
        return Body(attributes, tuple(blocks))

    def block(self, kind: str, name: str, data: Any) -> Block:
        span = self.find(name)
        bodies = data if isinstance(data, list) and not isinstance(data, _Pairs) else [data]
        attributes: dict[str, Attribute] = {}
        inner: list[Block] = []
        for body in bodies:
            if not isinstance(body, _Pairs):
                raise AerogelError(
                    f"`{name}` is not an object",
                    code="bake.syntax",
                    span=span,
                    exit_status=EXIT_USAGE,
                    hints=[f'write `"{name}": {{...}}`'],
                )
            for key, value in body:
                place = self.find(key)
                if kind == "variable" and key == "validation":
                    for each in [value] if isinstance(value, _Pairs) else value:
                        rules = {one: Attribute(one, place, self.expression(two, place)) for one, two in each}
                        inner.append(Block(key, (), place, Body(rules, ())))
                    continue
                attributes[key] = Attribute(key, place, self.expression(value, place))
        return Block(kind, (name,), span, Body(attributes, tuple(inner)))

    def expression(self, value: Any, span: Span) -> JsonExpression:
        return JsonExpression(_plain(value), span)

    def find(self, key: str) -> Span:
        """The place of a key: keys are asked for in the order of the file."""
        written = json.dumps(key, ensure_ascii=False).encode()
        at = self.source.data.find(written, self.at)
        if at < 0:
            at = max(0, self.source.data.find(written))
        else:
            self.at = at
        return Span(self.source, at, at + len(written))


def _plain(value: Any) -> Any:
    if isinstance(value, _Pairs):
        return {key: _plain(item) for key, item in value}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value
