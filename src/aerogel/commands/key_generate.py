"""`aerogel key generate`: a pair of keys for signatures, in files that cosign reads too."""

from __future__ import annotations

import os
from typing import Annotated

from msgspec import Struct

from aerogel.commands.result import Result
from aerogel.commands.signing import key_password
from aerogel.commands.world import World
from aerogel.errors import EXIT_USAGE, AerogelError, Diagnostic
from aerogel.events import Warned
from aerogel.flag import Flag
from aerogel.oci.keys import KeyKind, generate
from aerogel.store.disk import disk_errors

__all__ = ["EXAMPLES", "KeyGenerate", "KeyGenerateResult", "run"]

EXAMPLES = (
    ("release.key and release.pub", "AEROGEL_KEY_PASSWORD=... aerogel key generate -o release"),
    ("of another kind", "aerogel key generate --kind ed25519"),
)


class KeyGenerate(Struct, frozen=True, kw_only=True):
    """Make a pair of keys; the private one is locked by the password in AEROGEL_KEY_PASSWORD, as cosign locks it."""

    output: Annotated[
        str, Flag("Files without their ends: `.key` and `.pub` are added", short="o", metavar="PREFIX", complete="file")
    ] = "cosign"
    kind: Annotated[KeyKind, Flag("Kind of key")] = "ecdsa-p256"


class KeyGenerateResult(Result, frozen=True, kw_only=True):
    private: str
    public: str

    def text(self) -> str:
        return f"{self.private}\n{self.public}"


def run(options: KeyGenerate, world: World) -> KeyGenerateResult:
    """Writes both files. Raises `sign.key-exists`, `store.*`."""
    names = [f"{options.output}.key", f"{options.output}.pub"]
    paths = [world.settings.directory / name for name in names]
    for name, path in zip(names, paths, strict=True):
        if path.exists():
            raise AerogelError(
                f"`{name}` is there already",
                code="sign.key-exists",
                exit_status=EXIT_USAGE,
                hints=["name other files with `-o PREFIX`; a key that is lost cannot be made again"],
            )
    password = key_password(world)
    if not password:
        world.sink.emit(
            Warned(
                Diagnostic(
                    "the private key is not protected: there is no password in `AEROGEL_KEY_PASSWORD`",
                    code="sign.no-password",
                    hints=("whoever has the file can sign",),
                )
            )
        )
    made = generate(options.kind, password)
    for path, data, mode in zip(paths, made, (0o600, 0o644), strict=True):
        with disk_errors(str(path)), os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(data)
    return KeyGenerateResult(private=names[0], public=names[1])
