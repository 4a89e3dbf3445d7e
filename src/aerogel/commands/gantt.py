"""The steps of a build over time as SVG: a bar for each step that was looked at, in the order in which they began.

Pure. Spec: SVG 1.1; the colours tell the status, a bar's title has the whole instruction.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

__all__ = ["Bar", "as_svg", "seconds"]

_ROW, _GAP, _LEFT, _TOP, _WIDTH, _RIGHT = 22, 6, 380, 58, 760, 90
_LONGEST, _STAGE = 54, 16
"""Letters of a row's name, and of the stage in it."""
_COLORS = {
    "RAN": "#4c8dca",
    "CACHED": "#7fb77e",
    "REUSED": "#b5d99c",
    "FAILED": "#d9534f",
    "CANCELED": "#e6b45a",
}
_TICKS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600)


class Bar(NamedTuple):
    """A step: seconds since the build began."""

    number: int
    title: str
    status: str
    began_s: float
    ended_s: float
    stage: str = ""
    """Shown before the instruction, when there are several."""


def as_svg(title: str, bars: Sequence[Bar], duration_s: float) -> str:
    """The whole document. Text is escaped; there are no scripts and no links."""
    ordered = sorted(bars, key=lambda bar: (bar.began_s, bar.number))
    length = max([duration_s, *(bar.ended_s for bar in ordered), 0.001])
    height = _TOP + len(ordered) * (_ROW + _GAP) + 24
    width = _LEFT + _WIDTH + _RIGHT
    font = 'font-family="sans-serif" font-size="12"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" {font}>',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        f'<text x="12" y="24" font-size="15" font-weight="bold">{_text(title)}</text>',
        *_legend(),
        *_axis(length, height),
    ]
    for row, bar in enumerate(ordered):
        y = _TOP + row * (_ROW + _GAP)
        x = _LEFT + bar.began_s / length * _WIDTH
        wide = max(2.0, (bar.ended_s - bar.began_s) / length * _WIDTH)
        room = _LONGEST - len(bar.stage[:_STAGE]) - bool(bar.stage)
        name = bar.title if len(bar.title) <= room else f"{bar.title[: room - 3]}..."
        stage = f'<tspan fill="#777">{_text(bar.stage[:_STAGE])}</tspan> ' if bar.stage else ""
        spent = seconds(bar.ended_s - bar.began_s)
        lines.append(
            f"<g><title>{_text(f'#{bar.number} {bar.title}: {bar.status}, {spent}')}</title>"
            f'<text x="{_LEFT - 10}" y="{y + 15}" text-anchor="end">{stage}{_text(name)}</text>'
            f'<rect x="{x:.1f}" y="{y}" width="{wide:.1f}" height="{_ROW}" rx="3" '
            f'fill="{_COLORS.get(bar.status, "#bbbbbb")}"/>'
            f'<text x="{x + wide + 5:.1f}" y="{y + 15}" fill="#555">{spent}</text></g>'
        )
    return "\n".join([*lines, "</svg>"]) + "\n"


def seconds(value: float) -> str:
    """`12 ms`, `3.4 s`, `2 min 05 s`."""
    if value < 1:
        return f"{value * 1000:.0f} ms"
    if value < 60:
        return f"{value:.1f} s"
    return f"{int(value // 60)} min {int(value % 60):02} s"


def _legend() -> list[str]:
    lines = []
    for number, (status, color) in enumerate(_COLORS.items()):
        x = _LEFT + _WIDTH - 440 + number * 90
        lines.append(f'<rect x="{x}" y="12" width="12" height="12" rx="2" fill="{color}"/>')
        lines.append(f'<text x="{x + 17}" y="23" font-size="11">{status}</text>')
    return lines


def _axis(length: float, height: int) -> list[str]:
    step = next((tick for tick in _TICKS if length / tick <= 10), length / 10)
    lines = []
    for number in range(int(length / step) + 1):
        x = _LEFT + number * step / length * _WIDTH
        lines.append(f'<line x1="{x:.1f}" y1="{_TOP - 8}" x2="{x:.1f}" y2="{height - 18}" stroke="#e4e4e4"/>')
        at = seconds(number * step) if number else "0"
        lines.append(f'<text x="{x:.1f}" y="{height - 5}" text-anchor="middle" font-size="10" fill="#777">{at}</text>')
    return lines


def _text(text: str) -> str:
    """Escaped, without the control characters that XML does not allow."""
    return escape("".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text))
