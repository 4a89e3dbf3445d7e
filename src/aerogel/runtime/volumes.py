"""Volumes: folders with a name that outlive containers and are theirs alone.

::

    <data>/volumes-v1/
        lock             held while a volume is made, or what it is changes
        lending          shared by those who look for volumes and are about to note a container that has them;
                         who removes volumes has it alone
        .new-* .gone-*   what is being made or removed
        <name>/          mode 0700
            volume.json  what it is; replaced whole
            filling      locked by who fills the volume for the first time
            half         there while it is filled: who finds it with the lock begins anew
            data/        what containers see; owners as the rung of the containers maps them

A volume without a name of the user's has 64 hexadecimal digits; it is made for one container and goes with it when that
is removed with `--rm` or `rm -v`. Spec: `docker volume` reference.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import msgspec

from aerogel.decoding import parse_json, prepare
from aerogel.errors import EXIT_USAGE, AerogelError, nearest
from aerogel.runtime.containers import VOLUMES, Container, Seen

__all__ = ["Volume", "Volumes", "check_volume_name", "users_of"]

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")


class Volume(msgspec.Struct, frozen=True, kw_only=True):
    """One volume. `mapping` says whose owners its files have, empty until a container had it."""

    name: str
    created: float
    """Seconds since 1970."""
    labels: dict[str, str] = {}
    mapping: str = ""
    is_anonymous: bool = False
    is_passing: bool = False
    """Whether it goes with its container in any case, as when the process that was to remove both was killed.

    Only of one without a name of the user's.
    """


def check_volume_name(name: str) -> None:
    """Refuses what docker refuses. Raises `volume.name`."""
    if not _NAME.fullmatch(name):
        raise AerogelError(
            f"`{name}` is not a name for a volume",
            code="volume.name",
            hints=[
                "two or more letters, digits, `_`, `.` and `-`, a letter or digit first; a folder begins with `/` or `./`"
            ],
            exit_status=EXIT_USAGE,
        )


def users_of(name: str, containers: Iterable[Seen]) -> list[str]:
    """The ids of the containers that have the volume."""
    return [seen.container.id for seen in containers if any(use.name == name for use in seen.container.volumes)]


class Volumes:
    """The folder of all volumes below a store's data folder. Raises `volume.*`."""

    def __init__(self, data: str | os.PathLike[str]) -> None:
        self.root = os.path.join(os.fspath(data), VOLUMES)

    def data_of(self, name: str) -> str:
        """The directory that containers see."""
        return f"{self.root}/{name}/data"

    def create(
        self, name: str, now: float, labels: dict[str, str] | None = None, *, is_passing: bool = False
    ) -> Volume:
        """A volume, new unless there is one of this name; without a name one is made up. Raises `volume.name`."""
        if name:
            check_volume_name(name)
        os.makedirs(self.root, mode=0o700, exist_ok=True)
        with self._locked("lock"):
            found = self.read(name) if name else None
            if found is not None:
                return found
            made = Volume(
                name=name or secrets.token_hex(32),
                created=now,
                labels=labels or {},
                is_anonymous=not name,
                is_passing=is_passing and not name,
            )
            folder = f"{self.root}/.new-{secrets.token_hex(8)}"
            os.makedirs(folder)
            os.chmod(folder, 0o700)
            _make_data(folder)
            _write(folder, made)
            os.rename(folder, f"{self.root}/{made.name}")
        return made

    @contextmanager
    def lending(self) -> Iterator[None]:
        """Nobody removes a volume within the block: for who finds volumes and then notes the container that has them."""
        os.makedirs(self.root, mode=0o700, exist_ok=True)
        with self._locked("lending", fcntl.LOCK_SH):
            yield

    @contextmanager
    def filling(self, name: str, discard: Callable[[str], object]) -> Iterator[bool]:
        """Whether the volume is empty, and so to be filled within the block; two never fill one at once.

        What one wrote who was killed meanwhile, or failed, is removed before: `discard(path)` removes a tree of mapped owners.
        """
        half = f"{self.root}/{name}/half"
        with self._locked(f"{name}/filling"):
            if os.path.exists(half):
                with contextlib.suppress(FileNotFoundError):
                    discard(self.data_of(name))
                _make_data(f"{self.root}/{name}")
            is_empty = self.is_empty(name)
            if is_empty:
                os.close(os.open(half, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
            yield is_empty
            with contextlib.suppress(FileNotFoundError):
                os.unlink(half)

    def keep(self, names: Iterable[str]) -> None:
        """These volumes stay until somebody removes them."""
        with self._locked("lock"):
            for name in names:
                found = self.read(name)
                if found is not None and found.is_passing:
                    _write(f"{self.root}/{name}", msgspec.structs.replace(found, is_passing=False))

    def claim(self, name: str, mapping: str) -> None:
        """Notes whose owners its files have. Raises `volume.other-mapping` when they are others'."""
        mapping = mapping.removesuffix(".copied")
        with self._locked("lock"):
            volume = self.find(name)
            if not volume.mapping:
                _write(f"{self.root}/{name}", msgspec.structs.replace(volume, mapping=mapping))
                return
        if volume.mapping != mapping:
            raise AerogelError(
                f"the files of volume `{volume.name}` have other owners (`{volume.mapping}`) than this container would see (`{mapping}`)",
                code="volume.other-mapping",
                hints=["use the same user and the same `AEROGEL_ISOLATION` as before, or another volume"],
            )

    def read(self, name: str) -> Volume | None:
        """Raises `volume.damaged`."""
        prepare(Volume)
        try:
            with open(f"{self.root}/{name}/volume.json", "rb") as file:
                return msgspec.convert(parse_json(file.read()), type=Volume)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (ValueError, msgspec.ValidationError) as error:
            raise AerogelError(
                f"`volume.json` of the volume `{name}` cannot be read: {error}",
                code="volume.damaged",
                hints=[f"its folder is `{self.root}/{name}`: the files of the volume are in there"],
            ) from None

    def list(self) -> list[Volume]:
        """All volumes, by name."""
        try:
            names = sorted(os.listdir(self.root))
        except FileNotFoundError:
            return []
        return [found for name in names if (found := self.read(name)) is not None]

    def has(self, name: str) -> bool:
        return bool(_NAME.fullmatch(name)) and self.read(name) is not None

    def find(self, name: str) -> Volume:
        """Raises `volume.not-found`."""
        found = self.read(name) if _NAME.fullmatch(name) else None
        if found is None:
            guess = nearest(name, [volume.name for volume in self.list() if not volume.is_anonymous])
            raise AerogelError(
                f"there is no volume `{name}`",
                code="volume.not-found",
                hints=[f"did you mean `{guess}`?" if guess else "`aerogel volume ls` lists what is there"],
            )
        return found

    def remove(self, name: str, containers: Callable[[], Iterable[Seen]], discard: Callable[[str], object]) -> None:
        """Removes one that no container has; `discard(path)` removes a tree of mapped owners. Raises `volume.in-use`.

        `containers` is asked when no container can get the volume any more.
        """
        with self._locked("lending"):
            users = users_of(name, containers())
            if users:
                shown = ", ".join(f"`{each[:12]}`" for each in users)
                raise AerogelError(
                    f"volume `{name}` is in use by {shown}",
                    code="volume.in-use",
                    hints=["`aerogel rm` removes containers, those that have ended too: `aerogel ps -a`"],
                )
            self._discard(name, discard)

    def remove_own(
        self, container: Container, containers: Callable[[], Iterable[Seen]], discard: Callable[[str], object]
    ) -> None:
        """Removes the volumes that were made for a container, which is gone, unless another one has them now."""
        for use in container.volumes:
            if use.is_own:
                with contextlib.suppress(AerogelError):
                    self.remove(use.name, containers, discard)

    def sweep(self, containers: Callable[[], Iterable[Seen]], discard: Callable[[str], object]) -> None:
        """Removes what killed processes left: volumes that pass with a container that is gone, and halves of volumes.

        Does nothing while a container is about to start.
        """
        if not os.path.isdir(self.root):
            return
        with contextlib.suppress(BlockingIOError), self._locked("lending", fcntl.LOCK_EX | fcntl.LOCK_NB):
            with self._locked("lock"):
                halves = [name for name in os.listdir(self.root) if name.startswith((".new-", ".gone-"))]
                for name in halves:
                    with contextlib.suppress(AerogelError):  # its files may have owners that this rung has not
                        self._empty(name, discard)
            passing = [volume.name for volume in self.list() if volume.is_passing]
            used = {use.name for seen in containers() for use in seen.container.volumes} if passing else set()
            for name in passing:
                if name not in used:
                    with contextlib.suppress(AerogelError):
                        self._discard(name, discard)

    def _discard(self, name: str, discard: Callable[[str], object]) -> None:
        gone = f".gone-{secrets.token_hex(8)}"
        with contextlib.suppress(FileNotFoundError):  # somebody else was quicker
            os.rename(f"{self.root}/{name}", f"{self.root}/{gone}")
            self._empty(gone, discard)

    def _empty(self, name: str, discard: Callable[[str], object]) -> None:
        if os.path.isdir(f"{self.root}/{name}/data"):
            discard(f"{self.root}/{name}/data")
        shutil.rmtree(f"{self.root}/{name}", ignore_errors=True)

    def is_empty(self, name: str) -> bool:
        try:
            return not os.listdir(self.data_of(name))
        except PermissionError:  # its owner is a mapped one, so a container was there
            return False

    @contextmanager
    def _locked(self, name: str, how: int = fcntl.LOCK_EX) -> Iterator[None]:
        fd = os.open(f"{self.root}/{name}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, how)
            yield
        finally:
            os.close(fd)


def _make_data(folder: str) -> None:
    os.mkdir(f"{folder}/data")
    os.chmod(f"{folder}/data", 0o755)  # noqa: S103 - what docker gives it; nobody else gets past its folder


def _write(folder: str, volume: Volume) -> None:
    path = f"{folder}/volume.json"
    with open(f"{path}.new", "wb") as file:
        file.write(json.dumps(msgspec.to_builtins(volume)).encode("ascii"))
    os.rename(f"{path}.new", path)
