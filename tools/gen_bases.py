"""Writes what is made from the declarations of the built-in bases, or checks that it is current.

`src/aerogel/distroless/data/bases.json` is all of `data/bases/*.yaml` in a form that needs no YAML to be read;
`docs/reference/base.schema.json` is the JSON schema of the format.

python tools/gen_bases.py --write
python tools/gen_bases.py --check
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "src"))

import msgspec  # noqa: E402 - the path comes first

from aerogel.distroless.declaration import Declaration  # noqa: E402
from aerogel.distroless.reading import parse_declaration  # noqa: E402
from aerogel.errors import AerogelError, Source, render  # noqa: E402

DATA = ROOT / "src/aerogel/distroless/data"
SCHEMA = ROOT / "docs/reference/base.schema.json"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    modes = parser.add_mutually_exclusive_group(required=True)
    modes.add_argument("--write", action="store_true")
    modes.add_argument("--check", action="store_true")
    write = parser.parse_args().write
    try:
        made = {DATA / "bases.json": catalogue(), SCHEMA: schema()}
    except AerogelError as error:
        print(render(error))
        return 1
    status = 0
    for path, data in made.items():
        if path.exists() and path.read_bytes() == data:
            continue
        if write:
            path.write_bytes(data)
            print(f"wrote {path.relative_to(ROOT)}")
        else:
            status = 1
            print(f"{path.relative_to(ROOT)} is not current: run `python tools/gen_bases.py --write`")
    return status


def catalogue() -> bytes:
    """All declarations, each behind what it extends, otherwise by name."""
    found: dict[str, Declaration] = {}
    for path in sorted((DATA / "bases").glob("*.yaml")):
        declaration, _ = parse_declaration(Source(str(path.relative_to(ROOT)), path.read_bytes()))
        if declaration.name != path.stem:
            raise AerogelError(f"`{path.name}` declares `{declaration.name}`", code="base.name")
        found[declaration.name] = declaration
    ordered: dict[str, Declaration] = {}

    def add(name: str) -> None:
        base = found[name].extends
        if base is not None and base not in ordered:
            add(base)
        ordered[name] = found[name]

    for name in sorted(found, key=lambda name: (depth(found, name), name)):
        add(name)
    encoder = msgspec.json.Encoder()
    return b"[\n" + b",\n".join(encoder.encode(one) for one in ordered.values()) + b"\n]\n"


def depth(found: dict[str, Declaration], name: str) -> int:
    """How many declarations stand below one."""
    base = found[name].extends
    return 0 if base is None else 1 + depth(found, base)


def schema() -> bytes:
    """The JSON schema (2020-12) that editors and validators take."""
    made = msgspec.json.schema(Declaration)
    made = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "aerogel base.yaml", **made}
    return msgspec.json.format(msgspec.json.encode(made, order="sorted"), indent=1) + b"\n"


if __name__ == "__main__":
    sys.exit(main())
