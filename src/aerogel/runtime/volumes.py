"""Volumes: folders with a name that outlive containers and are theirs alone.

::

    <data>/volumes-v1/
        lock             held while a volume is made or removed
        <name>/          mode 0700
            volume.json  what it is; replaced whole
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
from typing import NamedTuple

import msgspec

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


class _Place(NamedTuple):
    folder: str

    @property
    def data(self) -> str:
        return f"{self.folder}/data"


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
        return _Place(f"{self.root}/{name}").data

    def create(self, name: str, now: float, labels: dict[str, str] | None = None) -> Volume:
        """A volume, new unless there is one of this name; without a name one is made up. Raises `volume.name`."""
        if name:
            check_volume_name(name)
        os.makedirs(self.root, mode=0o700, exist_ok=True)
        with self._locked():
            found = self.read(name) if name else None
            if found is not None:
                return found
            made = Volume(name=name or secrets.token_hex(32), created=now, labels=labels or {}, is_anonymous=not name)
            place = _Place(f"{self.root}/{made.name}")
            os.makedirs(place.data, 0o755)
            os.chmod(place.folder, 0o700)
            os.chmod(place.data, 0o755)  # noqa: S103 - what docker gives it; nobody else gets past its folder
            self._write(made)
        return made

    def claim(self, volume: Volume, mapping: str) -> None:
        """Notes whose owners its files have. Raises `volume.other-mapping` when they are others'."""
        mapping = mapping.removesuffix(".copied")
        if not volume.mapping:
            with self._locked():
                self._write(msgspec.structs.replace(volume, mapping=mapping))
        elif volume.mapping != mapping:
            raise AerogelError(
                f"the files of volume `{volume.name}` have other owners (`{volume.mapping}`) than this container would see (`{mapping}`)",
                code="volume.other-mapping",
                hints=["use the same user and the same `AEROGEL_ISOLATION` as before, or another volume"],
            )

    def read(self, name: str) -> Volume | None:
        try:
            with open(f"{self.root}/{name}/volume.json", "rb") as file:
                return msgspec.json.decode(file.read(), type=Volume)
        except (FileNotFoundError, NotADirectoryError):
            return None

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

    def remove(self, name: str, containers: Iterable[Seen], discard: Callable[[str], object]) -> None:
        """Removes one that no container has; `discard(path)` removes a tree of mapped owners. Raises `volume.in-use`."""
        with self._locked():
            users = users_of(name, containers)
            if users:
                shown = ", ".join(f"`{each[:12]}`" for each in users)
                raise AerogelError(
                    f"volume `{name}` is in use by {shown}",
                    code="volume.in-use",
                    hints=["`aerogel rm` removes containers, those that have ended too: `aerogel ps -a`"],
                )
            discard(self.data_of(name))
            shutil.rmtree(f"{self.root}/{name}", ignore_errors=True)

    def remove_own(self, container: Container, containers: Iterable[Seen], discard: Callable[[str], object]) -> None:
        """Removes the volumes that were made for a container, which is gone, unless another one has them now."""
        own = [use.name for use in container.volumes if use.is_own]
        others = [seen for seen in containers if seen.container.id != container.id] if own else []
        for name in own:
            with contextlib.suppress(AerogelError):
                self.remove(name, others, discard)

    def is_empty(self, name: str) -> bool:
        try:
            return not os.listdir(self.data_of(name))
        except PermissionError:  # its owner is a mapped one, so a container was there
            return False

    def _write(self, volume: Volume) -> None:
        path = f"{self.root}/{volume.name}/volume.json"
        with open(f"{path}.new", "wb") as file:
            file.write(json.dumps(msgspec.to_builtins(volume)).encode("ascii"))
        os.rename(f"{path}.new", path)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        fd = os.open(f"{self.root}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)
