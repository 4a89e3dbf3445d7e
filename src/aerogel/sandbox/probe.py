"""What this host can do for a sandbox, found by trying, with the fix for what it cannot (`aerogel doctor`)."""

from __future__ import annotations

import os
from typing import NamedTuple

from aerogel.sandbox.launch import try_rungs
from aerogel.sandbox.spec import Finding

__all__ = ["Probe", "probe", "sentences"]


class Probe(NamedTuple):
    """`rung` is the best one that works, None when none does; `findings` has all that were tried, the best first."""

    rung: str | None
    findings: tuple[Finding, ...]
    kernel: str


def probe(state_dir: str) -> Probe:
    """Tries each rung in a process of its own; about 50 ms. Raises AerogelError `sandbox.state-directory`."""
    findings = try_rungs(state_dir)
    best = next((finding.rung for finding in findings if finding.works), None)
    return Probe(best, findings, os.uname().release)


def sentences(found: Probe) -> list[str]:
    """The findings as lines for a reader."""
    lines = []
    for finding in found.findings:
        if not finding.works:
            lines.append(f"{finding.rung}: {finding.message}")
            lines += [f"  fix: {fix}" for fix in finding.fixes]
        elif finding.overlay is None:
            lines.append(
                f"{finding.rung}: works; no overlay can be written on the state directory, so roots are copied"
            )
            lines.append("  fix: point AEROGEL_ROOT at a local disk or a volume")
        else:
            lines.append(f"{finding.rung}: works, overlay with {finding.overlay}.* attributes")
    return lines
