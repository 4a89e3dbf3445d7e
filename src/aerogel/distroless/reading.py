"""Reads the text of a declaration: YAML to values of `declaration`, each fault with its line and column.

Numbers, `true`, `false` and `null` are as in JSON; every other word is text (`no`, `on`, `0770` and `3.10` are what
they look like). A key may stand once. Not for: built-in declarations, which are kept in a form that needs no YAML
(`catalogue`).
Spec: YAML 1.2, 10.2 (JSON schema) for scalars.
"""

from __future__ import annotations

import copy
import re
from typing import TYPE_CHECKING, Any

import msgspec

from aerogel.decoding import prepare
from aerogel.distroless.declaration import Declaration
from aerogel.errors import EXIT_USAGE, AerogelError, Source, Span, nearest

if TYPE_CHECKING:
    import msgspec.inspect as kinds
    import yaml

__all__ = ["Document", "parse_declaration", "parse_document"]

_MAX_NODES = 20_000
_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,17})")
_WORDS = {"true": True, "false": False, "null": None, "~": None, "": None}
_WHERE = re.compile(r"(?s)(.*?)(?: - at `(key in )?([^`]*)`)?")
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`")
_NO_TEXT = re.compile("[\0\ud800-\udfff]")
_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+|\.\.\.)\]")

Path = tuple[str | int, ...]


class Document:
    """Plain data, and where each of its values stands: `spans` by path, the span of a key at the path's key."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.data: Any = None
        self.spans: dict[Path, Span] = {}
        self.keys: dict[Path, Span] = {}

    def span(self, path: Path) -> Span:
        """The place of a value, or of the nearest thing around it."""
        while path and path not in self.spans:
            path = path[:-1]
        return self.spans.get(path, Span(self.source, 0, 1))


def parse_declaration(source: Source) -> tuple[Declaration, Document]:
    """Raises `base.syntax`, `base.field`, with the place."""
    document = parse_document(source)
    if not isinstance(document.data, dict):
        raise _fault(f"`{source.name}` is no declaration of a base: it is no map", Span(source, 0, 1), "base.syntax")
    data = copy.deepcopy(document.data)
    _take_nulls(data)
    prepare(Declaration)
    try:
        found = msgspec.convert(data, type=Declaration)
    except msgspec.ValidationError as error:
        raise _field_fault(document, str(error)) from None
    return found, document


_GROUPS = ("releases", "profiles", "variants")
"""Maps whose values are parts of a declaration."""


def _take_nulls(data: dict[str, Any]) -> None:
    """Makes `unset` of the nulls in a declaration and in its parts; those in lists stay as they are."""
    parts: list[tuple[Path, Any]] = [((), data)]
    variants = data.get("variants")
    given = data.get("unset", [])
    if isinstance(variants, dict) and isinstance(given, list) and None in variants.values():
        removed = [name for name, part in variants.items() if part is None]
        data["variants"] = {name: part for name, part in variants.items() if part is not None}
        data["unset"] = [*given, *(["variants", name] for name in removed)]
    for group in _GROUPS:
        inner = data.get(group)
        parts += [((group, name), part) for name, part in inner.items()] if isinstance(inner, dict) else []
    for path, part in parts:
        if isinstance(part, dict) and isinstance(given := part.get("unset", []), list):
            found = [list(each) for each in _nulls(part, path, len(path))]
            if found:
                part["unset"] = [*given, *found]


def _nulls(data: dict[str, Any], path: Path, start: int) -> list[Path]:
    """Takes the nulls of known fields, and of maps with free names, out of a map; their paths within its part."""
    known = _fields_at(path) if None in data.values() else []
    found: list[Path] = []
    for key, value in list(data.items()):
        here = (*path, key)
        if isinstance(value, dict) and not (len(path) == start and key in _GROUPS):
            inner = _nulls(value, here, start)
            found += inner
            if inner and not value:
                del data[key]  # nothing else is said there
        elif value is None and (not known or key in known) and (len(path) > start or key not in _STATED):
            del data[key]
            found.append(here[start:])
    return found


_STATED = frozenset(("apiVersion", "kind", "name", "names", "summary", "extends", "tags", *_GROUPS))
"""Not inherited: null is what it is there."""


def parse_document(source: Source) -> Document:
    """YAML as plain data with places. Raises `base.syntax`."""
    import yaml

    document = Document(source)
    try:
        text = source.data.decode("utf-8")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except UnicodeDecodeError as error:
        raise _fault(
            f"`{source.name}` is not UTF-8", Span(source, error.start, error.start + 1), "base.syntax"
        ) from None
    except RecursionError:
        raise _fault(f"`{source.name}` is nested too deeply", Span(source, 0, 1), "base.syntax") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or str(error).split("\n", 1)[0]
        at = len(source.data) if mark is None else len(text[: mark.index].encode())
        at = max(0, min(at, len(source.data) - 1))
        raise _fault(f"`{source.name}` is not YAML: {problem}", Span(source, at, at + 1), "base.syntax") from None
    builder = _Builder(document, text)
    document.data = None if node is None else builder.value(node, ())
    return document


class _Builder:
    def __init__(self, document: Document, text: str) -> None:
        self._document = document
        self._text = text
        self._is_ascii = text.isascii()
        self._count = 0

    def _span(self, node: yaml.Node) -> Span:
        start, end = node.start_mark.index, node.end_mark.index
        if not self._is_ascii:
            start, end = len(self._text[:start].encode()), len(self._text[:end].encode())
        text = self._document.source.data[start:end]
        end = start + len(text.rstrip())
        line_end = text.find(b"\n")
        if line_end >= 0:  # a block: its first line is enough
            end = min(end, start + line_end)
        return Span(self._document.source, start, max(end, start + 1))

    def value(self, node: yaml.Node, path: Path) -> Any:
        import yaml

        self._count += 1
        span = self._document.spans[path] = self._span(node)
        if self._count > _MAX_NODES or len(path) > 30:
            raise _fault(f"`{self._document.source.name}` has too many values", span, "base.syntax")
        if isinstance(node, yaml.MappingNode):
            return self._map(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(each, (*path, at)) for at, each in enumerate(node.value)]
        text = self._text_of(node)
        if node.style in ("'", '"', "|", ">"):
            return text
        if text in _WORDS:
            return _WORDS[text]
        return int(text) if _INTEGER.fullmatch(text) else text

    def _text_of(self, node: yaml.Node) -> str:
        """The text of a scalar. Escapes can spell what no name, path or file can hold: NUL and halves of a character."""
        text = str(node.value)
        bad = _NO_TEXT.search(text)
        if bad is not None:
            name = f"U+{ord(bad[0]):04X}"
            hint = "a file with such content is taken from beside the declaration: `source: FILE`"
            raise _fault(f"`{name}` stands in no text of a declaration", self._span(node), "base.syntax", hint)
        return text

    def _map(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        import yaml

        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            span = self._span(key_node)
            if not isinstance(key_node, yaml.ScalarNode):
                raise _fault("a key is no text", span, "base.syntax")
            key = self._text_of(key_node)
            if key in found:
                raise _fault(f"`{key}` is said twice", span, "base.syntax")
            self._document.keys[*path, key] = span
            found[key] = self.value(value_node, (*path, key))
        return found


def _field_fault(document: Document, text: str) -> AerogelError:
    """What msgspec says, in the house's words."""
    match = _WHERE.fullmatch(text)
    what, where = (match[1], match[3] or "$") if match else (text, "$")
    path: Path = tuple(
        int(found[2]) if found[2] and found[2] != "..." else found[1] or found[2] for found in _STEP.finditer(where)
    )
    path = _exact(document.data, path, what)
    unknown = _UNKNOWN.fullmatch(what)
    if unknown is not None:
        name = unknown[1]
        span = document.keys.get((*path, name)) or document.span(path)
        known = _fields_at(path)
        near = nearest(name, known)
        hints = [f"did you mean `{near}`?"] if near else [f"known here: {', '.join(known)}"] if known else []
        where = f"`{_shown(path)}`" if path else "a declaration"
        return _fault(f"{where} has no field `{name}`", span, "base.field", *hints)
    missing = re.fullmatch(r"Object missing required field `(.*)`", what)
    name = f"`{_shown(path)}`" if path else "the declaration"
    if missing is not None:
        return _fault(f"{name} lacks the field `{missing[1]}`", document.span(path), "base.field")
    invalid = re.fullmatch(r"Invalid enum value '(.*)'", what)
    if invalid is not None:
        values = _values_at(path)
        near = nearest(invalid[1], values)
        hint = f"did you mean `{near}`?" if near else f"values are {', '.join(f'`{each}`' for each in values)}"
        return _fault(f"{name} cannot be `{invalid[1]}`", document.span(path), "base.field", hint)
    return _fault(f"{name}: {what[:1].lower()}{what[1:]}", document.span(path), "base.field")


def _exact(data: Any, path: Path, what: str) -> Path:
    """Where msgspec means: it names the values of a map `[...]`: the first of them that can be meant is taken."""
    found: list[str | int] = []
    for number, given in enumerate(path):
        step = given
        if step == "..." and isinstance(data, dict):
            rest = path[number + 1 :]
            unknown = _UNKNOWN.fullmatch(what)
            names = [name for name in data if _leads(data[name], rest, unknown[1] if unknown else None)]
            step = names[0] if names else next(iter(data), "")
        found.append(step)
        try:
            data = data[step]
        except (KeyError, IndexError, TypeError):
            break
    return tuple(found)


def _leads(data: Any, rest: Path, name: str | None) -> bool:
    for step in rest:
        if step == "..." and isinstance(data, dict):
            return any(_leads(each, rest[rest.index(step) + 1 :], name) for each in data.values())
        try:
            data = data[step]
        except (KeyError, IndexError, TypeError):
            return False
    return name is None or (isinstance(data, dict) and name in data)


def _fields_at(path: Path) -> list[str]:
    """The names of the fields that a struct at a path has."""
    import msgspec.inspect as kinds

    return [one.encode_name for kind in _kinds_at(path) if isinstance(kind, kinds.StructType) for one in kind.fields]


def _values_at(path: Path) -> list[str]:
    """The words that may stand at a path, where it is one of a few."""
    import msgspec.inspect as kinds

    return [str(each) for kind in _kinds_at(path) if isinstance(kind, kinds.LiteralType) for each in kind.values]


def _kinds_at(path: Path) -> list[kinds.Type]:
    """The types that a value at a path may have."""
    import msgspec.inspect as kinds

    def inner(kind: kinds.Type) -> list[kinds.Type]:
        if isinstance(kind, kinds.Metadata):
            return inner(kind.type)
        return [each for one in kind.types for each in inner(one)] if isinstance(kind, kinds.UnionType) else [kind]

    current: list[kinds.Type] = inner(kinds.type_info(Declaration))
    for step in path:
        following: list[kinds.Type] = []
        for kind in current:
            if isinstance(kind, kinds.StructType):
                following += [each for one in kind.fields if one.encode_name == step for each in inner(one.type)]
            elif isinstance(kind, kinds.DictType):
                following += inner(kind.value_type)
            elif isinstance(kind, kinds.VarTupleType):
                following += inner(kind.item_type)
        current = following
    return current


def _shown(path: Path) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).lstrip(".")


def _fault(message: str, span: Span, code: str, *hints: str) -> AerogelError:
    return AerogelError(message, code=code, span=span, hints=hints, exit_status=EXIT_USAGE)
