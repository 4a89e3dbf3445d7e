"""One build from its options to an image in the store: the pieces of `aerogel build`, in order.

Read the Dockerfile, plan the stages, find the bases (in parallel), lower, solve, put the image in the store.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from aerogel.commands.ambient import ambient
from aerogel.commands.bases import Bases
from aerogel.commands.build_model import Build, BuildResult, StepResult
from aerogel.commands.checking import Checker, check_build, warn
from aerogel.commands.remotes import open_remotes
from aerogel.commands.source import build_args
from aerogel.commands.world import World
from aerogel.dockerfile.ast import Dockerfile
from aerogel.dockerfile.parse import parse
from aerogel.errors import EXIT_USAGE, AerogelError, Source
from aerogel.events import Warned
from aerogel.export.image import Exported, export_image
from aerogel.export.outputs import Output, check_destination, parse_output
from aerogel.files.codec import select
from aerogel.files.hashing import DigestCache
from aerogel.files.host import HostTree
from aerogel.files.pattern import IgnoreMatcher
from aerogel.graph.ops import Base, Copy, Local, Node
from aerogel.graph.request import Request
from aerogel.graph.stages import ImageRef, Plan, plan
from aerogel.graph.steps import Graph, Step, lower
from aerogel.lint.rule import Checked
from aerogel.oci.platform import Platform
from aerogel.oci.reference import Reference
from aerogel.sandbox.spec import Mount
from aerogel.solve.keys import Keys
from aerogel.solve.materials import Materials
from aerogel.solve.remotes import Remotes
from aerogel.solve.solver import Options, Solver

__all__ = ["DEFAULT_EPOCH_S", "Builder"]

DEFAULT_EPOCH_S = 315532800
"""1980-01-01T00:00:00Z: the time of everything a build makes, unless SOURCE_DATE_EPOCH says another."""


@contextmanager
def _usage() -> Iterator[None]:
    """Errors in the block are of the command line, not of the Dockerfile."""
    try:
        yield
    except AerogelError as error:
        error.exit_status = EXIT_USAGE
        raise


class _Contexts(NamedTuple):
    folders: dict[str, Path]
    images: dict[str, str]


class Builder:
    """Options made ready, and `build`. Raises AerogelError `build.*` for options that cannot be used."""

    def __init__(self, options: Build, world: World) -> None:
        self.options = options
        self.world = world
        self.outputs: list[Output] = [parse_output(text) for text in options.output]
        with _usage():
            self.references = [Reference.parse(tag) for tag in options.tag]
            self.codec = select(options.compression)
            self.platform = Platform.parse(options.platform or world.settings.platform or str(Platform.host()))
        self.build_args = build_args(options.build_arg, world.settings.environment)
        self.contexts = _contexts(options, world.settings.directory)
        self.epoch_s = _epoch(self.build_args, world.settings.source_date_epoch)
        for path in (options.iidfile, options.metadata_file, *(output.dest for output in self.outputs)):
            if path not in ("", "-"):
                check_destination(path)

    def build(self) -> tuple[BuildResult, Exported]:
        """Builds; the image is in the store afterwards, under its names."""
        dockerfile = parse(self._read_dockerfile())
        request = Request(
            target=self.options.target,
            build_args=self.build_args,
            platform=str(self.platform),
            build_platform=str(Platform.host()),
            contexts=frozenset([*self.contexts.folders, *self.contexts.images]) - {"context"},
        )
        planned = plan(dockerfile, request)
        materials = Materials(self.world.store, self.world.helper, self.epoch_s)
        bases = Bases(self.world, materials, self.contexts.images, pull=self.options.pull, stages=tuple(planned.names))
        self._prefetch(planned, bases)
        graph = lower(planned, bases.resolve)
        for diagnostic in graph.diagnostics:
            self.world.sink.emit(Warned(diagnostic))
        self._check(dockerfile, planned, bases)
        remotes = open_remotes(self.world)
        try:
            solver = self._solver(graph, materials, bases, remotes)
            outcome = solver.solve(graph.target.node)
        finally:
            remotes.close()
        image = export_image(
            graph.target,
            outcome,
            materials,
            codec=self.codec,
            labels=self.options.label,
            annotations=self.options.annotation,
            references=self.references,
        )
        self.world.store.sync()
        return self._result(graph, planned, solver, materials, image), image

    def check(self) -> Checked:
        """The findings of `aerogel lint` for this build; nothing is built and no base is looked for."""
        source = self._read_dockerfile()
        checker = Checker(build_args=self.build_args, platform=str(self.platform))
        return checker.file(source, self._ignore(self.contexts.folders["context"], main=True))

    def _check(self, dockerfile: Dockerfile, planned: Plan, bases: Bases) -> None:
        """Warns of what the rules find, now that the bases are known."""
        checker = Checker(build_args=self.build_args, platform=str(self.platform))
        images = {
            stage.base.name: bases.resolve(stage.base, stage.platform, stage.stage.base.span)
            for stage in planned.stages
            if isinstance(stage.base, ImageRef)
        }
        ignore = self._ignore(self.contexts.folders["context"], main=True)
        findings, options = check_build(checker, dockerfile, ignore, planned, images)
        warn(findings, self.world.sink, options)

    def _read_dockerfile(self) -> Source:
        context = self.contexts.folders["context"]
        if self.options.file:
            path = self.world.settings.directory / self.options.file
        else:
            path = context / "Dockerfile"
            if not path.exists() and (context / "dockerfile").exists():
                path = context / "dockerfile"
        try:
            data = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError) as error:
            raise _no_dockerfile(path, context, self.world.settings.directory) from error
        except OSError as error:
            raise AerogelError(
                f"the Dockerfile `{_shown(path, self.world.settings.directory)}` cannot be read: "
                f"{(error.strerror or str(error)).lower()}",
                code="build.no-dockerfile",
                exit_status=EXIT_USAGE,
                hints=["name a readable file with `-f FILE`"],
            ) from error
        self._dockerfile = path
        return Source(_shown(path, self.world.settings.directory), data)

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

    def _trees(self, graph: Graph) -> dict[str, HostTree]:
        """The local contexts that some step reads."""
        wanted = {
            side.op.name
            for step in graph.steps
            if isinstance(step.node.op, Copy)
            for side in step.node.inputs
            if isinstance(side.op, Local)
        }
        trees = {}
        for name in sorted(wanted):
            folder = self.contexts.folders[name]
            ignore = self._ignore(folder, main=name == "context")
            digests = DigestCache(self.world.settings.cache / "digests-v1")
            trees[name] = HostTree(folder, ignore=ignore, digests=digests)
        return trees

    def _ignore(self, folder: Path, *, main: bool) -> IgnoreMatcher | None:
        """The ignore file: the one named after the Dockerfile comes before the one of the context."""
        candidates = [folder / ".dockerignore"]
        if main:
            candidates.insert(0, self._dockerfile.with_name(f"{self._dockerfile.name}.dockerignore"))
        for path in candidates:
            if path.is_file():
                return IgnoreMatcher.parse(Source(_shown(path, self.world.settings.directory), path.read_bytes()))
        return None

    def _solver(self, graph: Graph, materials: Materials, bases: Bases, remotes: Remotes) -> Solver:
        trees = self._trees(graph)
        stages = {name.lower() for name in self.options.no_cache_filter}

        def no_cache(step: Step) -> bool:
            return self.options.no_cache or step.stage in stages

        def mirror_mounts() -> tuple[Mount, ...]:
            from aerogel.distroless.apt import mirror_mounts
            from aerogel.distroless.recipe import RELEASES

            return mirror_mounts(bases.sources(), RELEASES[0].suite)

        options = Options(
            codec=self.codec,
            exported=_chain(graph.target.node),
            jobs=self.world.settings.jobs or len(os.sched_getaffinity(0)),
            no_cache=no_cache,
        )
        host = ambient(self.world.settings, self.build_args, mirror_mounts)
        keys = Keys(trees, remotes, self.epoch_s)
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
            references=tuple(reference.familiar() for reference in self.references),
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


def _chain(node: Node) -> frozenset[str]:
    """The digests of the node and of all below it: their layers go into the image."""
    found: set[str] = set()
    current: Node | None = node
    while current is not None:
        found.add(current.digest)
        current = current.root
    return frozenset(found)


def _contexts(options: Build, here: Path) -> _Contexts:
    context = (here / options.context).absolute()
    if not context.is_dir():
        raise AerogelError(
            f"the build context `{options.context}` is not a folder"
            if context.exists()
            else f"the build context `{options.context}` does not exist",
            code="build.no-context",
            exit_status=EXIT_USAGE,
            hints=["name the folder that COPY reads from, for example `aerogel build -t app .`"],
        )
    folders = {"context": context}
    images: dict[str, str] = {}
    for name, value in options.build_context.items():
        if value.startswith("docker-image://"):
            images[name.lower()] = value.removeprefix("docker-image://")
            continue
        folder = (here / value).absolute()
        if not folder.is_dir():
            raise AerogelError(
                f"the context `{name}` is not a folder: `{value}`",
                code="build.no-context",
                exit_status=EXIT_USAGE,
                hints=["give a folder, or an image as `docker-image://NAME`"],
            )
        folders[name.lower()] = folder
    return _Contexts(folders, images)


def _epoch(build_args: Mapping[str, str], setting: int | None) -> int:
    """Seconds since 1970 of everything that the build makes. Raises `build.bad-epoch`."""
    text = build_args.get("SOURCE_DATE_EPOCH", "")
    if not text:
        return DEFAULT_EPOCH_S if setting is None else setting
    if not (text.isascii() and text.isdecimal()):
        raise AerogelError(
            f"`SOURCE_DATE_EPOCH={text}` is not a number of seconds since 1970",
            code="build.bad-epoch",
            exit_status=EXIT_USAGE,
            hints=["for example the time of the last commit: `SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)`"],
        )
    return int(text)


def _no_dockerfile(path: Path, context: Path, here: Path) -> AerogelError:
    try:
        names = sorted(each.name for each in context.iterdir() if "dockerfile" in each.name.lower() and each.is_file())
    except OSError:
        names = []
    candidates = [name for name in names if not name.endswith(".dockerignore") and context / name != path]
    hints = [f"did you mean `-f {_shown(context / name, here)}`?" for name in candidates[:3]]
    return AerogelError(
        f"there is no Dockerfile at `{_shown(path, here)}`",
        code="build.no-dockerfile",
        exit_status=EXIT_USAGE,
        hints=hints or ["name the Dockerfile with `-f FILE`, or give the folder that holds it"],
    )


def _shown(path: Path, here: Path) -> str:
    """The path as the user sees it: relative to where the command was started, if it lies below."""
    try:
        return str(path.absolute().relative_to(here))
    except ValueError:
        return str(path)
