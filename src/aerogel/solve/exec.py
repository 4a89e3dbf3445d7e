"""RUN: one command on the mounted layers of its stage; what it wrote becomes the next layer.

The upper directory of the mount is kept as the layer's snapshot. A layer that an exported image needs is compressed
at once; any other is only hashed, and its blob is made if somebody asks for it later.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable

from aerogel.errors import AerogelError
from aerogel.events import Sink, StepLog
from aerogel.files.codec import Codec
from aerogel.graph.ops import Run
from aerogel.oci.digest import Digest
from aerogel.sandbox.spec import Exit, Mount, Rootfs, Sandbox
from aerogel.solve.ambient import Ambient
from aerogel.solve.failure import step_failed
from aerogel.solve.materials import FS, Materials

__all__ = ["run"]

_TAIL_LINES = 40
_LITTLE = 1 << 20


def run(
    op: Run,
    layers: tuple[Digest, ...],
    materials: Materials,
    ambient: Ambient,
    *,
    codec: Codec | None,
    sink: Sink,
    step: int,
    canceled: threading.Event,
) -> Digest | None:
    """Runs the command and stores the layer; None when it changed nothing.

    Raises `solve.step-failed` with the last lines of output, `sandbox.*`, `store.*`.
    """
    helper = materials.helper()
    snapshots = materials.store.snapshots
    lowers = materials.directories(layers)
    mapping = helper.rung.map_id
    made = snapshots.new(mapping)
    try:
        upper, work = f"{made}/{FS}", f"{made}/work"
        os.mkdir(upper, 0o755)
        os.mkdir(work, 0o700)
        sandbox = _sandbox(op, Rootfs(lowers=tuple(lowers), upper=upper, work=work), layers, materials, ambient)
        tail = _Tail(_TAIL_LINES)

        def output(data: bytes) -> None:
            tail.add(data)
            sink.emit(StepLog(step, data))

        ended = _run_to_end(sandbox, materials, output, canceled)
        if ended.code != 0:
            raise step_failed(op, ended, tail.text(), disk_full=_is_full(made))
        layer, index = materials.diff(upper, lowers, codec)
        if not index.entries:
            snapshots.discard(made, materials.remove)
            return None
        materials.remove(work)
        snapshots.commit(made, mapping, layer.diff_id, materials.remove)
        return Digest(layer.diff_id)
    except BaseException:
        snapshots.discard(made, materials.remove)
        raise


def _is_full(path: str) -> bool:
    """Whether the disk that holds the path has no space, so that a step may have failed for that."""
    state = os.statvfs(path)
    return state.f_bavail * state.f_frsize < _LITTLE or (state.f_files > 0 and state.f_favail == 0)


def _sandbox(op: Run, root: Rootfs, layers: tuple[Digest, ...], materials: Materials, ambient: Ambient) -> Sandbox:
    tree = materials.tree(layers)

    def exists(path: str) -> bool:
        try:
            return tree.lookup(tree.resolve(path.lstrip("/").encode())) is not None
        except AerogelError:
            return False

    env = dict(op.env)
    for name, value in ambient.env.items():
        env.setdefault(name, value)
    inline = tuple(
        Mount(kind="file", target=f"/dev/pipes/{doc.name}", data=doc.content, mode=doc.mode, readonly=True)
        for doc in op.inline
    )
    return Sandbox(
        argv=op.argv,
        env=tuple(env.items()),
        cwd=op.cwd,
        user=op.user,
        root=root,
        mounts=(*ambient.mounts(exists), *inline),
        hostname=op.hostname,
        create_cwd=True,
    )


def _run_to_end(
    sandbox: Sandbox, materials: Materials, output: Callable[[bytes], None], canceled: threading.Event
) -> Exit:
    """Runs the command with its output on one pipe; a cancelled build ends it."""
    read_fd, write_fd = os.pipe()
    try:
        process = materials.helper().run(sandbox, stdin=None, stdout=write_fd, stderr=write_fd)
    except BaseException:
        os.close(read_fd)
        raise
    finally:
        os.close(write_fd)
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.1):
            if canceled.is_set():
                process.kill()
                return

    watcher = threading.Thread(target=watch, name="cancel", daemon=True)
    watcher.start()
    try:
        while data := os.read(read_fd, 1 << 16):
            output(data)
        return process.wait()
    except BaseException:
        process.kill()
        process.wait()
        raise
    finally:
        ended.set()
        watcher.join()
        process.close()
        os.close(read_fd)


class _Tail:
    """The last lines of a stream of bytes, at most 64 KiB of them."""

    __slots__ = ("_lines", "_rest")

    def __init__(self, lines: int) -> None:
        self._lines: deque[bytes] = deque(maxlen=lines)
        self._rest = b""

    def add(self, data: bytes) -> None:
        *lines, rest = (self._rest + data).split(b"\n")
        self._lines.extend(line[-2000:] for line in lines)
        self._rest = rest[-2000:]

    def text(self) -> str:
        lines = [*self._lines, self._rest] if self._rest else list(self._lines)
        return b"\n".join(line.rsplit(b"\r", 1)[-1] for line in lines).decode("utf-8", "replace")
