"""Results and errors as text or JSON: data to standard output, everything else to standard error."""

from __future__ import annotations

import sys

from aerogel.errors import AerogelError, Faults, render

TYPE_CHECKING = False
if TYPE_CHECKING:
    from aerogel.commands.result import Result

__all__ = ["ended", "error_json", "json_text", "render_error", "write_output"]


def write_output(text: str) -> None:
    """Text on standard output, as UTF-8 whatever the locale; names that are not UTF-8 come out as they were."""
    if not text:
        return
    sys.stdout.flush()
    sys.stdout.buffer.write(ended(text).encode("utf-8", "surrogateescape"))
    sys.stdout.buffer.flush()


def ended(text: str) -> str:
    """The text with a line end, unless it is empty."""
    return text + "\n" if text and not text.endswith("\n") else text


def json_text(result: Result) -> str:
    """What `--json` prints."""
    import msgspec

    return msgspec.json.format(msgspec.json.encode(result), indent=2).decode()


def render_error(error: AerogelError, *, color: bool, as_json: bool) -> str:
    """An error as it goes to standard error, without a line end."""
    return error_json(error) if as_json else render(error, color=color)


def error_json(error: AerogelError) -> str:
    """One line of JSON for an error, of the same form as the events of `--progress=json`."""
    import msgspec

    errors = error.errors if isinstance(error, Faults) else (error,)
    return "\n".join(msgspec.json.encode(_fields(one)).decode() for one in errors)


def _fields(error: AerogelError) -> dict[str, object]:
    span = error.span
    return {
        "event": "error",
        "code": error.code,
        "message": error.message,
        "file": span.source.name if span else None,
        "line": span.line if span else None,
        "column": span.column if span else None,
        "detail": error.detail,
        "hints": list(error.hints),
        "exit_status": error.exit_status,
    }
