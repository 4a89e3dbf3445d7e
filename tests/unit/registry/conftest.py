from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from loop_registry import LAYER, LoopRegistry, serve_registry, sha

from aerogel.net.http import Http
from aerogel.oci.types import OCI_CONFIG, OCI_LAYER_GZIP, OCI_MANIFEST
from aerogel.registry.client import Registries
from aerogel.registry.credentials import Credentials


@pytest.fixture
def server() -> Iterator[LoopRegistry]:
    with serve_registry() as running:
        yield running


@pytest.fixture
def waits() -> list[float]:
    return []


@pytest.fixture
def secrets() -> list[str]:
    return []


Client = Callable[..., Registries]


@pytest.fixture
def client(tmp_path: Path, waits: list[float], secrets: list[str]) -> Client:
    """Makes a client; `login` maps registries to `user:password`, as docker's config has them."""

    def make(login: dict[str, dict[str, str]] | None = None, **options: object) -> Registries:
        config = tmp_path / "config.json"
        if login is not None:
            config.write_text(json.dumps({"auths": login}))
        http = Http(sleep=waits.append, read_timeout_s=20.0, connect_timeout_s=20.0)
        credentials = Credentials([config], {"PATH": str(tmp_path)}, on_secret=secrets.append)
        return Registries(http, credentials, on_secret=secrets.append, **options)

    return make


@pytest.fixture
def pushed(server: LoopRegistry) -> str:
    """An image `app:one` of two blobs; its digest."""
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [sha(b"the tar")]},
        }
    ).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": OCI_CONFIG, "digest": server.add_blob("app", config), "size": len(config)},
        "layers": [{"mediaType": OCI_LAYER_GZIP, "digest": server.add_blob("app", LAYER), "size": len(LAYER)}],
    }
    return server.add_manifest("app", json.dumps(manifest).encode(), OCI_MANIFEST, "one")
