"""What the user asks of a Dockerfile, beside its text. Pure."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

__all__ = ["Request"]


class Request(msgspec.Struct, frozen=True):
    """What the user asked of the Dockerfile. `target` is a stage name, empty for the last stage.

    `platform` is the target's platform, `build_platform` the one that runs the build, both as `os/arch[/variant]`.
    `contexts` are the names given with `--build-context`. `network` is that of RUN steps that say nothing else
    (`default`, `none` or `host`), `hosts` are (name, address) pairs that they know, `allow` are the entitlements
    that the user grants: `network.host`, `security.insecure`. `places` are other names for contexts in the graph, so
    that several builds can be run as one (`local`).
    """

    target: str = ""
    build_args: Mapping[str, str] = msgspec.field(default_factory=dict)
    platform: str = "linux/amd64"
    build_platform: str = "linux/amd64"
    contexts: frozenset[str] = frozenset()
    image_contexts: frozenset[str] = frozenset()
    network: str = "default"
    hosts: tuple[tuple[str, str], ...] = ()
    allow: frozenset[str] = frozenset()
    places: Mapping[str, str] = msgspec.field(default_factory=dict)

    def local(self, name: str) -> str:
        """What a context is called in the graph."""
        return self.places.get(name, name)
