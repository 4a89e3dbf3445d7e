"""The shape of a bake file, and the trees of HCL text: `python-hcl2` parses.

`hcl_file` and `json_file` give files this shape; expressions are evaluated by `expressions`.
Spec: HCL native syntax specification.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from aerogel.errors import EXIT_USAGE, AerogelError, Source, Span

if TYPE_CHECKING:
    from lark import Token, Tree

__all__ = ["BLOCKS", "Attribute", "Block", "Body", "Expression", "Text", "parse_tree"]


class Expression(Protocol):
    """What stands behind `=`."""

    @property
    def span(self) -> Span: ...

    def value(self, scope: Any) -> Any:
        """Raises AerogelError `bake.*` with the place."""
        ...

    def keyword(self) -> str:
        """The word when it is nothing but a word; else empty."""
        ...

    def words(self) -> list[str]:
        """The words of a list of words. Raises `bake.value`."""
        ...


class Attribute(NamedTuple):
    name: str
    span: Span
    expression: Expression


class Body(NamedTuple):
    attributes: dict[str, Attribute]
    blocks: tuple[Block, ...]


BLOCKS = ("variable", "function", "group", "target", "validation")
"""The kinds of blocks there are."""


class Block(NamedTuple):
    """`type "label" { ... }`."""

    type: str
    labels: tuple[str, ...]
    span: Span
    body: Body


class Text:
    """A source whose places are counted in characters. `base` is where a part of another text begins in it."""

    def __init__(self, source: Source, text: str | None = None, *, whole: Span | None = None) -> None:
        self.source = source
        self.text = source.data.decode("utf-8") if text is None else text
        self._whole = whole
        self._is_ascii = self.text.isascii()

    def span(self, start: int, end: int) -> Span:
        """Characters `start` to `end`; the whole place when the text is a part that was rewritten."""
        if self._whole is not None:
            return self._whole
        if self._is_ascii:
            return Span(self.source, start, end)
        before = len(self.text[:start].encode())
        return Span(self.source, before, before + len(self.text[start:end].encode()))

    def of(self, node: Tree[Token] | Token) -> Span:
        """The place of a node."""
        meta: Any = getattr(node, "meta", node)
        start, end = getattr(meta, "start_pos", None), getattr(meta, "end_pos", None)
        return self.span(start or 0, end if end is not None else len(self.text))


def parse_tree(text: Text) -> Tree[Token]:
    """The tree of a text. Raises `bake.syntax`."""
    from hcl2.api import parses_to_tree
    from lark.exceptions import UnexpectedCharacters, UnexpectedEOF, UnexpectedInput, UnexpectedToken

    written = text.text if text.text.endswith("\n") else text.text + "\n"
    try:
        found: Tree[Token] = parses_to_tree(written)
    except UnexpectedEOF:
        raise _fault("the file ends in the middle of something", text.span(len(text.text), len(text.text))) from None
    except UnexpectedToken as error:
        at = getattr(error.token, "start_pos", None) or getattr(error, "pos_in_stream", None) or 0
        word = str(error.token).strip()
        what = f"`{word}` is not expected here" if word else "something is missing at the end of this line"
        if word.startswith("<<"):
            word = word.partition("\n")[0].rstrip()
            what = f"the here-document has no line `{word.lstrip('<-')}` that ends it"
        raise _fault(what, text.span(at, at + max(1, len(word)))) from None
    except UnexpectedCharacters as error:
        at = error.pos_in_stream or 0
        raise _fault(f"`{written[at]}` is not expected here", text.span(at, at + 1)) from None
    except UnexpectedInput as error:
        at = error.pos_in_stream or 0
        raise _fault("this is not HCL", text.span(at, at + 1)) from None
    return found


def _fault(message: str, span: Span) -> AerogelError:
    return AerogelError(
        message,
        code="bake.syntax",
        span=span,
        exit_status=EXIT_USAGE,
        hints=['blocks are written `target "name" { ... }`, attributes `name = value`, one on a line'],
    )
