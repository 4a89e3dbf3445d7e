"""A Dockerfile read and planned as a build would, without its bases: for questions that need no build.

An image is known by its name only, so its environment and its ONBUILD instructions are not seen; the environment of
what is built in is.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from aerogel.commands.build_model import Build
from aerogel.commands.checking import built_in_environment
from aerogel.commands.contexts import Contexts
from aerogel.commands.lending import lent_of
from aerogel.commands.remotes import open_remotes
from aerogel.commands.source import build_args
from aerogel.commands.world import World
from aerogel.dockerfile.ast import Dockerfile
from aerogel.dockerfile.parse import parse
from aerogel.errors import Span
from aerogel.graph.request import Request
from aerogel.graph.stages import ContextRef, ImageRef, Plan, SourceRef, plan
from aerogel.graph.steps import BaseImage, Graph, lower
from aerogel.oci.platform import Platform
from aerogel.oci.types import ContainerConfig, ImageConfig

__all__ = ["Draft", "open_draft"]

_ALLOWED = frozenset({"network.host", "security.insecure", "device"})


class Draft:
    """The Dockerfile, and on demand the plan and the graph of the target."""

    def __init__(self, dockerfile: Dockerfile, request: Request) -> None:
        self.dockerfile = dockerfile
        self.request = request

    def plan(self) -> Plan:
        """Raises `graph.*`."""
        return plan(self.dockerfile, self.request)

    def graph(self) -> Graph:
        """The graph with the names of images in place of their layers. Raises `graph.*`."""
        return lower(self.plan(), _named)


@contextmanager
def open_draft(options: Build, world: World) -> Iterator[Draft]:
    """Reads the Dockerfile, wherever the options say it is. Raises `build.*`, `dockerfile.*`, `net.*`, `git.*`."""
    with ExitStack() as stack:
        remotes = open_remotes(world, lent_of(options, world))
        stack.callback(remotes.close)
        contexts = Contexts(options, world, remotes)
        stack.callback(contexts.close)
        host = str(Platform.host())
        request = Request(
            target=options.target,
            build_args=build_args(options.build_arg, world.settings.environment),
            platform=str(Platform.parse(options.platform or world.settings.platform or host)),
            build_platform=host,
            contexts=contexts.names,
            image_contexts=frozenset(contexts.images),
            allow=_ALLOWED,
        )
        yield Draft(parse(contexts.dockerfile()), request)


def _named(ref: SourceRef, platform: str, span: Span) -> BaseImage:
    """An image that is only its name."""
    del span
    name = ref.name if isinstance(ref, ImageRef | ContextRef) else "scratch"
    env = tuple(f"{key}={value}" for key, value in (built_in_environment(name) or {}).items())
    found = Platform.parse(platform)
    config = ImageConfig(architecture=found.architecture, os=found.os, config=ContainerConfig(env=env))
    return BaseImage((f"image {name}",), config)
