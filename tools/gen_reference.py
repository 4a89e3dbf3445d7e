"""Writes docs/reference/{commands,settings,errors,events,lint,bases}.md from the source, or checks that they are current.

python tools/gen_reference.py --write
python tools/gen_reference.py --check
"""

from __future__ import annotations

import argparse
import ast
import difflib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, get_args, get_origin, get_type_hints

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "src"))

import msgspec  # noqa: E402 - the path comes first

from aerogel import events, settings  # noqa: E402
from aerogel.cli import parse  # noqa: E402
from aerogel.commands.table import COMMANDS, Command  # noqa: E402
from aerogel.distroless import declaration, extend  # noqa: E402
from aerogel.lint.dockerfile import RULES  # noqa: E402
from aerogel.lint.image import IMAGE_RULES  # noqa: E402

FOLDER = ROOT / "docs" / "reference"
NOTE = "<!-- Made by tools/gen_reference.py; change the source instead. -->\n"
CODE = re.compile(r"[a-z]+(?:\.[a-z][a-z0-9-]*)+")
FILE_ENDINGS = (".py", ".yaml", ".json", ".tar", ".txt", ".toml", ".list", ".xz", ".zst", ".gz", ".service", ".so")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    modes = parser.add_mutually_exclusive_group(required=True)
    modes.add_argument("--write", action="store_true")
    modes.add_argument("--check", action="store_true")
    write = parser.parse_args().write
    status = 0
    for name, text in pages().items():
        path = FOLDER / name
        found = path.read_text() if path.exists() else ""
        if found == text:
            continue
        if write:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            print(f"wrote {path.relative_to(ROOT)}")
            continue
        status = 1
        lines = difflib.unified_diff(found.splitlines(), text.splitlines(), name, f"{name} (current)", lineterm="", n=1)
        print("\n".join(list(lines)[:40]))
    if status:
        print("run `python tools/gen_reference.py --write`")
    return status


def pages() -> dict[str, str]:
    """File name -> text of every generated page."""
    return {
        "commands.md": NOTE + commands_page(),
        "settings.md": NOTE + settings_page(),
        "errors.md": NOTE + errors_page(),
        "events.md": NOTE + events_page(),
        "lint.md": NOTE + lint_page(),
        "bases.md": NOTE + bases_page(),
    }


def commands_page() -> str:
    parts = [
        "# Commands\n\nEvery option can also be given in `aerogel.toml` (table `[command]`) and by the variable named here.\n"
    ]
    common = parse.options_of(parse.Common)
    for group in dict.fromkeys(command.group for command in COMMANDS):
        parts += [command_section(one) for one in COMMANDS if one.group == group]
    parts.append("## Flags of every command\n\n" + option_table(common, None))
    return "\n".join(parts)


def command_section(command: Command) -> str:
    spec = parse.specification(command)
    lines = [f"## aerogel {command.name}\n", f"{spec.summary or command.help}\n"]
    if command.aliases:
        lines.append(f"Also: {', '.join(f'`aerogel {one}`' for one in command.aliases)}.\n")
    words = [one for one in spec.options if one.flag.positional]
    lines.append(f"```\n{parse.usage(spec)}\n```\n")
    if words:
        lines += [f"- `{one.metavar}`: {one.flag.help}" for one in words] + [""]
    flags = tuple(one for one in spec.options if not one.flag.positional and not one.flag.hidden)
    if flags:
        lines.append(option_table(flags, command))
    if spec.examples:
        lines.append("```")
        for comment, example in spec.examples:
            lines += [f"# {comment}", example]
        lines.append("```\n")
    return "\n".join(lines)


def option_table(options: tuple[parse.Option, ...], command: Command | None) -> str:
    rows = ["| flag | what | default | variable |", "|---|---|---|---|"]
    for one in options:
        value = "" if one.kind == parse.SWITCH else f" {one.metavar}"
        default = (
            ""
            if one.default in (None, "", False, (), {}) or one.is_required or one.kind in (parse.LIST, parse.TABLE)
            else f"`{str(one.default).lower() if isinstance(one.default, bool) else one.default}`"
        )
        variable = parse.variable_of(command, one) if command else one.flag.env
        cells = [f"`{', '.join(one.names())}{value}`", one.flag.help, default, f"`{variable}`" if variable else ""]
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows) + "\n"


def settings_page() -> str:
    rows = ["| key in `aerogel.toml` | variable | values | what |", "|---|---|---|---|"]
    for name, kind in get_type_hints(settings.Settings, include_extras=True).items():
        if get_origin(kind) is not Annotated:
            continue
        inner, flag = get_args(kind)
        members = [one for one in get_args(inner) if one is not type(None)] or [inner]
        values = ", ".join(
            f"`{one}`" if isinstance(one, str) else {str: "text", int: "number", bool: "`true`, `false`"}.get(one, "")
            for one in members
        )
        rows.append(f"| `{name}` | `{flag.env or 'AEROGEL_' + name.upper()}` | {values} | {flag.help} |")
    intro = (settings.__doc__ or "").split("\n\n", 1)[1].replace("::\n\n", ":\n\n```toml\n", 1)
    intro = re.sub(r"(?m)^    ", "", intro).replace("\n\nA registry's", "\n```\n\nA registry's", 1)
    return f"# Settings\n\n{intro.strip()}\n\n" + "\n".join(rows) + "\n"


def events_page() -> str:
    lines = [
        "# Events\n",
        "`--progress=json` writes one object a line on standard error: `event` and the fields below. A step's output",
        "comes as `log` with `step`, `stream` (1 or 2) and `line`, in whole lines. An error at the end is an object",
        "with `event` `error`, `code`, `message`, `file`, `line`, `column`, `detail`, `hints`, `exit_status`.\n",
        "| event | fields | what |",
        "|---|---|---|",
    ]
    for kind in (events.StepStarted, events.StepDone, events.Progress, events.Message):
        words = " ".join((kind.__doc__ or "").split())
        lines.append(f"| `{kind.kind}` | {', '.join(f'`{name}`' for name in sorted(kind.__slots__))} | {words} |")
    lines.append(
        "| `warning` | `code`, `message`, `severity`, `file`, `line`, `column`, `hints` | A remark that stops nothing. |"
    )
    return "\n".join(lines) + "\n"


def lint_page() -> str:
    lines = [
        "# Lint rules\n",
        "`aerogel lint`, `aerogel build --check` and every build know these rules, by the names that docker's build checks",
        "have. A page each: what it prints, why, a bad and a good example.\n",
        "Switch rules off with `# check=skip=Rule,Rule` in the first lines of the file or, for one instruction, with the",
        "same comment right above it; `# check=error=true` makes findings fail. `--build-arg BUILDKIT_DOCKERFILE_CHECK=...`",
        "takes the place of the comment at the top of the file. Experimental rules run only when asked for, with",
        "`# check=experimental=Rule` or `--experimental`.\n",
        "| rule | what holds |",
        "|---|---|",
    ]
    for rule in sorted(RULES, key=lambda rule: rule.name):
        note = " (experimental)" if rule.experimental else ""
        lines.append(f"| [{rule.name}](../lint/{rule.name}.md) | {rule.summary}{note} |")
    lines += [
        "\n## Rules for images\n",
        "These are aerogel's own. They need the finished image, so a build tells them and `aerogel lint` does not; they are",
        "switched off and made errors in the same way, and an image that fails by them is not kept.\n",
        "| rule | what holds |",
        "|---|---|",
        *(f"| [{rule.name}](../lint/{rule.name}.md) | {rule.summary} |" for rule in IMAGE_RULES),
    ]
    return "\n".join(lines) + "\n"


def bases_page() -> str:
    schema = msgspec.json.schema(declaration.Declaration)["$defs"]
    lines = [
        "# Declarations of bases\n",
        "The fields of `base.yaml`; [base.schema.json](base.schema.json) is the same for editors. A guide: ",
        "[make a base image of your own](../guides/bases.md). Every field may be left out unless it is marked with `*`;",
        "what is not said is inherited from the base that `extends` names.\n",
        " ".join((extend.__doc__ or "").partition("Order, later wins:")[2].split()).join(("Order, later wins: ", "\n")),
        f"These lists grow along `extends`: {', '.join(f'`{one}`' for one in sorted(declaration.APPENDED))}; every other",
        "list takes the place of the inherited one.\n",
    ]
    order = ["Declaration", *sorted(set(schema) - {"Declaration", "Part", "Variant"}), "Variant"]
    part = set(schema["Part"]["properties"])
    for name in order:
        one = schema[name]
        fields = {key: value for key, value in one["properties"].items() if name != "Variant" or key not in part}
        title = {"Declaration": "A base", "Variant": "Variant (and all fields of a base's content)"}.get(name, name)
        lines += [f"## {title}\n", one.get("description", "") + "\n", "| field | value | what |", "|---|---|---|"]
        for key, value in fields.items():
            mark = "*" if key in one.get("required", ()) else ""
            lines.append(f"| `{key}`{mark} | {kind_of(value)} | {escape(value.get('description', ''))} |")
        lines.append("")
    lines += ["## What `releases`, `profiles` and `variants` may say\n", "Fields of a base's content: "]
    lines.append(", ".join(f"`{one}`" for one in sorted(part)) + ".")
    return "\n".join(lines) + "\n"


def kind_of(value: dict[str, object]) -> str:
    """The type of a field in a few words."""
    if "$ref" in value:
        name = str(value["$ref"]).rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in value:
        return " or ".join(dict.fromkeys(kind_of(one) for one in value["anyOf"] if one.get("type") != "null"))
    if "enum" in value:
        return ", ".join(f"`{one}`" for one in value["enum"] if one is not None)
    if value.get("type") == "array":
        items = value.get("items")
        return f"list of {kind_of(items)}" if isinstance(items, dict) else "list"
    if value.get("type") == "object":
        inner = value.get("additionalProperties")
        return f"map to {kind_of(inner)}" if isinstance(inner, dict) else "map"
    return {"string": "text", "integer": "number", "boolean": "`true`, `false`"}.get(str(value.get("type")), "")


def errors_page() -> str:
    found: dict[str, dict[str, None]] = {}
    for path in sorted((ROOT / "src/aerogel").rglob("*.py")):
        for code, message in codes_in(ast.parse(path.read_text())):
            found.setdefault(code, {})
            if message:
                found[code][message] = None
    areas = {code.split(".")[0] for code, messages in found.items() if messages}
    lines = [
        "# Errors\n",
        "Each error has a stable code, shown by `--progress=json`. `...` stands for what differs from case to case.",
        "Exit statuses: 1 the input is wrong or a step failed, 2 the command line is wrong, 3 the host cannot do it, 4 the",
        "network failed, 130 interrupted.\n",
    ]
    for area in sorted(areas):
        lines += [f"## {area}\n", "| code | messages |", "|---|---|"]
        for code in sorted(one for one in found if one.split(".")[0] == area):
            lines.append(f"| `{code}` | {'<br>'.join(escape(one) for one in found[code])} |")
        lines.append("")
    return "\n".join(lines).rstrip("\n") + "\n"


def escape(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def codes_in(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """(code, message or "") of every error that a module may make, as far as the source tells."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            values = [*node.args, *(one.value for one in node.keywords if one.arg == "code")]
            message = next(filter(None, map(shown, node.args[:2])), "")
            name = ast.unparse(node.func).rsplit(".", 1)[-1]
            is_error = any(one.arg == "code" for one in node.keywords) or name in {"_usage", "_fault"}
            for value in values:
                code = shown(value)
                if is_code(code):
                    yield code, message if is_error and message != code else ""
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and is_code(node.value):
            yield node.value, ""


def is_code(text: str) -> bool:
    return CODE.fullmatch(text.replace("...", "x")) is not None and not text.endswith(FILE_ENDINGS)


def shown(node: ast.AST) -> str:
    """A string or f-string as text, `...` for what is computed."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(one.value if isinstance(one, ast.Constant) else "..." for one in node.values)
    return ""


if __name__ == "__main__":
    sys.exit(main())
