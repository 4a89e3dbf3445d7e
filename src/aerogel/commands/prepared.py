"""A build that is ready to run: its Dockerfile planned and lowered, once for each platform.

For `building`, which runs one build or several together. What another build of the same run makes (a link of a bake
file) is lowered on demand, for the platforms that are asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import msgspec

from aerogel.commands import lending
from aerogel.commands.bases import Bases
from aerogel.commands.build_model import Build
from aerogel.commands.checking import Checker, check_build, warn
from aerogel.commands.contexts import MAIN, Contexts
from aerogel.commands.epoch import resolve_epoch
from aerogel.commands.world import World
from aerogel.dockerfile.ast import Dockerfile, Run
from aerogel.errors import EXIT_USAGE, AerogelError, Span
from aerogel.events import Warned
from aerogel.files.host import HostTree
from aerogel.graph.ops import Local
from aerogel.graph.request import Request
from aerogel.graph.stages import ContextRef, ImageRef, Plan, SourceRef, plan
from aerogel.graph.steps import BaseImage, Graph, Lowered, Step, lower
from aerogel.lint.rule import Options as LintOptions
from aerogel.oci.platform import Platform
from aerogel.solve.materials import Materials
from aerogel.solve.offers import Offers
from aerogel.solve.remotes import Remotes

if TYPE_CHECKING:
    from aerogel.distroless.declared import Beside

__all__ = ["Places", "Prepared", "Ready", "parse_platforms"]


def parse_platforms(text: str) -> tuple[Platform, ...]:
    """`linux/amd64,linux/arm64`, each once, in this order. Raises `oci.platform`."""
    return tuple(dict.fromkeys(Platform.parse(part) for part in text.split(",") if part.strip()))


class Places:
    """Names in the graph for the contexts of all builds of a run: the same folder has the same."""

    def __init__(self) -> None:
        self._names: dict[tuple[str, ...], str] = {}
        self.offers = Offers()
        """Layers that any of the builds can have from elsewhere."""

    def name(self, name: str, identity: tuple[str, ...]) -> str:
        """Its own name for the first context that has it, another for each further one."""
        if identity not in self._names:
            taken = set(self._names.values())
            free = (candidate for number in range(1, len(taken) + 2) if (candidate := f"{name}@{number}") not in taken)
            self._names[identity] = name if name not in taken else next(free)
        return self._names[identity]


class Prepared:
    """One platform of a build. `linked` are those of other builds that it reads."""

    __slots__ = ("graph", "linked", "planned", "platform")

    def __init__(self, platform: Platform, planned: Plan, graph: Graph, linked: list[Prepared]) -> None:
        self.platform = platform
        self.planned = planned
        self.graph = graph
        self.linked = linked

    def steps(self) -> list[Step]:
        """Those of what it reads first."""
        return [*(step for other in self.linked for step in other.steps()), *self.graph.steps]


class Ready:
    """One build with its sources open. `links` are the builds that named contexts stand for."""

    def __init__(
        self,
        options: Build,
        world: World,
        dockerfile: Dockerfile,
        build_args: Mapping[str, str],
        contexts: Contexts,
        remotes: Remotes,
        *,
        platform: Platform,
        places: Places,
        links: Mapping[str, Ready],
        materials: Callable[[int, bool], Materials],
    ) -> None:
        self._world = world
        self._dockerfile = dockerfile
        self.contexts = contexts
        self.remotes = remotes
        self._links = links
        names = {name: places.name(name, contexts.identity(name)) for name in (MAIN, *contexts.folders)}
        self._folders = {place: name for name, place in names.items()}
        request = Request(
            target=options.target,
            build_args=build_args,
            platform=str(platform),
            build_platform=str(Platform.host()),
            contexts=contexts.names | frozenset(links),
            image_contexts=frozenset(contexts.images) | frozenset(links),
            network=lending.parse_network(options.network),
            hosts=lending.parse_hosts(options.add_host),
            allow=lending.parse_allow(options.allow),
            places=names,
        )
        setting = world.settings.source_date_epoch
        self.epoch_s, is_given, arguments = resolve_epoch(dockerfile, request, setting, contexts, remotes)
        self.request = msgspec.structs.replace(request, build_args=arguments)
        self.materials = materials(self.epoch_s, is_given)
        stages = tuple(stage.name for stage in dockerfile.stages if stage.name)
        self.bases = Bases(world, self.materials, contexts.images, pull=options.pull, stages=stages, home=self._beside)
        self._prepared: dict[Platform, Prepared] = {}
        self._busy: set[Platform] = set()

    def _beside(self) -> Beside:
        """The main context as the folder of declarations; of a fetched one nothing can be vouched for."""
        from aerogel.distroless.declared import Beside

        place = self.contexts.place(MAIN)
        look = self._world.witness.look if place.is_host else (lambda path: self._world.witness.doubt(str(path)))
        return Beside(place.path, is_closed=True, look=look)

    def prepare(self, platform: Platform) -> Prepared:
        """The graph for one platform. Raises `graph.*`, `build.no-base` and what finding bases raises."""
        if platform not in self._prepared:
            if platform in self._busy:
                raise AerogelError(
                    "builds read each other in a circle",
                    code="build.cycle",
                    exit_status=EXIT_USAGE,
                    hints=["let one of them stand alone"],
                )
            self._busy.add(platform)
            self._prepared[platform] = self._prepare(platform)
        return self._prepared[platform]

    def _prepare(self, platform: Platform) -> Prepared:
        linked: dict[int, Prepared] = {}

        def resolve(ref: SourceRef, wanted: str, span: Span) -> BaseImage | Lowered:
            link = self._links.get(ref.name.partition("::")[0]) if isinstance(ref, ContextRef) else None
            if link is None:
                return self.bases.resolve(ref, wanted, span)
            made = link.prepare(Platform.parse(wanted))
            linked[id(made)] = made
            return made.graph.target

        request = msgspec.structs.replace(self.request, platform=str(platform))
        planned = self._plan(request, resolve)
        graph = lower(planned, resolve)
        if not self._prepared:
            for diagnostic in graph.diagnostics:
                self._world.sink.emit(Warned(diagnostic))
            self._check(planned)
        return Prepared(platform, planned, graph, list(linked.values()))

    def trees(self, steps: list[Step]) -> dict[str, HostTree]:
        """The folders that some step reads, by their names in the graph."""
        wanted = {side.op.name for step in steps for side in step.node.inputs if isinstance(side.op, Local)}
        return {place: self.contexts.tree(self._folders[place]) for place in sorted(wanted & self._folders.keys())}

    def lint_options(self) -> LintOptions:
        """Which rules hold for this build."""
        return Checker(build_args=dict(self.request.build_args)).options(self._dockerfile)

    def _check(self, planned: Plan) -> None:
        """Warns of what the rules find, now that the bases are known."""
        checker = Checker(build_args=dict(self.request.build_args), platform=planned.request.platform)
        images = {
            stage.base.name: self.bases.resolve(stage.base, stage.platform, stage.stage.base.span)
            for stage in planned.stages
            if isinstance(stage.base, ImageRef)
        }
        findings, options = check_build(checker, self._dockerfile, self.contexts.ignore(), planned, images)
        warn(findings, self._world.sink, options)

    def _plan(self, request: Request, resolve: Callable[[SourceRef, str, Span], BaseImage | Lowered]) -> Plan:
        """The plan with the ONBUILD instructions of its images, which may need more stages and more images."""
        triggers: dict[tuple[SourceRef, str], tuple[str, ...]] = {}
        bases = self.bases
        while True:
            planned = plan(self._dockerfile, request, triggers)
            bases.will_run = any(isinstance(each, Run) for stage in planned.stages for each in stage.stage.instructions)
            self._prefetch(planned)
            known = dict(triggers)
            for each in planned.stages:
                if isinstance(each.base, ImageRef) or (
                    isinstance(each.base, ContextRef) and each.base.name in request.image_contexts
                ):
                    found = resolve(each.base, each.platform, each.stage.base.span)
                    on_build = (
                        tuple(found.config.triggers) if isinstance(found, Lowered) else found.config.config.on_build
                    )
                    if on_build:
                        triggers[each.base, each.platform] = on_build
            if triggers == known:
                return planned

    def _prefetch(self, planned: Plan) -> None:
        """Finds all bases at the same time; a fault is raised for the first in the order of the file."""
        wanted = [
            (each.base, each.platform, each.stage.base.span)
            for each in planned.stages
            if isinstance(each.base, ImageRef)
        ]
        if len({(ref.name, platform) for ref, platform, _ in wanted}) < 2:
            return
        with ThreadPoolExecutor(max_workers=4, thread_name_prefix="base") as pool:
            for future in [pool.submit(self.bases.resolve, *each) for each in wanted]:
                future.result()
