"""The containers of this user: what each one runs, how it is, and who holds it.

::

    <data>/containers-v1/
        lock                held while a container is made or removed
        <id>/               64 hexadecimal digits; mode 0700, the variables in it may be secrets
            container.json  what it runs; only its name may change
            state.json      how it is; replaced whole
            alive           locked by the process that holds the container (`Keeper` or `aerogel run`) while it lives
            control         the socket on which that process takes requests
            log             the output of a container in the background (`logs`)
            keeper.log      what the process that holds it wrote on its standard error
            upper/ work/    what the container wrote, in overlay form; not with `--rm`
            layer-N/        what it wrote in an earlier run, where no overlay can be mounted

No daemon: a container lives in the process that holds it. When that is killed the kernel ends the container, and its
lock, which is gone then, tells everybody.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import msgspec

from aerogel.decoding import parse_json, prepare
from aerogel.errors import AerogelError, nearest
from aerogel.sandbox.cgroup import Resources
from aerogel.sandbox.spec import Forward, Sandbox

__all__ = ["VOLUMES", "Check", "CheckRun", "Container", "Containers", "Seen", "State", "VolumeUse", "alive"]

_T = TypeVar("_T", bound=msgspec.Struct)

VOLUMES = "volumes-v1"
"""The folder of volumes, beside that of containers (`runtime.volumes`)."""

_FOLDER = "containers-v1"
_KILLED = 137
_MAKING_S = 60.0
"""So long a container may be about to start."""
_FIRST = (
    "amber",
    "brisk",
    "calm",
    "clear",
    "deft",
    "eager",
    "fair",
    "gentle",
    "keen",
    "light",
    "mild",
    "quiet",
    "swift",
)
_SECOND = (
    "aerogel",
    "cloud",
    "feather",
    "foam",
    "glass",
    "kite",
    "mist",
    "petal",
    "quartz",
    "silica",
    "smoke",
    "vapor",
)


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """A health check: a command in the container that ends with 0 when all is well. Times are seconds."""

    command: tuple[str, ...]
    interval_s: float = 30.0
    timeout_s: float = 30.0
    start_period_s: float = 0.0
    start_interval_s: float = 5.0
    retries: int = 3


class CheckRun(msgspec.Struct, frozen=True, kw_only=True):
    """How one check went. Times are seconds since 1970; `code` is -1 when it did not end by itself."""

    started: float
    finished: float
    code: int
    said: str


class VolumeUse(msgspec.Struct, frozen=True, kw_only=True):
    """A volume that a container has at `target`; `is_own` when it was made for the container, without a name."""

    name: str
    target: str
    readonly: bool = False
    is_own: bool = False


class Container(msgspec.Struct, frozen=True, kw_only=True):
    """What a container runs, and how it is to be ended."""

    id: str
    name: str
    image: str
    """As the user named it."""
    created: float
    """Seconds since 1970."""
    sandbox: Sandbox
    rung: str
    """The kind of isolation that its layers were unpacked for."""
    stop_signal: int = 15
    grace_s: float = 10.0
    keeps_input: bool = False
    """Standard input stays open, although nobody writes to it."""
    is_removed: bool = False
    """Whether nothing is left of it when it ends."""
    is_detached: bool = False
    """Whether a process of its own holds it, in place of `aerogel run`."""
    is_input_once: bool = False
    """Whether its input ends with the input of the first one who is attached."""
    restart: str = "no"
    """`no`, `on-failure`, `always` or `unless-stopped`."""
    restarts: int = 0
    """How often at most after failures; 0: without end."""
    ports: tuple[Forward, ...] = ()
    labels: dict[str, str] = {}
    check: Check | None = None
    volumes: tuple[VolumeUse, ...] = ()
    resources: Resources = Resources()
    image_id: str = ""
    platform: str = ""
    config: dict[str, Any] = {}
    """The image's config as the options change it, with docker's keys: for `inspect`."""


class State(msgspec.Struct, frozen=True, kw_only=True):
    """How a container is. `status` is `created`, `running` or `exited`; times are seconds since 1970."""

    status: str = "created"
    pid: int = 0
    """Of the container's process 1, as the host numbers it."""
    started: float = 0.0
    finished: float = 0.0
    code: int = 0
    error: str = ""
    """Why it could not be started, or was ended from outside."""
    oom: bool = False
    restarted: int = 0
    health: str = ""
    """`starting`, `healthy`, `unhealthy`, or empty without a check."""
    failing: int = 0
    """How many checks failed one after the other."""
    said: str = ""
    """The output of the last check."""
    checks: tuple[CheckRun, ...] = ()
    """The last checks, the newest last."""
    is_paused: bool = False


class Seen(NamedTuple):
    """A container as it was found."""

    folder: str
    container: Container
    state: State

    def written(self) -> tuple[str, ...]:
        """What it wrote in all its runs, as directories in overlay form, the lowest first."""
        older = [name for name in os.listdir(self.folder) if name.startswith("layer-")]
        paths = [f"{self.folder}/{name}" for name in sorted(older, key=lambda name: int(name[6:]))]
        upper = self.container.sandbox.root.upper
        return (*paths, *([upper] if upper is not None and os.path.isdir(upper) else []))

    @property
    def is_running(self) -> bool:
        return self.state.status == "running"


class Containers:
    """The folder of all containers below a store's data folder. Raises `container.*`."""

    def __init__(self, data: str | os.PathLike[str]) -> None:
        self._root = os.path.join(os.fspath(data), _FOLDER)

    def create(self, make: Callable[[str, str, str], Container], name: str = "") -> Seen:
        """A new container; `make` gets its id, its name, which is chosen when none is given, and its folder.

        Raises `container.name-taken`.
        """
        os.makedirs(self._root, mode=0o700, exist_ok=True)
        with self._locked():
            taken = {seen.container.name: seen for seen in self.list()}
            if name in taken:
                raise AerogelError(
                    f"there is a container `{name}` already",
                    code="container.name-taken",
                    hints=[f"`aerogel rm {name}` removes it, or choose another `--name`"],
                )
            made = secrets.token_hex(32)
            folder = f"{self._root}/{made}"
            container = make(made, name or _new_name(taken), folder)
            os.mkdir(folder, 0o700)
            _write(folder, "container.json", msgspec.to_builtins(container))
            seen = Seen(folder, container, State())
            self.save(seen.folder, seen.state)
        return seen

    def rename(self, seen: Seen, name: str) -> None:
        """Gives a container another name. Raises `container.name-taken`."""
        with self._locked():
            self._refuse_taken(name)
            _write(
                seen.folder, "container.json", msgspec.to_builtins(msgspec.structs.replace(seen.container, name=name))
            )

    def _refuse_taken(self, name: str) -> None:
        if any(seen.container.name == name for seen in self.list()):
            raise AerogelError(
                f"there is a container `{name}` already",
                code="container.name-taken",
                hints=[f"`aerogel rm {name}` removes it, or choose another name"],
            )

    def save(self, folder: str, state: State) -> None:
        """Replaces the state; for who holds the container."""
        _write(folder, "state.json", msgspec.to_builtins(state))

    def list(self) -> list[Seen]:
        """All containers, the newest first."""
        try:
            names = os.listdir(self._root)
        except FileNotFoundError:
            return []
        found = [seen for name in names if len(name) == 64 if (seen := self.read(f"{self._root}/{name}"))]
        return sorted(found, key=lambda seen: -seen.container.created)

    def read(self, folder: str) -> Seen | None:
        """A container as it is now; None when it is gone, or is being made or removed. Raises `container.damaged`."""
        try:
            container = _read(folder, "container.json", Container)
            state = _read(folder, "state.json", State)
        except (FileNotFoundError, NotADirectoryError):
            return None
        if state.status == "running" and not _is_held(folder):
            ended = os.stat(f"{folder}/state.json").st_mtime
            # Its last words may have been written between the two looks.
            state = _read(folder, "state.json", State)
            if state.status == "running":
                why = "the process that held it was killed"
                state = msgspec.structs.replace(state, status="exited", code=_KILLED, finished=ended, error=why)
        is_old = state.status == "exited" or container.created < time.time() - _MAKING_S
        if container.is_removed and state.status != "running" and is_old and not _is_held(folder):
            # what was killed could not remove itself; `Volumes.sweep` finds the volumes that it alone had
            shutil.rmtree(folder, ignore_errors=True)
            return None
        return Seen(folder, container, state)

    def wait_removed(self, seen: Seen, timeout_s: float) -> None:
        """Waits until who holds a container has removed it, or until the time is over."""
        until = time.monotonic() + timeout_s
        while os.path.isdir(seen.folder) and time.monotonic() < until:
            time.sleep(0.01)

    def find(self, name: str) -> Seen:
        """By name, id or the beginning of an id. Raises `container.not-found`, `container.ambiguous`."""
        every = self.list()
        found = [seen for seen in every if name in (seen.container.name, seen.container.id)]
        found = found or [seen for seen in every if name and seen.container.id.startswith(name)]
        if len(found) == 1:
            return found[0]
        if found:
            raise AerogelError(
                f"`{name}` may be {len(found)} containers", code="container.ambiguous", hints=["give more of the id"]
            )
        guess = nearest(name, [seen.container.name for seen in every])
        raise AerogelError(
            f"there is no container `{name}`",
            code="container.not-found",
            hints=[f"did you mean `{guess}`?" if guess else "`aerogel ps -a` lists what is there"],
        )

    def running(self, name: str) -> Seen:
        """`find`, of one that runs. Raises `container.not-running` as well."""
        seen = self.find(name)
        if not seen.is_running:
            raise AerogelError(
                f"container `{name}` is not running",
                code="container.not-running",
                hints=[f"`aerogel start {name}` starts it again"],
            )
        return seen

    def remove(self, seen: Seen, discard: Callable[[str], object]) -> None:
        """Removes one that does not run; `discard(path)` removes a tree of mapped owners."""
        with self._locked():
            for name in os.listdir(seen.folder):
                if os.path.isdir(f"{seen.folder}/{name}"):
                    discard(f"{seen.folder}/{name}")
            shutil.rmtree(seen.folder, ignore_errors=True)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        fd = os.open(f"{self._root}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)


@contextmanager
def alive(folder: str) -> Iterator[None]:
    """This process holds the container within the block. Raises `container.held` when another one does."""
    fd = os.open(f"{folder}/alive", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        for _ in range(50):  # who looks whether it is held has the lock for a moment
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            time.sleep(0.01)
        else:
            raise AerogelError("the container is running already", code="container.held")
        yield
    finally:
        os.close(fd)


def _is_held(folder: str) -> bool:
    try:
        fd = os.open(f"{folder}/alive", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def _write(folder: str, name: str, value: object) -> None:
    # json: variables may hold bytes that are no UTF-8, which travel as lone surrogates
    data = json.dumps(value, separators=(",", ":")).encode("ascii")
    made = f"{folder}/{name}.{secrets.token_hex(4)}"
    fd = os.open(made, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as file:
        file.write(data)
    os.rename(made, f"{folder}/{name}")


def _read(folder: str, name: str, kind: type[_T]) -> _T:
    """Raises `container.damaged`, FileNotFoundError, NotADirectoryError."""
    prepare(kind)
    with open(f"{folder}/{name}", "rb") as file:
        data = file.read()
    try:
        return msgspec.convert(parse_json(data), kind)
    except (ValueError, msgspec.ValidationError) as error:
        raise AerogelError(
            f"`{name}` of a container cannot be read: {error}",
            code="container.damaged",
            hints=[f"its folder is `{folder}`: with it the container goes"],
        ) from None


def _new_name(taken: Sequence[str] | dict[str, Seen]) -> str:
    while True:
        name = f"{secrets.choice(_FIRST)}_{secrets.choice(_SECOND)}"
        for candidate in (name, f"{name}{secrets.randbelow(10_000)}"):
            if candidate not in taken:
                return candidate
