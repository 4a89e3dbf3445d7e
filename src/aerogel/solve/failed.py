"""Keeps what a step that failed had written, so that `aerogel debug last` can show it and `--retry` go on from it.

No secret gets there: what the step wrote is looked at as its layer would be, and is thrown away if one is in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from aerogel.errors import AerogelError
from aerogel.files.tar import Readable
from aerogel.graph.ops import Node, Run
from aerogel.oci.digest import Digest
from aerogel.sandbox.spec import Sandbox
from aerogel.solve.facts import is_secret_name
from aerogel.solve.failure import StepError
from aerogel.solve.leaks import LeakError, LeakScanner
from aerogel.solve.materials import FS, Materials
from aerogel.solve.mounts import Prepared
from aerogel.store.failed import FailedState

__all__ = ["KEPT_HINT", "About", "keep_failed"]

KEPT_HINT = "`aerogel debug last` opens a shell where it failed; `aerogel build --retry` goes on from there"
_CHUNK = 1 << 18


class About(msgspec.Struct, frozen=True, kw_only=True):
    """What the solver knows of a step."""

    key: str
    stage: str
    title: str
    place: str
    base: str = ""
    """The image that its stage starts from."""


def keep_failed(
    made: str,
    error: StepError,
    about: About,
    node: Node,
    op: Run,
    layers: tuple[Digest, ...],
    lowers: Sequence[str],
    sandbox: Sandbox,
    prepared: Prepared,
    materials: Materials,
    begun: tuple[int, Mapping[int, int], Mapping[str, bytes]],
) -> None:
    """Keeps the directory `made` of the scratch space, and says so in the error; or leaves it where it is.

    `begun` is since when the step wrote, in nanoseconds, what stands for times that only it saw, and what is secret.
    """
    since_ns, settled, secrets = begun
    try:
        if secrets:
            scanner = LeakScanner(secrets)
            materials.read_diff(f"{made}/{FS}", lowers, lambda stream: _drain(scanner.watch(stream)))
        for path in prepared.shown:
            materials.remove(path)
        state = FailedState(
            key=about.key,
            layers=tuple(layers),
            stage=about.stage,
            title=about.title,
            place=about.place,
            message=error.message,
            log=error.log,
            platform=node.platform,
            since_ns=since_ns,
            settled=tuple(settled.items()),
            sandbox=msgspec.Raw(msgspec.json.encode(_surroundings(op, sandbox, prepared))),
            lent=_missing(op),
        )
        materials.store.failed.keep(made, materials.helper().rung.map_id, state, materials.remove)
    except LeakError as leak:
        error.hints = (*error.hints, f"its state is not kept, since the secret `{leak.name}` is in what it wrote")
    except AerogelError:
        return  # the step's own error is what matters, and the disk may be full
    else:
        error.hints = (*error.hints, KEPT_HINT)


def _drain(stream: Readable) -> None:
    while stream.read(_CHUNK):
        pass


def _surroundings(op: Run, sandbox: Sandbox, prepared: Prepared) -> Sandbox:
    """The request without what is secret, what belongs to the build alone and what other steps may hold."""
    alone = {mount.target for mount in op.mounts if mount.type == "cache" and mount.sharing != "shared"}
    alone |= {mount.target for mount in op.mounts if mount.type in ("secret", "ssh")}
    hidden = {*prepared.env}
    env = [(name, value) for name, value in sandbox.env if name not in hidden and not is_secret_name(name)]
    mounts = tuple(
        msgspec.structs.replace(mount, lowers=tuple(lower for lower in mount.lowers if lower not in prepared.shown))
        for mount in sandbox.mounts
        if mount.kind != "socket" and mount.target not in alone
    )
    return msgspec.structs.replace(sandbox, env=tuple(env), mounts=mounts)


def _missing(op: Run) -> tuple[str, ...]:
    found = []
    for mount in op.mounts:
        if mount.type in ("secret", "ssh"):
            found.append(f"{mount.type} `{mount.id}`")
        elif mount.type == "cache" and mount.sharing != "shared":
            found.append(f"cache `{mount.id}`")
    return tuple(found)
