"""`aerogel base init`: a declaration to begin with."""

from __future__ import annotations

import os
from typing import Annotated

from msgspec import Struct

from aerogel.commands.result import Result
from aerogel.commands.world import World
from aerogel.errors import EXIT_USAGE, AerogelError, Source
from aerogel.flag import Flag

__all__ = ["EXAMPLES", "BaseInit", "BaseInitResult", "run"]

EXAMPLES = (
    ("a base of one's own", "aerogel base init"),
    ("with the client library of PostgreSQL", "aerogel base init --extends python3 --package libpq5 db.yaml"),
)

_TEXT = """\
# A base image of your own: `FROM ./{file}` in a Dockerfile, `aerogel base build {file}`, `aerogel base lock {file}`.
# Everything that can be said: docs/reference/bases.md; what is inherited: `aerogel base show {file}`.
apiVersion: aerogel/v1
kind: Base
name: {name}
extends: {extends}
packages:{packages}

# accounts:
#   users: [{{name: app, uid: 10001, home: /home/app}}]
#   run-as: app
# paths:
#   - {{dir: /data, owner: app, mode: "0770"}}
# certificates: {{additional: [corp.pem]}}
# timezone: Europe/Berlin
# locales: [de_DE]
# image: {{env: {{LANG: de_DE.UTF-8}}}}
"""


class BaseInit(Struct, frozen=True, kw_only=True):
    """Write a declaration of a base to begin with."""

    path: Annotated[str, Flag("The file to write", positional=True, metavar="FILE", complete="file")] = "base.yaml"
    extends: Annotated[
        str,
        Flag(
            "The base to build on: a built-in one, a file, an image (`docker://NAME`)", metavar="BASE", complete="base"
        ),
    ] = "cc"
    name: Annotated[str, Flag("Its name; without it, that of the folder", metavar="NAME")] = ""
    package: Annotated[list[str], Flag("A package to add, several times", metavar="NAME")] = []
    force: Annotated[bool, Flag("Write over a file that is there", short="f")] = False


class BaseInitResult(Result, frozen=True, kw_only=True):
    path: str

    def text(self) -> str:
        return f"wrote {self.path}"


def run(options: BaseInit, world: World) -> BaseInitResult:
    """Writes the file. Raises `base.exists`, `base.field`, `base.unknown`."""
    from aerogel.distroless.catalogue import find_declaration
    from aerogel.distroless.reading import parse_declaration
    from aerogel.distroless.underlay import is_image
    from aerogel.oci.ends import parse_end
    from aerogel.store.disk import disk_errors

    target = world.settings.directory / options.path
    if is_image(options.extends):
        parse_end(options.extends)
    elif not options.extends.startswith(("./", "../", "/")):
        find_declaration(options.extends)
    name = options.name or _name(os.path.basename(os.path.abspath(target.parent)))
    packages = "".join(f"\n  - {each}" for each in options.package) or " []"
    file = os.path.basename(options.path)
    text = _TEXT.format(file=file, name=name, extends=options.extends, packages=packages)
    parse_declaration(Source(options.path, text.encode()))
    with disk_errors(str(target.parent)):
        try:
            with target.open("w" if options.force else "x") as out:
                out.write(text)
        except FileExistsError:
            raise AerogelError(
                f"`{options.path}` is there already",
                code="base.exists",
                hints=["name another file, or write over it with `--force`"],
                exit_status=EXIT_USAGE,
            ) from None
    return BaseInitResult(path=options.path)


def _name(text: str) -> str:
    """A folder's name as the name of a base."""
    kept = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in text.lower())
    return "-".join(part for part in kept.split("-") if part) or "base"
