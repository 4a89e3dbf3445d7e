"""`aerogel doctor`: what this host can do for builds, found by trying, with the fix for what it cannot."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Literal

from msgspec import Struct

from aerogel.commands.format import columns, size
from aerogel.commands.result import Result
from aerogel.commands.world import World
from aerogel.errors import EXIT_HOST, EXIT_OK, AerogelError
from aerogel.flag import Flag

__all__ = ["EXAMPLES", "Doctor", "DoctorResult", "Finding", "run"]

EXAMPLES = (("as JSON, for a bug report", "aerogel doctor --json"),)

LOW_SPACE = 2_000_000_000
"""Bytes below which a build with packages may not fit."""

State = Literal["ok", "unused", "warning", "problem"]


class Doctor(Struct, frozen=True, kw_only=True):
    """Check what this host can do."""

    offline: Annotated[bool, Flag("Do not ask whether the Debian mirror answers")] = False


class Finding(Struct, frozen=True, kw_only=True):
    """One thing that was looked at."""

    what: str
    state: State
    found: str
    fixes: tuple[str, ...] = ()


class DoctorResult(Result, frozen=True, kw_only=True):
    findings: tuple[Finding, ...]

    def text(self) -> str:
        rows: list[tuple[str, str, str]] = []
        for one in self.findings:
            rows.append((one.state, one.what, one.found))
            rows += [("", "", f"fix: {fix}") for fix in one.fixes]
        return columns((), rows)

    def exit_status(self) -> int:
        return EXIT_HOST if any(one.state == "problem" for one in self.findings) else EXIT_OK


def run(options: Doctor, world: World) -> DoctorResult:
    """Looks at isolation, places, certificates, mirrors; changes nothing beyond the cache folder."""
    findings = [
        Finding(what="python", state="ok", found=f"{sys.version.split()[0]} at {sys.executable}"),
        *_isolation(world),
        *_places(world),
        _certificates(world),
        _mirror(world, ask=not options.offline),
    ]
    return DoctorResult(findings=tuple(findings))


def _isolation(world: World) -> list[Finding]:
    from aerogel.sandbox.probe import probe

    try:
        world.settings.cache.mkdir(parents=True, exist_ok=True)
        found = probe(str(world.settings.cache))
    except AerogelError as error:
        return [Finding(what="isolation", state="problem", found=error.message, fixes=error.hints)]
    except OSError as error:
        return [_unusable("isolation", error)]
    lines = [Finding(what="kernel", state="ok", found=found.kernel)]
    is_better = True
    for one in found.findings:
        is_better = is_better and one.rung != found.rung
        state: State = "ok" if one.rung == found.rung else "unused" if found.rung else "problem"
        note, fixes = one.message, tuple(one.fixes)
        if one.works:
            note = "works" if one.overlay is None else f"works, overlay with {one.overlay}.* attributes"
        if one.works and one.rung == "proot" and state == "ok":
            state = "warning"
            note = (
                "works: proot shows each step a copy of its root; steps are slow, and nothing holds them as a boundary"
            )
        elif one.works and one.overlay is None and state == "ok":
            state = "warning"
            note = "works; no overlay can be written in the cache folder, so each step copies its root"
            fixes = ("point AEROGEL_ROOT at a local disk or a volume",)
        # Of what is better than the rung that is taken it is worth knowing how to get it.
        shown = fixes if state != "unused" or is_better else ()
        lines.append(Finding(what=f"isolation {one.rung}", state=state, found=note, fixes=shown))
    return lines


def _places(world: World) -> list[Finding]:
    findings = []
    for what, path in (("data", world.settings.data), ("cache", world.settings.cache)):
        try:
            path.mkdir(parents=True, exist_ok=True)
            if not os.access(path, os.W_OK):
                raise PermissionError(13, "no permission to write", str(path))
            disk = os.statvfs(path)
        except OSError as error:
            findings.append(_unusable(what, error))
            continue
        free = disk.f_bavail * disk.f_frsize
        is_low = free < LOW_SPACE
        findings.append(
            Finding(
                what=what,
                state="warning" if is_low else "ok",
                found=f"{path}, {size(free)} free",
                fixes=("a build with packages needs about 2 GB",) if is_low else (),
            )
        )
    return findings


def _unusable(what: str, error: OSError) -> Finding:
    return Finding(
        what=what,
        state="problem",
        found=f"{(error.strerror or str(error)).lower()}: {error.filename}",
        fixes=("choose another place with AEROGEL_ROOT",),
    )


def _certificates(world: World) -> Finding:
    from aerogel.commands.ambient import ca_bundle

    try:
        bundle = ca_bundle(world.settings)
    except AerogelError as error:
        return Finding(what="certificates", state="problem", found=error.message, fixes=error.hints)
    found = f"steps trust {bundle} too" if bundle else "steps trust what their image trusts"
    return Finding(what="certificates", state="ok", found=found)


def _mirror(world: World, *, ask: bool) -> Finding:
    from aerogel.debian.mirror import discover
    from aerogel.redact import redact

    settings = world.settings
    try:
        sources = discover(settings.mirror, settings.security_mirror)
    except AerogelError as error:
        return Finding(what="mirror", state="problem", found=error.message, fixes=error.hints)
    shown = ", ".join(dict.fromkeys(redact(place.uri) for place in sources.archive))
    if not ask:
        return Finding(what="mirror", state="ok", found=shown)
    from aerogel.commands.bases import Bases
    from aerogel.distroless.recipe import RELEASES
    from aerogel.solve.materials import Materials

    try:
        Bases(world, Materials(world.store, world.helper), {}, pull=True).archive().release(RELEASES[0].suite)
    except AerogelError as error:
        return Finding(what="mirror", state="warning", found=f"{shown}: {error.message}", fixes=error.hints)
    return Finding(what="mirror", state="ok", found=f"{shown}, answers with a good signature")
