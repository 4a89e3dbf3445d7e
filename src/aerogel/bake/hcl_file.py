"""`docker-bake.hcl` as blocks and attributes with places. Expressions stay trees until they are evaluated.

Spec: HCL native syntax specification, "Structural Elements".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aerogel.bake.expressions import HclExpression
from aerogel.bake.hcl import BLOCKS, Attribute, Block, Body, Text, parse_tree
from aerogel.errors import EXIT_USAGE, AerogelError, Source, Span

if TYPE_CHECKING:
    from lark import Token, Tree

__all__ = ["parse_hcl"]


def parse_hcl(source: Source) -> Body:
    """The top of a file. Raises `bake.syntax`, `bake.not-utf8`."""
    try:
        text = Text(source)
    except UnicodeDecodeError as error:
        raise AerogelError(
            f"`{source.name}` is not UTF-8",
            code="bake.not-utf8",
            span=Span(source, error.start, error.start + 1),
            exit_status=EXIT_USAGE,
            hints=["save the file as UTF-8"],
        ) from None
    tree = parse_tree(text)
    return _body(tree.children[0], text)  # type: ignore[arg-type]  # the grammar: start has one body


def _body(tree: Tree[Token], text: Text) -> Body:
    attributes: dict[str, Attribute] = {}
    blocks: list[Block] = []
    for child in tree.children:
        name = getattr(child, "data", "")
        if name == "attribute":
            found = _attribute(child, text)  # type: ignore[arg-type]  # has data, so it is a tree
            if found.name in attributes:
                raise AerogelError(
                    f"`{found.name}` is set twice",
                    code="bake.duplicate",
                    span=found.span,
                    exit_status=EXIT_USAGE,
                    hints=["keep one of them"],
                )
            attributes[found.name] = found
        elif name == "block":
            blocks.append(_block(child, text))  # type: ignore[arg-type]  # as above
    return Body(attributes, tuple(blocks))


def _attribute(tree: Tree[Token], text: Text) -> Attribute:
    name = _word(tree.children[0], text)
    return Attribute(name, text.of(tree.children[0]), HclExpression(tree.children[-1], text))


def _block(tree: Tree[Token], text: Text) -> Block:
    parts = [child for child in tree.children if getattr(child, "data", "") not in ("new_line_or_comment", "body", "")]
    body = next(child for child in tree.children if getattr(child, "data", "") == "body")
    words = [_word(part, text) for part in parts]
    # A block of a kind that is not known is wrong in its first word, any other is known by its name.
    place = text.of(parts[-1 if words[0] in BLOCKS else 0])
    return Block(words[0], tuple(words[1:]), place, _body(body, text))  # type: ignore[arg-type]  # a body is a tree


def _word(node: Any, text: Text) -> str:
    """An identifier, or the text of a string without variables."""
    span = text.of(node)
    return span.text.strip().strip('"')
