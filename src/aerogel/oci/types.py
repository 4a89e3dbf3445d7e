"""The JSON documents of an image as frozen values: descriptor, manifest, index, image config.

Not views that fetch blobs (`oci.image`) and not edits (`oci.edit`). Decoding is lenient as Go's is (null means
absent), encoding is canonical: sorted keys, compact, UTF-8, no key for an empty value. Keys that the specs do not
know are kept in `unknown` of each value and written back, so that an edited document loses nothing.
Spec: OCI image-spec v1.1 descriptor.md, manifest.md, image-index.md, config.md; Docker image spec v1.3
(Healthcheck, OnBuild, Shell, ArgsEscaped).
"""

from __future__ import annotations

import json
from functools import cache
from typing import Annotated, Any, TypeVar

import msgspec

from aerogel.decoding import parse_json, prepare
from aerogel.errors import AerogelError
from aerogel.oci.digest import PATTERN, Digest
from aerogel.oci.platform import Platform

__all__ = [
    "CONFIG_TYPES",
    "DOCKER_CONFIG",
    "DOCKER_FOREIGN_LAYER",
    "DOCKER_LAYER",
    "DOCKER_LAYER_GZIP",
    "DOCKER_LAYER_ZSTD",
    "DOCKER_LIST",
    "DOCKER_MANIFEST",
    "DOCKER_TYPES",
    "EMPTY_JSON",
    "INDEX_TYPES",
    "LAYER_TYPES",
    "MANIFEST_TYPES",
    "OCI_CONFIG",
    "OCI_EMPTY",
    "OCI_INDEX",
    "OCI_LAYER",
    "OCI_LAYER_GZIP",
    "OCI_LAYER_ZSTD",
    "OCI_MANIFEST",
    "REF_NAME",
    "ContainerConfig",
    "Descriptor",
    "Healthcheck",
    "History",
    "ImageConfig",
    "Index",
    "Manifest",
    "RootFS",
    "decode",
    "encode",
    "from_dict",
    "timestamp",
    "to_dict",
]

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_EMPTY = "application/vnd.oci.empty.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
OCI_LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
OCI_LAYER_ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"
_OCI_FOREIGN = "application/vnd.oci.image.layer.nondistributable.v1.tar"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
DOCKER_LAYER_GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip"
DOCKER_LAYER_ZSTD = "application/vnd.docker.image.rootfs.diff.tar.zstd"
DOCKER_FOREIGN_LAYER = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"

INDEX_TYPES = frozenset({OCI_INDEX, DOCKER_LIST})
MANIFEST_TYPES = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
CONFIG_TYPES = frozenset({OCI_CONFIG, DOCKER_CONFIG})
LAYER_TYPES = {
    OCI_LAYER: "",
    OCI_LAYER_GZIP: "gzip",
    OCI_LAYER_ZSTD: "zstd",
    _OCI_FOREIGN: "",
    _OCI_FOREIGN + "+gzip": "gzip",
    _OCI_FOREIGN + "+zstd": "zstd",
    DOCKER_LAYER: "",
    DOCKER_LAYER_GZIP: "gzip",
    DOCKER_LAYER_ZSTD: "zstd",
    DOCKER_FOREIGN_LAYER: "gzip",
}
"""Media type of a file system layer -> its compression (`""`, `gzip` or `zstd`)."""

DOCKER_TYPES = {OCI_LAYER: DOCKER_LAYER, OCI_LAYER_GZIP: DOCKER_LAYER_GZIP, OCI_LAYER_ZSTD: DOCKER_LAYER_ZSTD}
"""OCI's media type of a layer -> Docker's."""

REF_NAME = "org.opencontainers.image.ref.name"
EMPTY_JSON = b"{}"
"""The content of the `OCI_EMPTY` descriptor."""

_UNKNOWN = "(unknown)"
"""JSON name of the fields called `unknown`; never read or written, `encode` spreads what they hold."""

_Checked = Annotated[Digest, msgspec.Meta(pattern=PATTERN)]
_Size = Annotated[int, msgspec.Meta(ge=0)]


class Descriptor(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel", kw_only=True):
    """An edge of the graph: what kind of blob, which one, how many bytes."""

    media_type: str = ""
    digest: _Checked
    size: _Size
    urls: tuple[str, ...] = ()
    annotations: dict[str, str] = {}
    data: str = ""
    """Base64 of the blob itself, for small ones."""
    artifact_type: str = ""
    platform: Platform | None = None
    unknown: str = msgspec.field(default="", name=_UNKNOWN)


class Manifest(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel", kw_only=True):
    """One image (or artifact): a config and its layers, lowest first."""

    schema_version: int
    media_type: str = ""
    artifact_type: str = ""
    config: Descriptor
    layers: tuple[Descriptor, ...] = msgspec.field(default_factory=lambda: ())
    """Required by the specification: a factory's value is written even when it is empty."""
    subject: Descriptor | None = None
    annotations: dict[str, str] = {}
    unknown: str = msgspec.field(default="", name=_UNKNOWN)


class Index(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel", kw_only=True):
    """Several manifests under one digest, usually one for each platform."""

    schema_version: int
    media_type: str = ""
    artifact_type: str = ""
    manifests: tuple[Descriptor, ...] = msgspec.field(default_factory=lambda: ())
    """Required by the specification, as the layers of a manifest."""
    subject: Descriptor | None = None
    annotations: dict[str, str] = {}
    unknown: str = msgspec.field(default="", name=_UNKNOWN)


class Healthcheck(msgspec.Struct, frozen=True, omit_defaults=True, rename="pascal", kw_only=True):
    """Docker's health check; `test` is `("NONE",)`, `("CMD", ...)` or `("CMD-SHELL", line)`, empty to inherit.

    Durations are nanoseconds, 0 to inherit.
    """

    test: tuple[str, ...] = ()
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0
    unknown: str = msgspec.field(default="", name=_UNKNOWN)


class ContainerConfig(msgspec.Struct, frozen=True, omit_defaults=True, rename="pascal", kw_only=True):
    """How a container of the image runs: key `config` of the image config."""

    user: str = ""
    exposed_ports: dict[str, dict[str, Any]] = {}
    """Keys are `port/protocol`; a set in JSON's clothes."""
    env: tuple[str, ...] = ()
    """`NAME=value`, in the order in which they were set."""
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    volumes: dict[str, dict[str, Any]] = {}
    working_dir: str = ""
    labels: dict[str, str] = {}
    stop_signal: str = ""
    args_escaped: bool = False
    healthcheck: Healthcheck | None = None
    on_build: tuple[str, ...] = ()
    shell: tuple[str, ...] = ()
    """What the shell form runs with; empty means `/bin/sh -c`."""
    unknown: str = msgspec.field(default="", name=_UNKNOWN)


class RootFS(msgspec.Struct, frozen=True, kw_only=True):
    """The layers by diff id (digest of the uncompressed tar), lowest first."""

    type: str = "layers"
    diff_ids: tuple[_Checked, ...] = ()
    unknown: str = msgspec.field(default="", name=_UNKNOWN)


class History(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One step of an image's making; entries that are not `empty_layer` pair up with the layers in order."""

    created: str = ""
    created_by: str = ""
    author: str = ""
    comment: str = ""
    empty_layer: bool = False
    unknown: str = msgspec.field(default="", name=_UNKNOWN)


class ImageConfig(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The config blob; its digest is Docker's image id."""

    created: str = ""
    """RFC 3339, UTC (see `timestamp`)."""
    author: str = ""
    architecture: str = ""
    os: str = ""
    os_version: str = msgspec.field(default="", name="os.version")
    os_features: tuple[str, ...] = msgspec.field(default=(), name="os.features")
    variant: str = ""
    config: ContainerConfig = ContainerConfig()
    rootfs: RootFS = msgspec.field(default_factory=RootFS)
    history: tuple[History, ...] = ()
    unknown: str = msgspec.field(default="", name=_UNKNOWN)

    @property
    def platform(self) -> Platform:
        return Platform(
            os=self.os,
            architecture=self.architecture,
            variant=self.variant,
            os_version=self.os_version,
            os_features=self.os_features,
        )


_T = TypeVar("_T", bound=msgspec.Struct)

_NESTED: dict[type[msgspec.Struct], dict[str, type[msgspec.Struct]]] = {
    Descriptor: {"platform": Platform},
    Manifest: {"config": Descriptor, "layers": Descriptor, "subject": Descriptor},
    Index: {"manifests": Descriptor, "subject": Descriptor},
    ContainerConfig: {"Healthcheck": Healthcheck},
    ImageConfig: {"config": ContainerConfig, "rootfs": RootFS, "history": History},
}


@cache
def _known(kind: type[msgspec.Struct]) -> frozenset[str]:
    return frozenset(field.encode_name for field in msgspec.structs.fields(kind)) - {_UNKNOWN}


def decode(data: bytes, kind: type[_T], *, what: str = "") -> _T:
    """Reads a document. Raises `oci.malformed`, naming the place in the JSON; `what` names the document."""
    what = what or kind.__name__.lower()
    try:
        value = parse_json(data)
    except ValueError as error:
        raise AerogelError(f"{what} is not JSON: {error}", code="oci.malformed") from error
    return from_dict(value, kind, what=what)


def from_dict(value: object, kind: type[_T], *, what: str = "") -> _T:
    """The same from parsed JSON."""
    prepare(kind)
    try:
        return msgspec.convert(_gather(value, kind), kind)
    except msgspec.ValidationError as error:
        text = str(error)
        raise AerogelError(
            f"{what or kind.__name__.lower()} is malformed: {text[:1].lower()}{text[1:]}", code="oci.malformed"
        ) from error


def _gather(value: object, kind: type[msgspec.Struct]) -> object:
    """Moves the unknown keys of an object into its `unknown`, and drops nulls (absent, as in Go)."""
    if not isinstance(value, dict):
        return value
    known = _known(kind)
    nested = _NESTED.get(kind, {})
    found: dict[str, object] = {}
    rest: dict[str, object] = {}
    for key, item in value.items():
        if key not in known:
            rest[key] = item
        elif item is not None:
            inner = nested.get(key)
            if inner is None:
                found[key] = item
            elif isinstance(item, list):
                found[key] = [_gather(each, inner) for each in item]
            else:
                found[key] = _gather(item, inner)
    if rest:
        found[_UNKNOWN] = json.dumps(rest, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return found


def to_dict(value: msgspec.Struct) -> dict[str, Any]:
    """The document as plain JSON values, unknown keys in their places."""
    plain: dict[str, Any] = msgspec.to_builtins(value)
    return _spread(plain, type(value))


def _spread(plain: dict[str, Any], kind: type[msgspec.Struct]) -> dict[str, Any]:
    for key, inner in _NESTED.get(kind, {}).items():
        item = plain.get(key)
        if isinstance(item, dict):
            _spread(item, inner)
        elif item:
            for each in item:
                _spread(each, inner)
    rest = plain.pop(_UNKNOWN, "")
    if rest:
        for key, item in json.loads(rest).items():
            plain.setdefault(key, item)
    return plain


def encode(value: msgspec.Struct) -> bytes:
    """Canonical bytes. Raises `oci.encode` for text that is not Unicode (a lone surrogate from a bad byte)."""
    plain = to_dict(value)
    if isinstance(value, ImageConfig):
        _keep_required(plain, value)
    try:
        return json.dumps(plain, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()
    except UnicodeEncodeError as error:
        # The escape of JSON for half of a character, `\ud800`, is no byte of anybody: it is told as it would be in UTF-8.
        bad = b"".join(
            each.encode("utf-8", "surrogateescape" if "\udc80" <= each <= "\udcff" else "surrogatepass")
            for each in error.object[error.start : error.end]
        )
        raise AerogelError(
            f"text with the byte{'s' if len(bad) > 1 else ''} `{bad.hex(' ')}` is not UTF-8 and cannot stand in an image's JSON",
            code="oci.encode",
        ) from error


def _keep_required(plain: dict[str, Any], value: ImageConfig) -> None:
    """Keys that the spec requires stay although they hold a default."""
    plain.setdefault("architecture", value.architecture)
    plain.setdefault("os", value.os)
    rootfs = plain.setdefault("rootfs", {})
    rootfs.setdefault("type", value.rootfs.type)
    rootfs.setdefault("diff_ids", [])


def timestamp(epoch_s: int) -> str:
    """RFC 3339 in UTC, whole seconds: the form of every `created`."""
    from datetime import UTC, datetime

    return datetime.fromtimestamp(epoch_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
