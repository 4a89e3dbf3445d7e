"""Bake files evaluated: variables, functions, groups, targets with their matrices, in the order that they need.

A variable is evaluated when something asks for it, and so is an attribute of another target (`target.base.args`); a
circle of them is told. Blocks of the same name in several files are merged in the order of the files.
Spec: bake file reference.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from aerogel.bake.expressions import Scope, fault, type_of
from aerogel.bake.functions import functions
from aerogel.bake.hcl import Attribute, Block, Body
from aerogel.bake.model import FIELDS, Group, Target, read_field
from aerogel.bake.types import Type, convert, from_text
from aerogel.bake.values import ValueFault, encode_json, kind, to_bool, to_text
from aerogel.errors import EXIT_USAGE, AerogelError, Span, nearest

__all__ = ["Definition", "Variable", "evaluate", "valid_name"]

_NAME = re.compile(r"[a-zA-Z0-9_-]+")
_VARIABLE_KEYS = ("default", "description", "type")
_FUNCTION_KEYS = ("params", "variadic_params", "variadic_param", "result")
_GROUP_KEYS = ("description", "targets", "name")
_ALIASES = {"outputs": "output", "secrets": "secret", "platform": "platforms"}


class Variable:
    """A variable for lists: its value is none when it is null."""

    def __init__(self, name: str, description: str, type_: str, value: str | None) -> None:
        self.name = name
        self.description = description
        self.type = type_
        self.value = value


class Definition:
    """All groups and targets by name, in the order of the files.

    With `is_relative` the contexts of a target are relative to the file that names them, not to the current folder.
    """

    def __init__(self, *, is_relative: bool = False) -> None:
        self.is_relative = is_relative
        self.groups: dict[str, Group] = {}
        self.targets: dict[str, Target] = {}
        self.variables: list[Variable] = []

    def add_group(self, group: Group) -> None:
        old = self.groups.get(group.name)
        if old is None:
            self.groups[group.name] = group
        else:
            old.targets = list(dict.fromkeys([*old.targets, *group.targets]))

    def add_target(self, target: Target, file: str = "") -> None:
        """`file` is the one that defines it, as the user named it."""
        if self.is_relative and file not in ("", "stdin"):
            target.rebase(posixpath.dirname(file))
        old = self.targets.get(target.name)
        if old is None:
            self.targets[target.name] = target
        else:
            old.merge(target)


def valid_name(name: str, span: Span | None) -> None:
    """Raises `bake.bad-name`."""
    if not _NAME.fullmatch(name):
        raise AerogelError(
            f"`{name}` cannot be the name of a target",
            code="bake.bad-name",
            span=span,
            exit_status=EXIT_USAGE,
            hints=["names have letters, digits, `_` and `-`"],
        )


def evaluate(
    bodies: Sequence[Body], lookup: Callable[[str], str | None], built_in: Mapping[str, str], into: Definition
) -> None:
    """Adds what the files define. `lookup` gives variables of the environment, `built_in` cannot be overridden.

    Raises AerogelError `bake.*` with places.
    """
    _Evaluator(bodies, lookup, built_in, into).run()


class _Evaluator:
    def __init__(
        self,
        bodies: Sequence[Body],
        lookup: Callable[[str], str | None],
        built_in: Mapping[str, str],
        into: Definition,
    ) -> None:
        self.lookup = lookup
        self.into = into
        self.values: dict[str, Any] = dict(built_in)
        self.types: dict[str, Type | None] = {}
        self.busy: list[str] = []
        self.stock = functions()
        self.made: dict[str, Any] = {}
        blocks = [block for body in bodies for block in body.blocks]
        self.variables = {block.labels[0]: block for block in _labelled(blocks, "variable")}
        self.functions = {block.labels[0]: block for block in _labelled(blocks, "function")}
        self.attributes = {name: each for body in bodies for name, each in body.attributes.items()}
        self.blocks = [*_labelled(blocks, "group"), *_labelled(blocks, "target")]
        self.scope = Scope(self.variable, self.function)
        self.rounds: dict[str, list[tuple[Block, Scope]]] = {}
        """Target -> its blocks, with the values of the matrix."""
        self.parts: dict[tuple[str, str], Any] = {}
        known = ("variable", "function", "group", "target")
        for block in blocks:
            if block.type not in known:
                guess = nearest(block.type, known)
                hint = (
                    f"did you mean `{guess}`?" if guess else "blocks are `target`, `group`, `variable` and `function`"
                )
                raise fault(f"there is no block `{block.type}`", block.span, hint, code="bake.unknown-block")

    def run(self) -> None:
        for name, block in self.variables.items():
            self.into.variables.append(self._listed(name, block))
        for name, block in self.variables.items():
            self._validate(name, block)
        for name, block in self.functions.items():
            self.function(name, block.span)
        renamed = self._name_targets()
        for block in self.blocks:
            if block.type == "group":
                self.into.add_group(self._group(block))
        for name, rounds in self.rounds.items():
            for block, scope in rounds:
                self.into.add_target(self._target(name, block, scope), block.span.source.name)
        for old, names in renamed.items():
            if names != [old]:
                self.into.add_group(Group(old, names))
        for name, attribute in self.attributes.items():
            self.variable(name, attribute.span)

    # Variables.

    def variable(self, name: str, span: Span) -> Any:
        """The value of a variable, or the targets or groups as an object."""
        if name in self.values:
            return self.values[name]
        if name in ("target", "group"):
            return _Blocks(self, name)
        if name not in self.variables and name not in self.attributes:
            guess = nearest(name, [*self.variables, *self.attributes, *self.values])
            hint = f"did you mean `{guess}`?" if guess else f'define it: `variable "{name}" {{ default = "..." }}`'
            raise fault(f"there is no variable `{name}`", span, hint, code="bake.unknown-variable")
        with self._circle(f"variable `{name}`", span):
            self.values[name] = self._variable(name)
        return self.values[name]

    def _variable(self, name: str) -> Any:
        block = self.variables.get(name)
        attribute = self.attributes.get(name)
        if block is not None:
            _refuse_unknown(block, _VARIABLE_KEYS, "variable")
            attribute = attribute or block.body.attributes.get("default")
        wanted = self._type(block)
        self.types[name] = wanted
        default = None if attribute is None else attribute.expression.value(self.scope)
        try:
            if block is not None:
                given = self._given(name)
                if given is not None:
                    return from_text(given[0], wanted, default, is_json=given[1])
            return default if wanted is None else convert(default, wanted)
        except ValueFault as error:
            place = block.span if block is not None else attribute.span if attribute is not None else None
            message = f"variable `{name}`: {error}"
            raise AerogelError(
                message,
                code="bake.bad-variable",
                span=place,
                exit_status=EXIT_USAGE,
                hints=["the environment or `--var` gave the value"] if self._given(name) is not None else [],
            ) from None

    def _given(self, name: str) -> tuple[str, bool] | None:
        """What the environment says of a variable, and whether it is JSON."""
        json_name = f"{name}_JSON"
        text = self.lookup(json_name) if json_name not in self.variables else None
        if text is not None:
            return text, True
        text = self.lookup(name)
        return None if text is None else (text, False)

    def _type(self, block: Block | None) -> Type | None:
        found = block.body.attributes.get("type") if block is not None else None
        wanted: Type | None = None if found is None else type_of(found.expression)
        return wanted

    def _listed(self, name: str, block: Block) -> Variable:
        value = self.variable(name, block.span)
        written = block.body.attributes.get("description")
        description = "" if written is None else to_text(written.expression.value(self.scope))
        shown = None if value is None else encode_json(value) if isinstance(value, list | dict) else to_text(value)
        wanted = self.types.get(name)
        return Variable(name, description, "" if wanted is None else str(wanted), shown)

    def _validate(self, name: str, block: Block) -> None:
        for rule in (inner for inner in block.body.blocks if inner.type == "validation"):
            condition = rule.body.attributes.get("condition")
            message = rule.body.attributes.get("error_message")
            if condition is None or message is None:
                raise fault("a validation has a `condition` and an `error_message`", rule.span)
            try:
                is_valid = to_bool(condition.expression.value(self.scope))
            except ValueFault as error:
                raise fault(f"the condition: {error}", condition.expression.span) from None
            if not is_valid:
                raise AerogelError(
                    f"variable `{name}`: {to_text(message.expression.value(self.scope))}",
                    code="bake.validation",
                    span=condition.expression.span,
                    exit_status=EXIT_USAGE,
                    hints=[f"its value is `{encode_json(self.values[name])}`"],
                )

    # Functions.

    def function(self, name: str, span: Span) -> Callable[..., Any]:
        if name in self.functions:
            if name not in self.made:
                self.made[name] = self._function(name, self.functions[name])
            found: Callable[..., Any] = self.made[name]
            return found
        if name in self.stock:
            return self.stock[name]
        guess = nearest(name, [*self.stock, *self.functions, "try", "can", "convert"])
        hint = f"did you mean `{guess}`?" if guess else f'define it: `function "{name}" {{ params = [] result = ... }}`'
        raise fault(f"there is no function `{name}`", span, hint, code="bake.unknown-function")

    def _function(self, name: str, block: Block) -> Callable[..., Any]:
        _refuse_unknown(block, _FUNCTION_KEYS, "function")
        attributes = block.body.attributes
        params = attributes["params"].expression.words() if "params" in attributes else []
        rest = attributes.get("variadic_params") or attributes.get("variadic_param")
        more = "" if rest is None else rest.expression.keyword()
        if "result" not in attributes:
            raise fault(f"function `{name}` has no `result`", block.span)
        result = attributes["result"].expression
        depth = [0]

        def function(*values: Any) -> Any:
            if len(values) < len(params) or (len(values) > len(params) and not more):
                raise ValueFault(f"it takes {len(params)} arguments, not {len(values)}")
            local = dict(zip(params, values, strict=False))
            if more:
                local[more] = list(values[len(params) :])
            depth[0] += 1
            try:
                if depth[0] > 100:
                    raise fault(f"function `{name}` calls itself without end", block.span)
                return result.value(self.scope.child(local))
            finally:
                depth[0] -= 1

        return function

    # Groups and targets.

    def _group(self, block: Block) -> Group:
        if "matrix" in block.body.attributes:
            raise fault("a group has no matrix", block.body.attributes["matrix"].span)
        _refuse_unknown(block, _GROUP_KEYS, "group")
        values = {name: each.expression.value(self.scope) for name, each in block.body.attributes.items()}
        name = values.get("name", block.labels[0])
        valid_name(name, block.span)
        targets = values.get("targets")
        if not isinstance(targets, list):
            raise fault(f"group `{name}` has no list of `targets`", block.span)
        return Group(name, [to_text(each) for each in targets], to_text(values.get("description") or ""), block.span)

    def _name_targets(self) -> dict[str, list[str]]:
        """Evaluates matrices and names; gives the new names by the old."""
        renamed: dict[str, list[str]] = {}
        for block in self.blocks:
            if block.type != "target":
                continue
            valid_name(block.labels[0], block.span)
            names = []
            for scope in self._matrix(block):
                name = self._target_name(block, scope)
                if name in names:
                    raise fault(f"two targets of the matrix have the name `{name}`", block.span, code="bake.bad-name")
                names.append(name)
                self.rounds.setdefault(name, []).append((block, scope))
            known = renamed.setdefault(block.labels[0], [])
            known += [name for name in names if name not in known]
        return renamed

    def _target_name(self, block: Block, scope: Scope) -> str:
        written = block.body.attributes.get("name")
        if written is None:
            if "matrix" in block.body.attributes:
                span = block.body.attributes["matrix"].span
                raise fault("a target with a matrix needs a `name`", span, 'for example `name = "app-${item}"`')
            return block.labels[0]
        if "matrix" not in block.body.attributes:
            raise fault("`name` is for targets with a matrix", written.span, "the label is the name")
        try:
            name = to_text(written.expression.value(scope))
        except ValueFault as error:
            raise fault(f"the name: {error}", written.expression.span) from None
        valid_name(name, written.expression.span)
        return name

    def _matrix(self, block: Block) -> Iterator[Scope]:
        written = block.body.attributes.get("matrix")
        if written is None:
            yield self.scope
            return
        matrix = written.expression.value(self.scope)
        if not isinstance(matrix, Mapping):
            raise fault(f"a matrix is a map of lists, not a {kind(matrix)}", written.expression.span)
        rows: list[dict[str, Any]] = [{}]
        for name in sorted(matrix):
            if not isinstance(matrix[name], list | Mapping):
                raise fault(f"`{name}` of the matrix is no list", written.expression.span)
            items = (
                matrix[name] if isinstance(matrix[name], list) else [matrix[name][key] for key in sorted(matrix[name])]
            )
            rows = [{**row, name: item} for item in items for row in rows]
        for row in rows:
            yield self.scope.child(row)

    def _target(self, name: str, block: Block, scope: Scope) -> Target:
        target = Target(name)
        for key, attribute in block.body.attributes.items():
            if key in ("name", "matrix"):
                continue
            field = _field(key, attribute)
            value = self._part(name, block, scope, field, attribute)
            if value is not None:
                target.values[field] = value
                target.spans[field] = attribute.expression.span
        if block.body.blocks:
            inner = block.body.blocks[0]
            raise fault(f"a target has no block `{inner.type}`", inner.span, f"write `{inner.type} = {{ ... }}`")
        return target

    def _part(self, name: str, block: Block, scope: Scope, field: str, attribute: Attribute) -> Any:
        """One attribute of one block of a target, evaluated once."""
        key = (f"{name} {id(block)}", field)
        if key not in self.parts:
            with self._circle(f"`target.{name}.{field}`", attribute.span):
                value = attribute.expression.value(scope)
                try:
                    self.parts[key] = None if value is None else read_field(field, value)
                except ValueFault as error:
                    raise fault(f"`{field}` of target `{name}`: {error}", attribute.expression.span) from None
        return self.parts[key]

    def block_attribute(self, type_: str, name: str, field: str, span: Span) -> Any:
        """What `target.NAME.FIELD` is: the merged value of all blocks of the name."""
        if type_ == "group":
            group = self.into.groups.get(name)
            blocks = [block for block in self.blocks if block.type == "group" and block.labels[0] == name]
            found = group or (self._group(blocks[0]) if blocks else None)
            if found is None or field not in ("targets", "description"):
                raise fault(f"there is no `group.{name}.{field}`", span)
            return found.targets if field == "targets" else found.description
        if name not in self.rounds:
            guess = nearest(name, self.rounds)
            raise fault(f"there is no target `{name}`", span, *([f"did you mean `{guess}`?"] if guess else []))
        if field == "name":
            return name
        if field not in FIELDS:
            raise fault(f"a target has no attribute `{field}`", span)
        merged = Target(name)
        is_set = False
        for block, scope in self.rounds[name]:
            for key, attribute in block.body.attributes.items():
                if _ALIASES.get(key, key) == field:
                    is_set = True
                    value = self._part(name, block, scope, field, attribute)
                    merged.merge(Target(name, {field: value}))
        return merged.values.get(field, {} if is_set and FIELDS[field] == "map" else None)

    def _circle(self, what: str, span: Span) -> _Circle:
        return _Circle(self.busy, what, span)


class _Circle:
    """Something is being evaluated; asking for it again meanwhile is a circle."""

    def __init__(self, busy: list[str], what: str, span: Span) -> None:
        self.busy, self.what, self.span = busy, what, span

    def __enter__(self) -> None:
        if self.what in self.busy:
            names = [*self.busy[self.busy.index(self.what) :], self.what]
            raise fault(
                "values need each other in a circle: " + " -> ".join(names),
                self.span,
                "give one of them a value that needs no other",
                code="bake.cycle",
            )
        self.busy.append(self.what)

    def __exit__(self, *about: object) -> None:
        self.busy.pop()


class _Blocks:
    """`target` or `group` in an expression; then one of them, then its attribute."""

    def __init__(self, evaluator: _Evaluator, type_: str, name: str = "") -> None:
        self.evaluator, self.type, self.name = evaluator, type_, name

    def attribute(self, name: str, span: Span) -> Any:
        if not self.name:
            return _Blocks(self.evaluator, self.type, name)
        return self.evaluator.block_attribute(self.type, self.name, _ALIASES.get(name, name), span)


def _labelled(blocks: Sequence[Block], type_: str) -> Iterator[Block]:
    for block in blocks:
        if block.type != type_:
            continue
        if len(block.labels) != 1:
            raise fault(
                f"a `{type_}` has one name", block.span, f'write `{type_} "NAME" {{ ... }}`', code="bake.syntax"
            )
        yield block


def _field(key: str, attribute: Attribute) -> str:
    field = _ALIASES.get(key, key)
    if field not in FIELDS:
        guess = nearest(key, FIELDS)
        hint = f"did you mean `{guess}`?" if guess else "see `docs/reference/bake.md` for the attributes"
        raise fault(f"a target has no attribute `{key}`", attribute.span, hint, code="bake.unknown-attribute")
    return field


def _refuse_unknown(block: Block, known: Sequence[str], what: str) -> None:
    for key, attribute in block.body.attributes.items():
        if key not in known:
            guess = nearest(key, known)
            hint = f"did you mean `{guess}`?" if guess else "attributes are " + ", ".join(f"`{one}`" for one in known)
            raise fault(f"a {what} has no attribute `{key}`", attribute.span, hint, code="bake.unknown-attribute")
