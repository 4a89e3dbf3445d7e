"""Tables, sizes and ages as docker prints them, and the part of its `--format` templates that scripts use.

Pure functions of values. A template is text with `{{.Field}}` and `{{json .}}` or `{{json .Field}}`; `table ` before
it prints a header. Not here: conditions, loops and functions of Go's template language (they are refused).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from aerogel.errors import EXIT_USAGE, AerogelError, nearest

__all__ = ["age", "columns", "expand_template", "short_id", "size", "table_or_template"]

_ACTION = re.compile(r"\{\{-?\s*(.*?)\s*-?\}\}")
_FIELD = re.compile(r"(json\s+)?(\.[\w.]*)")
_INDEX = re.compile(r"index\s+(\.[\w.]*)((?:\s+(?:\"[^\"]*\"|\d+))+)")
_KEY = re.compile(r"\"([^\"]*)\"|(\d+)")


def columns(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Left-aligned columns, three spaces apart, as docker's; without a header when it is empty."""
    lines = [tuple(header), *map(tuple, rows)] if header else list(map(tuple, rows))
    if not lines:
        return ""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join(
        "   ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def size(size_bytes: int) -> str:
    """`77.8MB`: units of 1000, three significant digits, as docker prints sizes."""
    value = float(size_bytes)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 999.5 or unit == "TB":
            break
        value /= 1000
    return f"{value:.3g}{unit}"


def age(seconds: float) -> str:
    """`3 weeks ago`, as docker words it."""
    hours = int(seconds / 3600 + 0.5)
    minutes = int(seconds / 60)
    if seconds < 1:
        words = "Less than a second"
    elif seconds < 60:
        words = f"{int(seconds)} second{'' if int(seconds) == 1 else 's'}"
    elif minutes < 60:
        words = "About a minute" if minutes == 1 else f"{minutes} minutes"
    elif hours < 48:
        words = "About an hour" if hours == 1 else f"{hours} hours"
    else:
        days = hours // 24
        unit, length = next(one for one in _SPANS if days >= one[1] * 2)
        words = f"{days // length} {unit}"
    return f"{words} ago"


_SPANS = (("years", 365), ("months", 30), ("weeks", 7), ("days", 1))
"""A unit is used from two of it on."""


def short_id(digest: str) -> str:
    """The first 12 hexadecimal digits of a digest."""
    return digest.partition(":")[2][:12]


def table_or_template(
    form: str, fields: Sequence[tuple[str, str]], rows: Sequence[Mapping[str, str]], *, quiet_field: str = ""
) -> str:
    """Rows by docker's `--format`: "" or `table`, `json`, `table TEMPLATE`, or a template.

    `fields` are (key, heading) of the default table; with `quiet_field` only that column is printed.
    """
    if quiet_field:
        return "\n".join(row[quiet_field] for row in rows)
    if form in ("", "table"):
        return columns([heading for _, heading in fields], [[row[key] for key, _ in fields] for row in rows])
    if form == "json":
        return "\n".join(_json(row) for row in rows)
    if form.startswith("table "):
        template = form.removeprefix("table ").replace("\\t", "\t")
        headings = dict(fields)
        lines = [expand_template(template, one).split("\t") for one in ({**rows[0], **headings}, *rows)] if rows else []
        return columns((), lines)
    return "\n".join(expand_template(form, row) for row in rows)


def expand_template(template: str, value: Mapping[str, object]) -> str:
    """A template with its actions replaced. Raises `AerogelError` `cli.template` for one that is not known."""

    def replace(found: re.Match[str]) -> str:
        action = _FIELD.fullmatch(found.group(1))
        indexed = _INDEX.fullmatch(found.group(1))
        if indexed is not None:
            return _shown(_indexed(_lookup(value, indexed.group(1)), indexed.group(2)))
        if action is None:
            raise _fault(
                f"template action `{found.group()}` is not known",
                '`{{.Field}}`, `{{json .Field}}` and `{{index .Field "key"}}` are; `--format json` and a JSON tool can do the rest',
            )
        item = _lookup(value, action.group(2))
        return _json(item) if action.group(1) else _shown(item)

    return _ACTION.sub(replace, template.replace("\\t", "\t").replace("\\n", "\n"))


def _shown(item: object) -> str:
    return _json(item) if isinstance(item, (dict, list)) else _plain(item)


def _indexed(item: object, keys: str) -> object:
    """What is at the keys, one in the other; nothing where there is none, as Go's `index` of a map says."""
    for name, number in _KEY.findall(keys):
        if isinstance(item, Mapping):
            item = item.get(name or number, "")
        elif isinstance(item, (list, tuple)) and number and int(number) < len(item):
            item = item[int(number)]
        else:
            raise _fault(f"template key `{name or number}` is not there", "`{{json .}}` shows all that is")
    return item


def _lookup(value: object, path: str) -> object:
    for name in path.split("."):
        if not name:
            continue
        if not isinstance(value, Mapping) or name not in value:
            known = list(value) if isinstance(value, Mapping) else []
            guess = nearest(name, known)
            hint = f"did you mean `.{guess}`?" if guess else f"fields are {', '.join(f'`.{one}`' for one in known)}"
            raise _fault(f"template field `{path}` is not known", hint)
        value = value[name]
    return value


def _plain(item: object) -> str:
    if item is None:
        return "<nil>"
    if isinstance(item, bool):
        return "true" if item else "false"
    return str(item)


def _json(item: object) -> str:
    import msgspec

    return msgspec.json.encode(item).decode()


def _fault(message: str, hint: str) -> AerogelError:
    return AerogelError(message, code="cli.template", hints=[hint], exit_status=EXIT_USAGE)
