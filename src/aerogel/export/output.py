"""What `-o`, `--push` and `--annotation` ask for, as values: where a build's result goes and in which form.

The words are buildx's and BuildKit's. Reading them touches no file; `export.outputs` writes.
Spec: docker's reference of `docker buildx build --output`; BuildKit README "Output"; BuildKit docs/annotations.md.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping

import msgspec

from aerogel.errors import EXIT_USAGE, AerogelError, nearest
from aerogel.export.annotation import Annotation, parse_annotation
from aerogel.files.codec import Codec, select

__all__ = ["DAEMONS", "TYPES", "Output", "Variant", "parse_output"]

DAEMONS = ("docker-daemon", "containers-storage")
"""Where docker and podman keep their images."""
TYPES = ("image", "registry", "oci", "docker", "tar", "local", *DAEMONS, "cacheonly")

_FORM_KEYS = frozenset(
    {"name", "compression", "compression-level", "force-compression", "oci-mediatypes", "rewrite-timestamp"}
    | {"oci-artifact"}
)
_STORED_KEYS = frozenset(
    {"push", "push-by-digest", "registry.insecure", "store", "unpack", "name-canonical", "dangling-name-prefix"}
)
_KEYS: Mapping[str, frozenset[str]] = {
    "image": _FORM_KEYS | _STORED_KEYS,
    "registry": _FORM_KEYS | _STORED_KEYS - {"push"},
    "oci": _FORM_KEYS | {"dest", "tar"},
    "docker": _FORM_KEYS | {"dest", "tar"},
    "tar": frozenset({"dest", "platform-split", "rewrite-timestamp"}),
    "local": frozenset({"dest", "platform-split", "rewrite-timestamp"}),
    **dict.fromkeys(DAEMONS, _FORM_KEYS),
    "cacheonly": frozenset(),
}
_ABSENT: Mapping[str, tuple[str, str]] = {
    "mode": ("nothing in the folder is ever removed", "empty the folder before the build"),
    "attestation-prefix": ("SBOM and provenance belong to images", "write the image with `type=oci,dest=FILE`"),
    "context": ("docker's contexts are not read", "write `type=docker-daemon` and name the daemon in `DOCKER_HOST`"),
    "prefer-nondist-layers": ("every layer is one that may be pushed", "leave it out"),
    "buildinfo": ("it is gone since BuildKit 0.12", "`--provenance` tells what the image was made from"),
}
"""Keys of BuildKit that are not there: why, and what to do instead."""
_ANNOTATION = "annotation"


class Variant(msgspec.Struct, frozen=True, kw_only=True):
    """How the image of one output differs from the one that the store gets without outputs."""

    codec: Codec | None = None
    """None: what `--compression` says."""
    force: bool = False
    """Layers of the base are compressed anew as well."""
    docker: bool = False
    """Docker's media types instead of OCI's."""
    rewrite: bool = False
    """No file that the build made is newer than its epoch, even if the layers were made with their own times."""
    annotations: tuple[Annotation, ...] = ()


class Output(msgspec.Struct, frozen=True, kw_only=True):
    """One `-o`. `dest` is a file or folder, `-` for standard output, empty for the local store.

    `push` sends the image to the registry of `names`, or of the build's names without them, or to the repository
    `anonymous`; `by_digest` without tag. `is_insecure`: the registry may be spoken to without TLS.
    """

    type: str
    dest: str = ""
    names: tuple[str, ...] = ()
    push: bool = False
    by_digest: bool = False
    anonymous: str = ""
    is_insecure: bool = False
    store: bool = True
    """The local store lists the image."""
    unpack: bool = False
    """The layers become directories at once, not when the first command runs on them."""
    tar: bool = True
    split: bool = True
    """Of several platforms each gets a folder of its own."""
    variant: Variant = Variant()

    @property
    def is_image(self) -> bool:
        """Whether it is an image for the store or for registries."""
        return self.type in ("image", "registry")

    @property
    def is_tree(self) -> bool:
        """Whether it is files and no image."""
        return self.type in ("tar", "local")


def parse_output(text: str) -> Output:
    """Reads `key=value,...`, `FOLDER` or `-`. Raises `build.bad-output` with what would be valid."""
    parts = next(csv.reader([text]), [])
    if len(parts) == 1 and parts[0] == text and not text.startswith("type="):
        # buildx: a word alone is a folder, `-` is the root file system as a tar on standard output.
        return Output(type="tar", dest="-") if text == "-" else Output(type="local", dest=text)
    fields: dict[str, str] = {}
    for part in parts:
        key, sign, value = part.partition("=")
        if not sign:
            raise _bad(f"`{part}` in the output `{text}` has no value", "write `key=value,key=value`")
        fields[key.strip().lower() if not key.startswith(_ANNOTATION) else key.strip()] = value
    kind = fields.pop("type", "")
    if kind not in TYPES:
        guess = nearest(kind, TYPES)
        what = f"output type `{kind}` is not known" if kind else f"the output `{text}` has no type"
        raise _bad(
            what, f"did you mean `{guess}`?" if guess else f"types are {', '.join(f'`{each}`' for each in TYPES)}"
        )
    annotations = _annotations(kind, fields)
    _check_keys(kind, fields)
    return _made(kind, fields, annotations)


def _annotations(kind: str, fields: dict[str, str]) -> tuple[Annotation, ...]:
    """Takes `annotation.KEY`, `annotation-LEVEL.KEY` and `annotation-LEVEL[PLATFORM].KEY` out of the fields."""
    found = []
    for name in [name for name in fields if name.startswith((f"{_ANNOTATION}.", f"{_ANNOTATION}-"))]:
        place, _, key = name.partition(".")
        if "[" in place and "]" not in place:
            more, _, key = key.partition("].")
            place = f"{place}.{more}]"
        level = place.removeprefix(_ANNOTATION).removeprefix("-") or "manifest"
        found.append(parse_annotation(f"{level}:{key}", fields.pop(name)))
    if found and kind not in ("image", "registry", "oci", "docker", *DAEMONS):
        raise _bad(f"output `{kind}` is no image and has no annotations", "give them to `type=image` or `type=oci`")
    return tuple(found)


def _check_keys(kind: str, fields: Iterable[str]) -> None:
    known = sorted(_KEYS[kind])
    for key in fields:
        if key not in known:
            if key in _ABSENT:
                why, instead = _ABSENT[key]
                raise _bad(f"output `{kind}` has no key `{key}`: {why}", instead)
            guess = nearest(key, known)
            listed = ", ".join(f"`{one}`" for one in ("type", *known))
            raise _bad(
                f"output `{kind}` has no key `{key}`",
                f"did you mean `{guess}`?" if guess else f"known keys are {listed}",
            )


def _made(kind: str, fields: Mapping[str, str], annotations: tuple[Annotation, ...]) -> Output:
    dest = fields.get("dest", "")
    tar = _switch(fields, "tar", default=True)
    if kind == "local" and dest in ("", "-"):
        raise _bad("output `local` needs a folder", "write `type=local,dest=FOLDER`")
    if kind == "docker" and not tar:
        raise _bad("output `docker` is always an archive", "write `type=oci,tar=false,dest=FOLDER` for a folder")
    if kind == "oci" and not tar and dest in ("", "-"):
        raise _bad("output `oci` as a folder needs its name", "write `type=oci,tar=false,dest=FOLDER`")
    if kind in ("oci", "tar") and not dest:
        dest = "-"
    if not _switch(fields, "oci-artifact", default=True):
        raise _bad(
            "`oci-artifact=false`: SBOM and provenance are always artifacts that refer to the image",
            "leave it out: an index entry for them would make an index of each image",
        )
    _switch(fields, "name-canonical")  # the store and registries find every image by `NAME@DIGEST` anyway
    names = tuple(name.strip() for name in fields.get("name", "").split(",") if name.strip())
    return Output(
        type=kind,
        dest=dest,
        names=names,
        push=kind == "registry" or _switch(fields, "push") or _switch(fields, "push-by-digest"),
        by_digest=_switch(fields, "push-by-digest"),
        anonymous=fields.get("dangling-name-prefix", ""),
        is_insecure=_switch(fields, "registry.insecure"),
        store=_switch(fields, "store", default=True),
        unpack=_switch(fields, "unpack"),
        tar=tar,
        split=_switch(fields, "platform-split", default=True),
        variant=Variant(
            codec=_codec(fields),
            force=_switch(fields, "force-compression"),
            docker=not _switch(fields, "oci-mediatypes", default=True),
            rewrite=_switch(fields, "rewrite-timestamp"),
            annotations=annotations,
        ),
    )


def _codec(fields: Mapping[str, str]) -> Codec | None:
    name, level = fields.get("compression", ""), fields.get("compression-level", "")
    if not name and not level:
        return None
    number: int | None = None
    if level:
        if not level.isascii() or not level.isdecimal():
            raise _bad(f"`compression-level={level}` is not a number", "levels are 0 to 9 for gzip, 1 to 22 for zstd")
        number = int(level)
    try:
        return select(name or "gzip", number)
    except AerogelError as error:
        error.exit_status = EXIT_USAGE
        raise


_WORDS = {"true": True, "1": True, "t": True, "false": False, "0": False, "f": False}


def _switch(fields: Mapping[str, str], key: str, *, default: bool = False) -> bool:
    text = fields.get(key)
    if text is None:
        return default
    found = _WORDS.get(text.lower())
    if found is None:
        raise _bad(f"`{key}={text}` is neither `true` nor `false`", f"write `{key}=true` or leave it out")
    return found


def _bad(message: str, hint: str) -> AerogelError:
    return AerogelError(message, code="build.bad-output", exit_status=EXIT_USAGE, hints=[hint])
