"""What a rung without namespaces does not hold is told, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from aerogel.sandbox.spec import Mount, Rootfs, Rung, Sandbox, unheld

TMPFS = Mount(kind="tmpfs", target="/t", size_bytes=1 << 20)
ASKED: dict[str, dict[str, Any]] = {
    "the size of `/t`": {"mounts": (Mount(kind="tmpfs", target="/u"), TMPFS)},
    "the size of `/dev/shm`": {"shm_size_bytes": 1 << 20},
    "the host name `box`": {"hostname": "box"},
    "the read-only root": {"root": Rootfs(readonly=True)},
    "the size of `/t`, the size of `/dev/shm`": {"mounts": (TMPFS,), "shm_size_bytes": 1 << 20},
}


def sandbox(**fields: Any) -> Sandbox:
    return Sandbox(argv=("true",), **{"root": Rootfs(), **fields})


@pytest.mark.parametrize("what", ASKED)
@pytest.mark.parametrize("rung", ["chroot", "proot"])
def test_what_does_not_hold(rung: str, what: str) -> None:
    remark = unheld(sandbox(**ASKED[what]), Rung(rung, "", None, copies=True))
    assert remark is not None
    assert (remark.code, remark.severity) == ("sandbox.not-held", "warning")
    assert remark.message == f"not held on the rung `{rung}`, where nothing can be mounted: {what}"


def test_nothing_is_told_that_nobody_asked_for() -> None:
    assert unheld(sandbox(), Rung("chroot", "", None)) is None
    assert unheld(sandbox(hostname="step"), Rung("chroot", "", None), "step") is None


@pytest.mark.parametrize("what", ASKED)
@pytest.mark.parametrize("rung", ["root", "ident", "subid", "single"])
def test_the_other_rungs_hold_it(rung: str, what: str) -> None:
    assert unheld(sandbox(**ASKED[what]), Rung(rung, "", "user")) is None
