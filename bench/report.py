"""Rows of the harness as a Markdown table and as a picture: medians, and ratios to the best peer.

python3 bench/report.py rows.jsonl      writes results.json, RESULTS.md and results.svg from rows of several runs
"""

from __future__ import annotations

import json
import math
import re
import statistics
import sys
from pathlib import Path
from typing import Any

from workloads import WORKLOADS

Row = dict[str, Any]
OURS = "aerogel"
TARGETS = {
    ("w1", "again"): (0.45, "0.05 s"),
    ("w2", "steps"): (0.40, "0.30 s"),
    ("w3", "cold"): (0.30, "4.5 s"),
    ("w3", "again"): (0.30, "0.40 s"),
    ("w3", "touched"): (0.20, "2.5 s"),
    ("w4", "cold"): (0.60, "6.5 s"),
    ("w4", "again"): (0.45, "0.05 s"),
    ("w5", "cold"): (0.90, "10 s"),
    ("w6", "steps"): (0.94, "3.25 s"),
    ("w7", "cold"): (0.50, "3.0 s"),
}
"""Wall: ratio to the best peer, and seconds on the machine of the notes."""

_WIDE_SPREAD = 0.25


class Line:
    """One variant of a workload."""

    def __init__(self, rows: list[Row]) -> None:
        self.workload, self.variant = rows[0]["workload"], rows[0]["variant"]
        self.peers = sorted({row["peer"] for row in rows}, key=lambda name: (name != OURS, name))
        self.rows = rows

    def values(self, peer: str, key: str) -> list[float]:
        return [row[key] for row in sorted(self.rows, key=lambda row: row["round"]) if row["peer"] == peer]

    def median(self, peer: str, key: str) -> float:
        return statistics.median(self.values(peer, key))

    def best(self, key: str) -> str | None:
        """The peer with the lowest median."""
        others = [peer for peer in self.peers if peer != OURS]
        return min(others, key=lambda peer: self.median(peer, key)) if others else None

    def ratios(self, key: str) -> list[float]:
        """Ours to the best peer, round by round."""
        best = self.best(key)
        return (
            [] if best is None else [a / b for a, b in zip(self.values(OURS, key), self.values(best, key), strict=True)]
        )

    def size(self, peer: str) -> int | None:
        return next((row["size"] for row in self.rows if row["peer"] == peer and "size" in row), None)


def lines(rows: list[Row]) -> list[Line]:
    keys = dict.fromkeys((row["workload"], row["variant"]) for row in rows)
    return [Line([row for row in rows if (row["workload"], row["variant"]) == key]) for key in keys]


def table(rows: list[Row]) -> str:
    """Wall / CPU seconds, memory and size of each, and our ratio to the best peer."""
    found = lines(rows)
    peers = sorted({peer for line in found for peer in line.peers}, key=lambda name: (name != OURS, name))
    out = [
        "| workload | " + " | ".join(peers) + " | wall ratio (spread) | CPU ratio | target |",
        "|---|" + "---|" * (len(peers) + 3),
    ]
    for line in found:
        title = WORKLOADS[line.workload].title
        cells = [f"**{line.workload.upper()}** {title}: {line.variant}"]
        for peer in peers:
            if peer not in line.peers:
                cells.append("")
                continue
            size = line.size(peer)
            cells.append(
                f"{line.median(peer, 'wall_s'):.2f} s / {line.median(peer, 'cpu_s'):.2f} s, "
                f"{line.median(peer, 'memory_mb'):.0f} MB" + (f", {size / 1e6:.1f} MB out" if size else "")
            )
        wall, cpu = line.ratios("wall_s"), line.ratios("cpu_s")
        if wall:
            middle = statistics.median(wall)
            spread = (max(wall) - min(wall)) / middle
            cells += [f"{middle:.2f} ({spread:.0%}{', wide' if spread > _WIDE_SPREAD else ''})"]
            cells += [f"{statistics.median(cpu):.2f}"]
        else:
            cells += ["", ""]
        target = TARGETS.get((line.workload, line.variant))
        cells.append(f"{target[0]:.2f}, {target[1]}" if target else "")
        out.append("| " + " | ".join(cells) + " |")
    return "\n".join(out)


COLORS = {OURS: "#0b6e4f", "docker": "#1d63ed", "buildah": "#b8860b", "podman": "#892ca0"}


def picture(rows: list[Row]) -> str:
    """Wall time on a logarithmic scale, one row for each variant, aerogel at 1."""
    found = [line for line in lines(rows) if len(line.peers) > 1]
    left, width, step, top = 330, 470, 26, 56
    height = top + step * len(found) + 30
    most = max(
        (line.median(peer, "wall_s") / line.median(OURS, "wall_s") for line in found for peer in line.peers), default=10
    )
    least = min(
        (line.median(peer, "wall_s") / line.median(OURS, "wall_s") for line in found for peer in line.peers), default=1
    )
    low, high = math.log10(min(0.5, least) * 0.95), math.log10(max(2.0, most) * 1.1)

    def x(ratio: float) -> float:
        return left + (math.log10(ratio) - low) / (high - low) * width

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + width + 30}" height="{height}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{left + width + 30}" height="{height}" fill="white"/>',
    ]
    at = 12
    for name, color in COLORS.items():
        if any(name in line.peers for line in found):
            out.append(f'<circle cx="{at}" cy="16" r="5" fill="{color}"/><text x="{at + 10}" y="20">{name}</text>')
            at += 90
    out.append(f'<text x="{at + 10}" y="20" fill="#555">wall time, aerogel = 1, logarithmic</text>')
    for ratio in (0.5, 1, 2, 5, 10, 20, 50, 100):
        if low <= math.log10(ratio) <= high:
            stroke = "#999" if ratio == 1 else "#e4e4e4"
            out.append(
                f'<line x1="{x(ratio):.1f}" x2="{x(ratio):.1f}" y1="{top - 14}" y2="{height - 24}" stroke="{stroke}"/>'
            )
            out.append(f'<text x="{x(ratio):.1f}" y="{height - 8}" text-anchor="middle" fill="#555">{ratio:g}x</text>')
    for number, line in enumerate(found):
        y = top + number * step
        ours = line.median(OURS, "wall_s")
        label = f"{line.workload.upper()} {line.variant}, aerogel {ours:.2f} s"
        out.append(f'<text x="{left - 12}" y="{y + 4}" text-anchor="end">{label}</text>')
        for peer in reversed(line.peers):
            ratio = line.median(peer, "wall_s") / ours
            color = COLORS.get(peer, "#333")
            out.append(
                f'<circle cx="{x(ratio):.1f}" cy="{y}" r="6" fill="{color}" fill-opacity="0.85">'
                f"<title>{peer}: {line.median(peer, 'wall_s'):.3f} s, {ratio:.2f}x</title></circle>"
            )
    out.append("</svg>")
    return "\n".join(out) + "\n"


_BUSY = (
    "",
    "**The machine was busy with other things**: CPU seconds and memory can be compared, wall times hardly.",
)


def write(folder: Path, rows: list[Row], facts: dict[str, Any]) -> None:
    """The three files that are published."""
    data = json.dumps({"machine": facts, "rows": rows}, indent=1)
    data = re.sub(r'[^ "=]*/aerogel-bench-\w+', "FOLDER", re.sub(r'"[^ "]*/aerogel ', '"./aerogel ', data))
    (folder / "results.json").write_text(data + "\n")
    versions = "; ".join(sorted(facts.get("versions", {}).values()))
    rounds = max(row["round"] for row in rows) + 1
    load = statistics.median(row.get("load", 0) for row in rows)
    text = [
        "# Results",
        "",
        f"Made by `./bench/run --write`: {facts['processors']} processors ({facts['model']}), kernel {facts['kernel']}, "
        f"sha256 {facts['sha256_mb_s']} MB/s, a new file {facts['create_us']} us; scale {facts['scale']}, "
        f"up to {rounds} rounds, load average {load:.0f} beside. Versions: {versions}.",
        "",
        "Each cell: wall seconds / CPU seconds of everything that the build caused (daemons included), peak of anonymous",
        "memory, bytes of the image. Medians; the ratio is to the best peer of the same round (spread: of the rounds).",
        *(_BUSY if load > facts["processors"] else ()),
        "",
        table(rows),
        "",
        "![wall time compared](results.svg)",
        "",
        "The rules: same Dockerfile, same base from the same registry, default compression of each, same fresh file system;",
        "the images were compared file by file (mode, owner, content), so nobody wins by doing less. Every command with its",
        "flags stands in `results.json`.",
        "",
    ]
    (folder / "RESULTS.md").write_text("\n".join(text))
    (folder / "results.svg").write_text(picture(rows))


if __name__ == "__main__":
    loaded = [json.loads(line) for line in Path(sys.argv[1]).read_text().splitlines()]
    write(Path(__file__).resolve().parent, loaded, loaded[-1]["machine"])
    print(table(loaded))
