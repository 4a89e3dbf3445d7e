"""RUN: one command on the mounted layers of its stage; what it wrote becomes the next layer.

The upper directory of the mount is kept as the layer's snapshot. A layer that an exported image needs is compressed
at once; any other is only hashed, and its blob is made if somebody asks for it later.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from signal import SIGTERM

from aerogel.errors import EXIT_HOST, AerogelError
from aerogel.events import Sink, StepLog
from aerogel.files.codec import Codec, LayerBlob
from aerogel.files.host import HostTree
from aerogel.files.index import IndexWriter, LayerIndex
from aerogel.files.tar import Readable
from aerogel.files.tree import LayerTree
from aerogel.graph.ops import Node, Run
from aerogel.oci.digest import Digest
from aerogel.sandbox.agent import AgentProxy
from aerogel.sandbox.cgroup import Group
from aerogel.sandbox.launch import Process
from aerogel.sandbox.spec import Exit, Mount, Rootfs, Sandbox
from aerogel.solve.ambient import Ambient
from aerogel.solve.failed import About, keep_failed
from aerogel.solve.failure import StepError, step_failed, step_timed_out
from aerogel.solve.leaks import LeakError, LeakScanner, looked_for, path_at
from aerogel.solve.materials import FS, Materials, make_layer_root, take_tar
from aerogel.solve.mounts import Prepared, prepare
from aerogel.solve.seen import bases_of
from aerogel.solve.stamp import take_run
from aerogel.solve.subtree import MountError
from aerogel.store.failed import FailedState

__all__ = ["run"]

_TAIL_LINES = 40
_LITTLE = 1 << 20
_GRACE_S = 5.0
"""Between asking a step to end and ending it."""
_LOOK_S = 0.1
"""Between looks whether the build or the step's time is over."""


def run(
    node: Node,
    op: Run,
    inputs: tuple[tuple[Digest, ...], ...],
    contexts: Mapping[str, HostTree],
    materials: Materials,
    ambient: Ambient,
    *,
    codec: Codec | None,
    sink: Sink,
    step: int,
    canceled: threading.Event,
    about: About,
    resumed: FailedState | None = None,
) -> Digest | None:
    """Runs the command and stores the layer; None when it changed nothing.

    What a command that fails had written is kept; `resumed` is such a state, in which the command runs again.
    Raises `solve.step-failed` with the last lines of output, `solve.timeout`, `solve.secret-leak`, what
    `mounts.prepare` raises, `sandbox.*`, `store.*`.
    """
    layers = inputs[0]
    lowers = materials.directories(layers)
    with _placed(materials, resumed) as place:
        upper, work = f"{place.made}/{FS}", f"{place.made}/work"
        lent = ambient.lent
        secrets = looked_for(lent.secrets)
        with ExitStack() as stack:
            mounts = prepare(node, op, inputs, contexts, materials, lent, stack, place.made, step, sink, canceled)
            secrets |= mounts.secrets
            since_ns, settled = _begin(upper, mounts, place.resumed)
            root = Rootfs(lowers=(*lowers, *mounts.above), upper=upper, work=work)
            emulated = ambient.emulator.prepare(materials.helper, node.platform)
            sandbox = _sandbox(op, root, materials.tree(layers), ambient, mounts, emulated=emulated)
            place.has_begun = True
            ambient.check(sandbox, materials.helper().rung, sink)
            try:
                tree = materials.tree(layers)
                _must_succeed(op, sandbox, mounts, materials, ambient, tree, sink, step, canceled, about.base)
            except StepError as error:
                if not canceled.is_set() and error.exit_status != EXIT_HOST:  # a full disk gets its space back
                    begun = (since_ns, settled, secrets)
                    keep_failed(place.made, error, about, node, op, layers, lowers, sandbox, mounts, materials, begun)
                raise
        snapshots = materials.store.snapshots
        if _is_empty(upper):
            snapshots.discard_later(place.made, materials.remove)
            return None
        settle = _settling(materials, layers, mounts, since_ns, settled)
        layer, index = _take_layer(node, layers, materials, upper, lowers, codec, secrets, settle)
        if not len(index):
            snapshots.discard_later(place.made, materials.remove)
            return None
        for path in (work, *mounts.shown):
            snapshots.discard_later(path, materials.remove)
        snapshots.commit(place.made, place.mapping, layer.diff_id, materials.remove)
        return Digest(layer.diff_id)


class _Place:
    """Where a step writes: a directory of the scratch space, made for it or that of a kept state."""

    def __init__(self, made: str, mapping: str, resumed: FailedState | None) -> None:
        self.made = made
        self.mapping = mapping
        self.resumed = resumed
        self.has_begun = False


@contextmanager
def _placed(materials: Materials, resumed: FailedState | None) -> Iterator[_Place]:
    """A place for the block; when that fails it goes, or back to where it was kept if no command began."""
    store, mapping = materials.store, materials.helper().rung.map_id
    claimed = store.failed.claim(resumed) if resumed is not None else None
    place = _Place(claimed or store.snapshots.new(mapping), mapping, resumed if claimed else None)
    try:
        if place.resumed is None:
            _make_upper(f"{place.made}/{FS}", f"{place.made}/work")
        yield place
    except BaseException:
        if place.resumed is not None and not place.has_begun:
            store.failed.give_back(place.made, place.resumed)
        else:
            store.snapshots.discard(place.made, materials.remove)
        raise


def _is_empty(upper: str) -> bool:
    """Whether the step wrote nothing at all, so that nobody must look closer."""
    try:
        with os.scandir(upper) as entries:
            return next(entries, None) is None
    except PermissionError:  # the step changed its root, which belongs to a mapped owner
        return False


def _make_upper(upper: str, work: str) -> None:
    make_layer_root(upper)
    os.mkdir(work, 0o700)


def _begin(upper: str, mounts: Prepared, resumed: FailedState | None) -> tuple[int, Mapping[int, int]]:
    """Since when the step writes, in nanoseconds, and the times that only it sees with what stands for them."""
    settled = dict(mounts.settled)
    if resumed is not None:
        return resumed.since_ns, dict(resumed.settled) | settled
    # By the clock that files get: the kernel's runs behind the one that a program asks.
    os.utime(upper)
    return os.stat(upper).st_mtime_ns, settled


def _settling(
    materials: Materials, layers: Sequence[Digest], mounts: Prepared, since_ns: int, settled: Mapping[int, int]
) -> dict[str, object] | None:
    """How times of what the step wrote are settled; None when it keeps them."""
    times = materials.times
    if times.keep:
        return None
    return {
        "since_ns": since_ns,
        "newest": materials.newest(layers),
        "unsettled": [list(pair) for pair in settled.items()],
        "above": list(mounts.above),
        "keep_volatile": times.keep_volatile,
    }


def _must_succeed(
    op: Run,
    sandbox: Sandbox,
    prepared: Prepared,
    materials: Materials,
    ambient: Ambient,
    tree: LayerTree,
    sink: Sink,
    step: int,
    canceled: threading.Event,
    base: str,
) -> None:
    """Runs the command; all that it says goes to its log and to the sink. Raises when it fails."""
    lent = ambient.lent
    tail = _Tail(_TAIL_LINES)
    log = lent.logs.open(step) if lent.logs is not None else None

    hide = lent.redactor.stream() if lent.redactor is not None else None

    def output(data: bytes) -> None:
        if hide is not None:
            data = hide.feed(data)
        show(data)

    def show(data: bytes) -> None:
        if data:
            tail.add(data)
            if log is not None:
                log.add(data)
            sink.emit(StepLog(step, data))

    command = _Command(sandbox, prepared.agents, output, canceled, lent.timeout_s)
    try:
        with _about_mounts(op), _closing(ambient.group(sink)) as group:
            ended = command.run(materials, group)
    finally:
        if hide is not None:
            show(hide.rest())
        if log is not None:
            log.close()
    where = log.path if log is not None else ""
    if ended.code != 0 and command.is_late and lent.timeout_s is not None:
        raise step_timed_out(lent.timeout_s, tail.text(), log=where)
    if ended.code != 0:
        disk_full = _is_full(sandbox.root.upper or "/")
        limited = lent.resources.memory_bytes > 0
        extend = partial(ambient.extend, base)
        raise step_failed(
            op, ended, tail.text(), disk_full=disk_full, is_limited=limited, log=where, tree=tree, extend=extend
        )


@contextmanager
def _closing(group: Group | None) -> Iterator[Group | None]:
    """The group for the block."""
    try:
        yield group
    finally:
        if group is not None:
            group.close()


def _is_full(path: str) -> bool:
    """Whether the disk that holds the path has no space, so that a step may have failed for that."""
    state = os.statvfs(path)
    return state.f_bavail * state.f_frsize < _LITTLE or (state.f_files > 0 and state.f_favail == 0)


@contextmanager
def _about_mounts(op: Run) -> Iterator[None]:
    """A fault of a mount's place gets the place of that mount in the Dockerfile."""
    try:
        yield
    except AerogelError as error:
        for number, mount in enumerate(op.mounts):
            if error.code.startswith("sandbox.mount") and mount.target and f"`{mount.target}`" in error.message:
                hints = error.hints or ["give the mount another `target`, of the same kind as what it shows"]
                raise MountError(number, error.message, code=error.code, hints=hints) from error
        raise


def _take_layer(
    node: Node,
    layers: tuple[Digest, ...],
    materials: Materials,
    upper: str,
    lowers: Sequence[str],
    codec: Codec | None,
    secrets: Mapping[str, bytes],
    settle: dict[str, object] | None,
) -> tuple[LayerBlob, LayerIndex | IndexWriter]:
    """The layer of what the step wrote, unless one of its secrets is in it. Raises `solve.secret-leak`."""

    def take(stream: Readable) -> tuple[LayerBlob, LayerIndex | IndexWriter]:
        if codec is None or settle is None:
            return take_tar(materials.store, stream, codec, materials.on_wait)
        return take_run(stream, layers, bases_of(node), materials, codec)

    if not secrets:
        return materials.read_diff(upper, lowers, take, settle=settle)
    scanner = LeakScanner(secrets)
    try:
        return materials.read_diff(upper, lowers, lambda stream: take(scanner.watch(stream)), settle=settle)
    except LeakError as leak:
        offset = leak.offset
        mark = None if settle is None else 0
        where = materials.read_diff(upper, lowers, lambda stream: path_at(stream, offset), mark=mark)
        raise LeakError(offset, leak.name, where) from None


def _sandbox(
    op: Run, root: Rootfs, tree: LayerTree, ambient: Ambient, prepared: Prepared, *, emulated: bool
) -> Sandbox:
    def exists(path: str) -> bool:
        try:
            return tree.lookup(tree.resolve(path.lstrip("/").encode())) is not None
        except AerogelError:
            return False

    env = dict(op.env)
    for name, value in ambient.env.items():
        env.setdefault(name, value)
    for name, value in prepared.env.items():
        if name != "SSH_AUTH_SOCK" or name not in env:
            env[name] = value
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
        mounts=(*ambient.mounts(exists), *inline, *prepared.mounts),
        network="none" if op.network == "none" else "sandbox" if op.network == "sandbox" else "host",
        hostname=op.hostname,
        hosts=op.hosts,
        insecure=op.security == "insecure",
        limits=ambient.lent.limits,
        shm_size_bytes=ambient.lent.shm_size_bytes,
        create_cwd=True,
        emulated=emulated,
    )


class _Command:
    """One command that runs to its end, to that of its time or to that of the build."""

    def __init__(
        self,
        sandbox: Sandbox,
        agents: Mapping[str, str],
        output: Callable[[bytes], None],
        canceled: threading.Event,
        timeout_s: float | None,
    ) -> None:
        self.is_late = False
        self._sandbox = sandbox
        self._agents = agents
        self._output = output
        self._canceled = canceled
        self._timeout_s = timeout_s
        self._until: float | None = None

    def run(self, materials: Materials, group: Group | None = None) -> Exit:
        """Runs it with its output on one pipe, and lends it the agents."""
        read_fd, write_fd = os.pipe()
        try:
            helper = materials.helper()
            process = helper.run(self._sandbox, stdin=None, stdout=write_fd, stderr=write_fd, group=group)
        except BaseException:
            os.close(read_fd)
            raise
        finally:
            os.close(write_fd)
        if self._timeout_s is not None:
            self._until = time.monotonic() + self._timeout_s
        try:
            with ExitStack() as stack:
                for target, listener in process.listeners.items():
                    stack.enter_context(AgentProxy(listener, self._agents[target]))
                self._follow(process, read_fd)
                while True:
                    with suppress(TimeoutError):
                        return process.wait(_LOOK_S)
                    self._look_after(process)
        finally:
            process.close()
            os.close(read_fd)

    def _follow(self, process: Process, read_fd: int) -> None:
        """Takes all that is said, until nobody can say more."""
        poll = select.poll()
        poll.register(read_fd, select.POLLIN)
        while True:
            if poll.poll(_LOOK_S * 1000):
                data = os.read(read_fd, 1 << 16)
                if not data:
                    return
                self._output(data)
            self._look_after(process)

    def _look_after(self, process: Process) -> None:
        """Ends the process when the build is canceled, or asks it to end when its time is over, and then ends it."""
        late = self._until is not None and time.monotonic() > self._until
        # A process whose helper is gone cannot be signalled; `wait` tells what happened.
        with suppress(OSError):
            if self._canceled.is_set() or (late and self.is_late):
                process.kill()
            elif late:
                self.is_late = True
                self._until = time.monotonic() + _GRACE_S
                process.signal(SIGTERM)


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
