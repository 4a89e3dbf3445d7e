"""Expressions of HCL and their values: operators, templates, `for`, splats, calls.

Evaluates the tree that `python-hcl2` gives; the parser knows precedence and places, nothing is parsed again but the
body of a here-document, whose template the grammar leaves as text.
Spec: HCL native syntax specification, "Expressions" and "Templates".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, NoReturn

from lark import Token, Tree

from aerogel.bake.hcl import Text, parse_tree
from aerogel.bake.values import CONTEXT, ValueFault, joined, kind, number, reason, to_bool, to_number, to_text
from aerogel.errors import EXIT_USAGE, AerogelError, Span

__all__ = ["HclExpression", "Scope", "arithmetic", "equal", "fault", "template", "type_of"]

Function = Callable[..., Any]

_SPECIAL = ("can", "convert", "try")
_MAX_DEPTH = 200
_HINT = "what expressions may be is in `docs/reference/bake.md`"


def fault(message: str, span: Span, *hints: str, code: str = "bake.value") -> AerogelError:
    """An error in an expression."""
    return AerogelError(message, code=code, span=span, hints=hints or (_HINT,), exit_status=EXIT_USAGE)


class Scope:
    """What names mean. `variable` and `function` raise for a name that they do not know."""

    def __init__(
        self,
        variable: Callable[[str, Span], Any],
        function: Callable[[str, Span], Function],
        values: Mapping[str, Any] | None = None,
        depth: int = 0,
    ) -> None:
        self._variable = variable
        self._function = function
        self._values = values or {}
        self.depth = depth

    def child(self, values: Mapping[str, Any], *, deeper: int = 0) -> Scope:
        """A scope with more names, which hide others."""
        return Scope(self._variable, self._function, {**self._values, **values}, self.depth + deeper)

    def variable(self, name: str, span: Span) -> Any:
        return self._values[name] if name in self._values else self._variable(name, span)

    def function(self, name: str, span: Span) -> Function:
        return self._function(name, span)


class HclExpression:
    """An expression and where it stands."""

    def __init__(self, tree: Any, text: Text) -> None:
        self.tree: Tree[Token] | Token = tree
        self.text = text

    @property
    def span(self) -> Span:
        return self.text.of(self.tree)

    def value(self, scope: Scope) -> Any:
        """Raises AerogelError `bake.value`, `bake.unknown-variable`, `bake.unknown-function`."""
        return _Evaluation(self.text, scope).value(self.tree)

    def keyword(self) -> str:
        """The word when the expression is nothing but a word; else empty."""
        span = self.span.text.strip()
        return span if span.isidentifier() else ""

    def words(self) -> list[str]:
        """The words of a list of words: `[a, b]`."""
        inner = _Evaluation(self.text, _NOTHING).unwrapped(self.tree)
        if not isinstance(inner, Tree) or inner.data != "tuple":
            raise fault("a list of names is needed", self.span, "write `[first, second]`")
        return [
            self.text.of(child).text.strip()
            for child in inner.children
            if isinstance(child, Tree) and child.data != "new_line_or_comment"
        ]


class _Evaluation:
    """One evaluation."""

    def __init__(self, text: Text, scope: Scope) -> None:
        self.text = text
        self.scope = scope

    def value(self, node: Tree[Token] | Token) -> Any:
        if self.scope.depth > _MAX_DEPTH:
            raise fault("functions call each other without end", self.text.of(node))
        try:
            return self._value(node)
        except ValueFault as error:
            raise fault(str(error), self.text.of(node)) from None
        except RecursionError:
            raise fault("the expression is nested too deeply", self.text.of(node)) from None
        except (ArithmeticError, ValueError, MemoryError) as error:
            raise fault(f"this has no value: {reason(error)}", self.text.of(node)) from None

    def unwrapped(self, node: Tree[Token] | Token) -> Tree[Token] | Token:
        """The node inside parentheses and terms."""
        while isinstance(node, Tree) and node.data == "expr_term":
            node = next(iter(_trees(node)), node.children[0])
        return node

    def _value(self, node: Tree[Token] | Token) -> Any:
        node = self.unwrapped(node)
        if isinstance(node, Token):
            raise fault(f"`{node}` is no value", self.text.of(node))
        method = getattr(self, f"_{node.data}", None)
        if method is None:
            raise fault("this kind of expression is not known", self.text.of(node))
        return method(node)

    # Simple ones.

    def _literal_value(self, node: Tree[Token]) -> Any:
        return {"true": True, "false": False, "null": None}[str(node.children[0])]

    def _int_lit(self, node: Tree[Token]) -> Any:
        return int("".join(map(str, node.children)))

    def _float_lit(self, node: Tree[Token]) -> Any:
        return number(Decimal("".join(map(str, node.children))))

    def _identifier(self, node: Tree[Token]) -> Any:
        return self.scope.variable(str(node.children[0]), self.text.of(node))

    _keyword = _identifier

    def _tuple(self, node: Tree[Token]) -> Any:
        return [self.value(child) for child in _trees(node)]

    def _object(self, node: Tree[Token]) -> Any:
        found: dict[str, Any] = {}
        for element in _trees(node):
            key, value = _trees(element)
            found[self._key(key)] = self.value(value)
        return found

    def _key(self, node: Tree[Token]) -> str:
        """A word is itself as a key; anything else is evaluated."""
        inner = self.unwrapped(node.children[0])
        if (
            isinstance(inner, Tree)
            and inner.data in ("identifier", "keyword", "literal_value")
            and inner is _only(node)
        ):
            return str(inner.children[0])
        try:
            return to_text(self.value(node.children[0]))
        except ValueFault as error:
            raise fault(f"the key of an object: {error}", self.text.of(node)) from None

    # Operators.

    def _unary_op(self, node: Tree[Token]) -> Any:
        operator, operand = str(node.children[0]).strip(), self.value(node.children[1])
        return not to_bool(operand) if operator == "!" else number(-CONTEXT.create_decimal(to_number(operand)))

    def _binary_op(self, node: Tree[Token]) -> Any:
        left_node, term = list(_trees(node))[:2]
        operator = str(_trees_of(term)[0].children[0]).strip()
        right_node = _trees_of(term)[1]
        left = self.value(left_node)
        if operator in ("&&", "||"):
            if to_bool(left) is (operator == "||"):
                return operator == "||"
            return to_bool(self.value(right_node))
        right = self.value(right_node)
        if operator in ("==", "!="):
            return equal(left, right) is (operator == "==")
        return arithmetic(operator, to_number(left), to_number(right))

    def _conditional(self, node: Tree[Token]) -> Any:
        condition, yes, no = _trees(node)
        return self.value(yes if to_bool(self.value(condition)) else no)

    # Access.

    def _get_attr_expr_term(self, node: Tree[Token]) -> Any:
        base, step = _trees(node)
        return self._step(self.value(base), step)

    _index_expr_term = _get_attr_expr_term

    def _attr_splat_expr_term(self, node: Tree[Token]) -> Any:
        base, splat = _trees(node)
        found = self.value(base)
        items = [] if found is None else found if isinstance(found, list) else [found]
        results = []
        for item in items:
            for step in _trees(splat):
                item = self._step(item, step)  # noqa: PLW2901 - the steps are walked
            results.append(item)
        return results

    _full_splat_expr_term = _attr_splat_expr_term

    def _step(self, base: Any, node: Tree[Token]) -> Any:
        if node.data == "get_attr":
            name = str(_trees_of(node)[0].children[0])
            return self._attribute(base, name, node)
        if node.data == "short_index":
            index: Any = int(str(node.children[-1]))
        else:
            index = self.value(next(_trees(node)))
        return self._item(base, index, node)

    def _attribute(self, base: Any, name: str, node: Tree[Token]) -> Any:
        if hasattr(base, "attribute"):
            return base.attribute(name, self.text.of(node))
        if isinstance(base, Mapping):
            if name in base:
                return base[name]
            known = ", ".join(f"`{key}`" for key in sorted(base)) or "none"
            raise fault(f"there is no attribute `{name}`", self.text.of(node), f"attributes are {known}")
        raise fault(f"a {kind(base)} has no attributes", self.text.of(node))

    def _item(self, base: Any, index: Any, node: Tree[Token]) -> Any:
        if isinstance(base, Mapping) or hasattr(base, "attribute"):
            return self._attribute(base, to_text(index), node)
        if isinstance(base, list):
            at = to_number(index)
            if isinstance(at, int) and 0 <= at < len(base):
                return base[at]
            raise fault(f"there is no element {to_text(at)}: the list has {len(base)}", self.text.of(node))
        raise fault(f"a {kind(base)} has no elements", self.text.of(node))

    # For.

    def _for_tuple_expr(self, node: Tree[Token]) -> Any:
        intro, result, *condition = _trees(node)
        return [scope.value(result) for scope in self._rounds(intro, condition)]

    def _for_object_expr(self, node: Tree[Token]) -> Any:
        intro, key, result, *condition = _trees(node)
        is_grouped = any(isinstance(child, Token) and child.type == "ELLIPSIS" for child in node.children)
        found: dict[str, Any] = {}
        for scope in self._rounds(intro, condition):
            name = to_text(scope.value(key))
            if is_grouped:
                found.setdefault(name, []).append(scope.value(result))
            elif name in found:
                raise fault(
                    f"two elements have the key `{name}`", self.text.of(key), "add `...` to collect them in a list"
                )
            else:
                found[name] = scope.value(result)
        return found

    def _rounds(self, intro: Tree[Token], condition: Sequence[Tree[Token]]) -> Iterator[_Evaluation]:
        parts = list(_trees(intro))
        names = [str(part.children[0]) for part in parts[:-1]]
        for key, item in _pairs(self.value(parts[-1]), self.text.of(parts[-1])):
            values = {names[0]: item} if len(names) == 1 else {names[0]: key, names[1]: item}
            inner = _Evaluation(self.text, self.scope.child(values))
            if not condition or to_bool(inner.value(next(_trees(condition[0])))):
                yield inner

    # Calls.

    def _function_call(self, node: Tree[Token]) -> Any:
        name = "::".join(str(part.children[0]) for part in _trees(node) if part.data == "identifier")
        given = [child for part in _trees(node) if part.data == "arguments" for child in part.children]
        nodes = [child for child in given if isinstance(child, Tree) and child.data != "new_line_or_comment"]
        if name in _SPECIAL:
            return self._special(name, nodes, node)
        function = self.scope.function(name, self.text.of(node))
        values = [self.value(child) for child in nodes]
        if any(isinstance(child, Token) and child.type == "ELLIPSIS" for child in given):
            last = values.pop()
            if not isinstance(last, list):
                raise fault(f"`...` stands after a {kind(last)}, not after a list", self.text.of(nodes[-1]))
            values += last
        try:
            return function(*values)
        except ValueFault as error:
            raise fault(f"{name}: {error}", self.text.of(node)) from None
        except TypeError as error:
            if "argument" not in str(error):
                raise
            raise fault(f"{name}: it does not take {len(values)} arguments", self.text.of(node)) from None

    def _special(self, name: str, nodes: Sequence[Tree[Token]], node: Tree[Token]) -> Any:
        if name == "convert":
            from aerogel.bake.types import convert

            if len(nodes) != 2:
                raise fault("convert: it takes a value and a type", self.text.of(node))
            return convert(self.value(nodes[0]), type_of(HclExpression(nodes[1], self.text)))
        errors = []
        for child in nodes:
            try:
                found = self.value(child)
            except AerogelError as error:
                errors.append(error)
            else:
                return True if name == "can" else found
        if name == "can":
            return False
        raise fault("try: no argument has a value", self.text.of(node), *(error.message for error in errors[:3]))

    # Templates.

    def _string(self, node: Tree[Token]) -> Any:
        return self._template([part.children[0] for part in _trees(node)], escapes=True)

    def _heredoc_template(self, node: Tree[Token]) -> Any:
        lines = str(node.children[0]).rstrip("\n").split("\n")[1:-1]
        if node.data.endswith("trim"):
            margins = [len(line) - len(line.lstrip(" \t")) for line in lines if line.strip()]
            lines = [line[min(margins, default=0) :] for line in lines]
        return template("".join(line + "\n" for line in lines), self.text.of(node), self.scope)

    _heredoc_template_trim = _heredoc_template

    def _template(self, parts: Sequence[Any], *, escapes: bool) -> Any:
        if len(parts) == 1 and isinstance(parts[0], Tree) and parts[0].data == "interpolation":
            return self.value(next(_trees(parts[0])))
        del escapes
        pieces: list[str] = []
        self._sequence(list(parts), 0, pieces, (), active=True)
        return joined("", pieces)

    def _sequence(self, parts: list[Any], at: int, pieces: list[str], ends: tuple[str, ...], *, active: bool) -> int:
        """Evaluates up to one of the directives in `ends`; gives its place."""
        while at < len(parts):
            part = parts[at]
            if isinstance(part, Token):
                if active:
                    pieces.append(self._literal(part, parts, at))
            elif part.data in ends:
                return at
            elif part.data == "interpolation":
                if active:
                    pieces.append(self._interpolated(part))
            elif part.data == "template_if_start":
                at = self._if(parts, at, pieces, active=active)
            elif part.data == "template_for_start":
                at = self._for(parts, at, pieces, active=active)
            else:
                raise fault(f"`{self.text.of(part).text}` has no beginning", self.text.of(part))
            at += 1
        if ends:
            raise fault("a template has no end: `%{endif}` or `%{endfor}` is missing", self.text.of(parts[-1]))
        return at

    def _interpolated(self, part: Tree[Token]) -> str:
        inner = next(_trees(part))
        try:
            return to_text(self.value(inner))
        except ValueFault as error:
            raise fault(f"this cannot be put into a string: {error}", self.text.of(inner)) from None

    def _if(self, parts: list[Any], at: int, pieces: list[str], *, active: bool) -> int:
        condition = active and to_bool(self.value(_expression(parts[at])))
        at = self._sequence(parts, at + 1, pieces, ("template_else", "template_endif"), active=condition)
        if parts[at].data == "template_else":
            at = self._sequence(parts, at + 1, pieces, ("template_endif",), active=active and not condition)
        return at

    def _for(self, parts: list[Any], at: int, pieces: list[str], *, active: bool) -> int:
        begin, nothing = parts[at], list[str]()
        end = self._sequence(parts, at + 1, nothing, ("template_endfor",), active=False)
        if active:
            names = [str(child.children[0]) for child in list(_trees(begin))[:-1]]
            over = _expression(begin)
            for key, item in _pairs(self.value(over), self.text.of(over)):
                values = {names[0]: item} if len(names) == 1 else {names[0]: key, names[1]: item}
                inner = _Evaluation(self.text, self.scope.child(values))
                inner._sequence(parts, at + 1, pieces, ("template_endfor",), active=True)
        return end

    def _literal(self, token: Token, parts: list[Any], at: int) -> str:
        written = str(token)
        if token.type in ("ESCAPED_INTERPOLATION", "ESCAPED_DIRECTIVE"):
            return written[1:]
        found = _unescape(written, self.text.of(token))
        # A `~` takes the blanks beside it away, up to and with one line end.
        if at and _strips(parts[at - 1], last=True):
            found = found.lstrip()
        if at + 1 < len(parts) and _strips(parts[at + 1], last=False):
            found = found.rstrip()
        return found


def _unknown(name: str, span: Span) -> NoReturn:
    raise fault(f"`{name}` means nothing here", span)


_NOTHING = Scope(_unknown, _unknown)


def arithmetic(operator: str, left: int | Decimal, right: int | Decimal) -> Any:
    """Raises ValueFault."""
    match operator:
        case "<":
            return left < right
        case ">":
            return left > right
        case "<=":
            return left <= right
        case ">=":
            return left >= right
    one, two = CONTEXT.create_decimal(left), CONTEXT.create_decimal(right)
    match operator:
        case "+":
            return number(CONTEXT.add(one, two))
        case "-":
            return number(CONTEXT.subtract(one, two))
        case "*":
            return number(CONTEXT.multiply(one, two))
    if not right:
        raise ValueFault("a number is divided by zero")
    return number(CONTEXT.divide(one, two) if operator == "/" else CONTEXT.remainder(one, two))


def equal(left: Any, right: Any) -> bool:
    """Whether two values are the same: of one type, and equal in all parts."""
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(equal, left, right))
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        return left.keys() == right.keys() and all(equal(left[key], right[key]) for key in left)
    return kind(left) == kind(right) and bool(left == right)


def type_of(expression: Any) -> Any:
    """The type that an expression names. Raises `bake.bad-type`."""
    from aerogel.bake.types import Type

    if not isinstance(expression, HclExpression):
        raise fault("a type is not known here", expression.span, code="bake.bad-type")
    evaluation = _Evaluation(expression.text, _NOTHING)

    def read(node: Any) -> Type:
        inner = evaluation.unwrapped(node)
        span = expression.text.of(inner)
        if isinstance(inner, Tree) and inner.data == "identifier":
            word = str(inner.children[0])
            if word in ("string", "number", "bool", "any"):
                return Type(word)
        if isinstance(inner, Tree) and inner.data == "function_call":
            word = str(_trees_of(inner)[0].children[0])
            arguments = [child for part in _trees(inner) if part.data == "arguments" for child in _trees(part)]
            if word in ("list", "set", "map") and len(arguments) == 1:
                return Type(word, inner=read(arguments[0]))
            body = evaluation.unwrapped(arguments[0]) if len(arguments) == 1 else None
            if word == "tuple" and isinstance(body, Tree) and body.data == "tuple":
                return Type("tuple", items=tuple(read(child) for child in _trees(body)))
            if word == "object" and isinstance(body, Tree) and body.data == "object":
                pairs = [list(_trees(element)) for element in _trees(body)]
                names = [expression.text.of(key).text.strip().strip('"') for key, _ in pairs]
                inners = [_optional(evaluation, value) for _, value in pairs]
                optional = frozenset(name for name, (_, is_optional) in zip(names, inners, strict=True) if is_optional)
                fields = {name: read(value) for name, (value, _) in zip(names, inners, strict=True)}
                return Type("object", fields=fields, optional=optional)
        raise fault(
            f"`{span.text.strip()}` is no type",
            span,
            "types are `string`, `number`, `bool`, `list(TYPE)`, `set(TYPE)`, `map(TYPE)`, `tuple([TYPE])`, `object({name = TYPE})`",
            code="bake.bad-type",
        )

    return read(expression.tree)


def _optional(evaluation: _Evaluation, node: Any) -> tuple[Any, bool]:
    inner = evaluation.unwrapped(node)
    if isinstance(inner, Tree) and inner.data == "function_call" and str(_trees_of(inner)[0].children[0]) == "optional":
        arguments = [child for part in _trees(inner) if part.data == "arguments" for child in _trees(part)]
        return arguments[0], True
    return node, False


def template(text: str, span: Span, scope: Scope) -> Any:
    """The value of a template whose text is not between quotes: a here-document, a string of JSON."""
    if "${" not in text and "%{" not in text:
        return text
    quoted = Text(span.source, f'x = "{_quoted(text)}"\n', whole=span)
    tree = parse_tree(quoted)
    attribute = next(tree.find_data("attribute"))
    return _Evaluation(quoted, scope).value(attribute.children[-1])


def _quoted(text: str) -> str:
    """The text as it stands between quotes: what is outside of `${}` and `%{}` escaped."""
    parts, at = [], 0
    while at < len(text):
        if text[at : at + 3] in ("$${", "%%{"):
            end = text.find("}", at)
            if end < 0:
                parts.append(text[at : at + 2].replace("$$", "$").replace("%%", "%") + "{")
                at += 3
                continue
            parts.append(text[at : end + 1])
            at = end + 1
        elif text[at : at + 2] in ("${", "%{"):
            end = _closing(text, at + 2)
            parts.append(text[at:end].replace("\n", " "))
            at = end
        else:
            parts.append({"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(text[at], text[at]))
            at += 1
    return "".join(parts)


def _closing(text: str, at: int) -> int:
    """The end of an interpolation that began before `at`, past its brace; strings inside may hold braces."""
    depth, in_string = 1, False
    while at < len(text) and depth:
        char = text[at]
        if in_string:
            if char == "\\":
                at += 1
            elif char == '"':
                in_string = False
        elif char == '"':
            in_string = True
        else:
            depth += {"{": 1, "}": -1}.get(char, 0)
        at += 1
    return at


_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\"}


def _unescape(written: str, span: Span) -> str:
    """The text between quotes with its escapes resolved."""
    if "\\" not in written:
        return written
    parts, at = [], 0
    while at < len(written):
        if written[at] != "\\":
            parts.append(written[at])
            at += 1
            continue
        char = written[at + 1 : at + 2]
        width = {"u": 4, "U": 8}.get(char, 0)
        digits = written[at + 2 : at + 2 + width]
        if width and len(digits) == width and all(digit in "0123456789abcdefABCDEF" for digit in digits):
            parts.append(chr(int(digits, 16)))
        elif char in _ESCAPES:
            parts.append(_ESCAPES[char])
        else:
            raise fault(f"`\\{char}` is no escape", span, r"known are `\n`, `\r`, `\t`, `\"`, `\\`, `\uNNNN`")
        at += 2 + width
    return "".join(parts)


def _pairs(value: Any, span: Span) -> Iterator[tuple[Any, Any]]:
    """Keys and elements in the order of HCL: lists as they are, objects by key."""
    if isinstance(value, list):
        yield from enumerate(value)
    elif isinstance(value, Mapping):
        yield from ((key, value[key]) for key in sorted(value))
    else:
        raise fault(f"a {kind(value)} has no elements to go through", span)


def _expression(node: Tree[Token]) -> Tree[Token]:
    return list(_trees(node))[-1]


def _strips(node: Any, *, last: bool) -> bool:
    if not isinstance(node, Tree) or not str(node.data).startswith("template_"):
        return False
    tokens = [child for child in node.children if isinstance(child, Token)]
    place = -2 if last else 1
    return len(tokens) > 2 and tokens[place].type == "STRIP_MARKER"


def _trees(node: Tree[Token]) -> Iterator[Tree[Token]]:
    for child in node.children:
        if isinstance(child, Tree) and child.data != "new_line_or_comment":
            yield child


def _trees_of(node: Tree[Token]) -> list[Tree[Token]]:
    return list(_trees(node))


def _only(node: Tree[Token]) -> Any:
    """The identifier of a key that is nothing but a word, without parentheses."""
    inner: Any = node.children[0]
    while isinstance(inner, Tree) and inner.data == "expr_term" and len(inner.children) == 1:
        inner = inner.children[0]
    return inner
