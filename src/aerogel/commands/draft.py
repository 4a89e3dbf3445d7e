"""A Dockerfile read and planned as a build would, without its bases: for questions that need no build.

Nothing is fetched or composed. What is known of an image without that counts: the config of one in the local store,
the environment of one that is built in; of others only the name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
from aerogel.graph.config import split_env
from aerogel.graph.outline import Outline, outline
from aerogel.graph.request import Request
from aerogel.graph.stages import ContextRef, ImageRef, Plan, SourceRef, plan
from aerogel.graph.steps import BaseImage, Graph, lower
from aerogel.oci.image import load
from aerogel.oci.platform import Platform
from aerogel.oci.reference import Reference
from aerogel.oci.types import ContainerConfig, Descriptor, ImageConfig

__all__ = ["Draft", "open_draft"]

_ALLOWED = frozenset({"network.host", "security.insecure", "device"})


class Draft:
    """The Dockerfile, and on demand the plan and the graph of the target."""

    def __init__(self, dockerfile: Dockerfile, request: Request, known: _Known) -> None:
        self.dockerfile = dockerfile
        self.request = request
        self._known = known

    def plan(self) -> Plan:
        """The plan, with the ONBUILD instructions of the images that are known. Raises `graph.*`."""
        triggers: dict[tuple[SourceRef, str], tuple[str, ...]] = {}
        while True:
            planned = plan(self.dockerfile, self.request, triggers)
            found = {
                (each.base, each.platform): config.config.on_build
                for each in planned.stages
                if (config := self._known.config(each.base, each.platform)) is not None and config.config.on_build
            }
            if found.items() <= triggers.items():
                return planned
            triggers |= found

    def outline(self) -> Outline:
        """What the target takes. Raises `graph.*`."""
        return outline(self.plan(), self.dockerfile, self._known.environment)

    def graph(self) -> Graph:
        """The graph with the names of images in place of their layers. Raises `graph.*`."""
        return lower(self.plan(), self._known.image)


class _Known:
    """What is known of images without fetching. `images` are the named contexts that stand for one."""

    def __init__(self, world: World, images: Mapping[str, str | Descriptor]) -> None:
        self._world = world
        self._images = images

    def config(self, ref: SourceRef, platform: str) -> ImageConfig | None:
        """The config of an image in the local store."""
        found: str | Descriptor | None = None
        if isinstance(ref, ImageRef):
            found = self._world.settings.aliases.get(ref.name, ref.name)
        elif isinstance(ref, ContextRef):
            found = self._images.get(ref.name)
        store = self._world.store
        descriptor = store.images.resolve(Reference.parse(found)) if isinstance(found, str) else found
        if descriptor is None:
            return None
        config = load(descriptor, store.blobs, Platform.parse(platform)).config
        return config if Platform.parse(platform).matches(config.platform) else None

    def environment(self, ref: SourceRef, platform: str) -> dict[str, str]:
        """The environment that a stage from the image begins with."""
        config = self.config(ref, platform)
        if config is not None:
            return dict(split_env(text) for text in config.config.env)
        return built_in_environment(ref.name) or {} if isinstance(ref, ImageRef) else {}

    def image(self, ref: SourceRef, platform: str, span: Span) -> BaseImage:
        """An image with its name for layers."""
        del span
        name = ref.name if isinstance(ref, ImageRef | ContextRef) else "scratch"
        config = self.config(ref, platform)
        if config is None:
            found = Platform.parse(platform)
            env = tuple(f"{key}={value}" for key, value in self.environment(ref, platform).items())
            config = ImageConfig(architecture=found.architecture, os=found.os, config=ContainerConfig(env=env))
        return BaseImage((f"image {name}",), config)


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
        yield Draft(parse(contexts.dockerfile()), request, _Known(world, contexts.images))
