"""One build from its options to an image in the store: the pieces of `aerogel build`, in order.

Read the Dockerfile, plan the stages, find the bases (in parallel), lower, solve, put the image in the store.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import msgspec

from aerogel.commands import lending
from aerogel.commands.ambient import ambient
from aerogel.commands.bases import Bases
from aerogel.commands.build_model import Build, BuildResult, StepResult
from aerogel.commands.checking import Checker, check_build, warn
from aerogel.commands.contexts import Contexts
from aerogel.commands.epoch import resolve_epoch
from aerogel.commands.exporting import Exporter
from aerogel.commands.remotes import open_remotes
from aerogel.commands.source import build_args, check_text
from aerogel.commands.testimony import testify
from aerogel.commands.world import World
from aerogel.dockerfile.ast import Dockerfile, Run
from aerogel.dockerfile.parse import parse
from aerogel.errors import EXIT_USAGE, AerogelError
from aerogel.events import Warned
from aerogel.export.image import Exported, finish
from aerogel.files.host import HostTree
from aerogel.graph.ops import Base, Local, Node
from aerogel.graph.request import Request
from aerogel.graph.stages import ContextRef, ImageRef, Plan, SourceRef, plan
from aerogel.graph.steps import Graph, Step, lower
from aerogel.lint.rule import Checked
from aerogel.oci.digest import Digest
from aerogel.oci.platform import Platform
from aerogel.sandbox.spec import Mount
from aerogel.solve.keys import Keys
from aerogel.solve.materials import Materials
from aerogel.solve.remotes import Remotes
from aerogel.solve.solver import Options, Solver
from aerogel.solve.stamp import stamp
from aerogel.solve.times import Times

__all__ = ["Builder"]


@contextmanager
def _usage() -> Iterator[None]:
    """Errors in the block are of the command line, not of the Dockerfile."""
    try:
        yield
    except AerogelError as error:
        error.exit_status = EXIT_USAGE
        raise


class Builder:
    """Options made ready, and `build`. Raises AerogelError `build.*` for options that cannot be used."""

    def __init__(self, options: Build, world: World) -> None:
        self.options = options
        self.world = world
        self.exporter = Exporter(options, world)
        with _usage():
            self.platform = Platform.parse(options.platform or world.settings.platform or str(Platform.host()))
        if options.timestamps not in ("image", "keep"):
            raise AerogelError(
                f"`--timestamps={options.timestamps}` is unknown",
                code="build.bad-timestamps",
                hints=["write `image`, or `keep` for the times that files happen to have"],
                exit_status=EXIT_USAGE,
            )
        self.build_args = build_args(options.build_arg, world.settings.environment)
        check_text("--label", options.label)
        check_text("--annotation", options.annotation)
        self.lent = lending.lent_of(options, world)
        for flag, path in (("--iidfile", options.iidfile), ("--metadata-file", options.metadata_file)):
            if path == "-":
                raise AerogelError(
                    f"`{flag}` writes a file, not standard output",
                    code="build.bad-output",
                    hints=["name a file; the image's id is on standard output anyway, and with `--json` everything is"],
                    exit_status=EXIT_USAGE,
                )

    def build(self) -> tuple[BuildResult, Exported]:
        """Builds; the image is in the store afterwards, under its names."""
        with self._sources() as (contexts, remotes):
            return self._build(contexts, remotes)

    def check(self) -> Checked:
        """The findings of `aerogel lint` for this build; nothing is built and no base is looked for."""
        with self._sources() as (contexts, _):
            source = contexts.dockerfile()
            checker = Checker(build_args=self.build_args, platform=str(self.platform))
            return checker.file(source, contexts.ignore())

    @contextmanager
    def _sources(self) -> Iterator[tuple[Contexts, Remotes]]:
        with ExitStack() as stack:
            remotes = open_remotes(self.world, self.lent)
            stack.callback(remotes.close)
            contexts = Contexts(self.options, self.world, remotes)
            stack.callback(contexts.close)
            yield contexts, remotes

    def _build(self, contexts: Contexts, remotes: Remotes) -> tuple[BuildResult, Exported]:
        dockerfile = parse(contexts.dockerfile())
        request = Request(
            target=self.options.target,
            build_args=self.build_args,
            platform=str(self.platform),
            build_platform=str(Platform.host()),
            contexts=contexts.names,
            image_contexts=frozenset(contexts.images),
            network=lending.parse_network(self.options.network),
            hosts=lending.parse_hosts(self.options.add_host),
            allow=lending.parse_allow(self.options.allow),
        )
        setting = self.world.settings.source_date_epoch
        epoch_s, arguments = resolve_epoch(dockerfile, request, setting, contexts, remotes)
        request = msgspec.structs.replace(request, build_args=arguments)
        materials = Materials(self.world.store, self.world.helper, self._times(epoch_s))
        bases = Bases(self.world, materials, contexts.images, pull=self.options.pull, stages=_names(dockerfile))
        planned = self._plan(dockerfile, request, bases)
        graph = lower(planned, bases.resolve)
        for diagnostic in graph.diagnostics:
            self.world.sink.emit(Warned(diagnostic))
        self._check(dockerfile, planned, bases, contexts)
        solver = self._solver(graph, materials, bases, contexts, remotes)
        outcome = stamp(solver.solve(graph.target.node), materials, self.exporter.codec)
        finished = finish(graph.target, outcome, self.options.label, materials.times.epoch_s)

        def stage_layers(name: str) -> list[tuple[Digest, ...]] | None:
            chain = _chain(graph.target.node)
            for stage in planned.stages:
                found = solver.peek(graph.stages[stage.index].node) if stage.name == name else None
                if found is not None and graph.stages[stage.index].node.digest in chain:
                    return [found.layers]
            return None

        image = self.exporter.take([finished], materials, stage_layers)
        self.world.store.sync()
        result = self._result(graph, planned, solver, materials, image)
        if all(step.status in ("CACHED", "SKIPPED") for step in result.steps):
            testify(self.options, self.world, contexts, graph, solver, image, self.exporter.references)
        return result, image

    def _times(self, epoch_s: int) -> Times:
        if self.options.timestamps == "keep":
            return Times(int(time.time()), keep=True, keep_volatile=True)
        return Times(epoch_s, keep_volatile=self.options.keep_volatile)

    def _check(self, dockerfile: Dockerfile, planned: Plan, bases: Bases, contexts: Contexts) -> None:
        """Warns of what the rules find, now that the bases are known."""
        checker = Checker(build_args=self.build_args, platform=str(self.platform))
        images = {
            stage.base.name: bases.resolve(stage.base, stage.platform, stage.stage.base.span)
            for stage in planned.stages
            if isinstance(stage.base, ImageRef)
        }
        findings, options = check_build(checker, dockerfile, contexts.ignore(), planned, images)
        warn(findings, self.world.sink, options)

    def _plan(self, dockerfile: Dockerfile, request: Request, bases: Bases) -> Plan:
        """The plan with the ONBUILD instructions of its images, which may need more stages and more images."""
        triggers: dict[tuple[SourceRef, str], tuple[str, ...]] = {}
        while True:
            planned = plan(dockerfile, request, triggers)
            bases.will_run = any(isinstance(each, Run) for stage in planned.stages for each in stage.stage.instructions)
            self._prefetch(planned, bases)
            known = dict(triggers)
            for each in planned.stages:
                if isinstance(each.base, ImageRef) or (
                    isinstance(each.base, ContextRef) and each.base.name in request.image_contexts
                ):
                    config = bases.resolve(each.base, each.platform, each.stage.base.span).config
                    if config.config.on_build:
                        triggers[each.base, each.platform] = config.config.on_build
            if triggers == known:
                return planned

    def _prefetch(self, planned: Plan, bases: Bases) -> None:
        """Finds all bases at the same time; a fault is raised for the first in the order of the file."""
        wanted = [
            (each.base, each.platform, each.stage.base.span)
            for each in planned.stages
            if isinstance(each.base, ImageRef)
        ]
        if len({(ref.name, platform) for ref, platform, _ in wanted}) < 2:
            return
        with ThreadPoolExecutor(max_workers=4, thread_name_prefix="base") as pool:
            for future in [pool.submit(bases.resolve, *each) for each in wanted]:
                future.result()

    def _trees(self, graph: Graph, contexts: Contexts) -> dict[str, HostTree]:
        """The local contexts that some step reads."""
        sides = (side.op for step in graph.steps for side in step.node.inputs)
        return {name: contexts.tree(name) for name in sorted({op.name for op in sides if isinstance(op, Local)})}

    def _solver(self, graph: Graph, materials: Materials, bases: Bases, contexts: Contexts, remotes: Remotes) -> Solver:
        trees = self._trees(graph, contexts)
        stages = {name.lower() for name in self.options.no_cache_filter}

        def no_cache(step: Step) -> bool:
            return self.options.no_cache or step.stage in stages

        def mirror_mounts() -> tuple[Mount, ...]:
            from aerogel.distroless.apt import mirror_mounts
            from aerogel.distroless.recipe import RELEASES

            return mirror_mounts(bases.sources(), RELEASES[0].suite)

        options = Options(
            codec=self.exporter.codec,
            exported=_chain(graph.target.node),
            jobs=self.world.settings.jobs or len(os.sched_getaffinity(0)),
            no_cache=no_cache,
            numbers=self.world.take_numbers,
        )
        host = ambient(self.world.settings, self.build_args, mirror_mounts, self.lent)
        keys = Keys(trees, remotes, materials.times.kind)
        return Solver(graph.steps, materials, keys, trees, remotes, host, self.world.sink, options)

    def _result(
        self, graph: Graph, planned: Plan, solver: Solver, materials: Materials, image: Exported
    ) -> BuildResult:
        sizes: dict[str, int] = {}
        for stage in planned.stages:
            outcome = solver.peek(graph.stages[stage.index].node)
            if outcome is not None:
                sizes[stage.name] = sum(materials.size(layer) for layer in outcome.layers)
        return BuildResult(
            image_id=image.image_id,
            descriptor=image.descriptor,
            references=tuple(reference.familiar() for reference in self.exporter.references),
            platform=str(self.platform),
            size=image.size,
            layers=image.layers,
            steps=tuple(
                StepResult(stage=step.stage, name=step.title, status=solver.statuses.get(step.node.digest, "SKIPPED"))
                for step in graph.steps
                if not isinstance(step.node.op, Base)
            ),
            stages=sizes,
        )


def _names(dockerfile: Dockerfile) -> tuple[str, ...]:
    return tuple(stage.name for stage in dockerfile.stages if stage.name)


def _chain(node: Node) -> frozenset[str]:
    """The digests of the node and of all below it: their layers go into the image."""
    found: set[str] = set()
    current: Node | None = node
    while current is not None:
        found.add(current.digest)
        current = current.root
    return frozenset(found)
