"""Builds from their options to images in the store: the pieces of `aerogel build`, in order.

Read the Dockerfile, plan the stages, find the bases (in parallel), lower, for each platform; solve all at once, put
the images in the store. Several builds (`aerogel bake`) go the same way together, so what they share is done once.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import NamedTuple

from aerogel.commands import lending
from aerogel.commands.ambient import ambient
from aerogel.commands.build_model import Build, BuildResult, StepResult
from aerogel.commands.caching import BROKEN, Caches, bring
from aerogel.commands.checking import Checker
from aerogel.commands.contexts import Contexts
from aerogel.commands.exporting import Exporter
from aerogel.commands.image_checks import check_finished
from aerogel.commands.library_cache import with_library_cache
from aerogel.commands.prepared import Places, Prepared, Ready, parse_platforms
from aerogel.commands.recording import Recording, recorded
from aerogel.commands.remotes import open_remotes
from aerogel.commands.source import build_args, check_text
from aerogel.commands.testimony import testify
from aerogel.commands.world import World
from aerogel.dockerfile.parse import parse
from aerogel.errors import EXIT_USAGE, AerogelError, Diagnostic, Source
from aerogel.events import Message, Warned
from aerogel.export.image import Exported, finish
from aerogel.graph.ops import Base, Node, Run
from aerogel.graph.scope import PROXY_ARGS
from aerogel.graph.steps import Step
from aerogel.lint.rule import Checked
from aerogel.oci.digest import Digest
from aerogel.oci.platform import Platform
from aerogel.sandbox.emulator import Emulator
from aerogel.sandbox.spec import Mount
from aerogel.solve.ambient import Ambient
from aerogel.solve.imported import Imported
from aerogel.solve.keys import Keys
from aerogel.solve.materials import Materials
from aerogel.solve.remotes import Remotes
from aerogel.solve.solver import Options, Outcome, Solver
from aerogel.solve.stamp import stamp
from aerogel.solve.times import Times

__all__ = ["Builder", "build_together"]


@contextmanager
def _usage() -> Iterator[None]:
    """Errors in the block are of the command line, not of the Dockerfile."""
    try:
        yield
    except AerogelError as error:
        error.exit_status = EXIT_USAGE
        raise


class Builder:
    """Options made ready, and `build`. Raises AerogelError `build.*` for options that cannot be used.

    `name` is what progress calls the build among others, `dockerfile` a Dockerfile that is no file, `links` are named
    contexts that are other builds.
    """

    def __init__(
        self,
        options: Build,
        world: World,
        *,
        name: str = "",
        dockerfile: Source | None = None,
        links: Mapping[str, Builder] | None = None,
    ) -> None:
        self.options = options
        self.world = world
        self.name = name
        self._inline = dockerfile
        self.links = links or {}
        self.exporter = Exporter(options, world)
        self.caches = Caches(options.cache_from, options.cache_to, world)
        self._began_s = world.clock()
        with _usage():
            text = options.platform or world.settings.platform or str(Platform.host())
            self.platforms = parse_platforms(text) or (Platform.host(),)
        self.platform = self.platforms[0]
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
        return build_together([self])[0]

    def check(self) -> Checked:
        """The findings of `aerogel lint` for this build; nothing is built and no base is looked for."""
        with self.sources() as (contexts, _):
            checker = Checker(build_args=self.build_args, platform=str(self.platform))
            return checker.file(self._source(contexts), contexts.ignore())

    @contextmanager
    def sources(self) -> Iterator[tuple[Contexts, Remotes]]:
        """The contexts, and what fetches from elsewhere."""
        with ExitStack() as stack:
            remotes = open_remotes(self.world, self.lent)
            stack.callback(remotes.close)
            contexts = Contexts(self.options, self.world, remotes)
            stack.callback(contexts.close)
            yield contexts, remotes

    def _source(self, contexts: Contexts) -> Source:
        return contexts.dockerfile() if self._inline is None else self._inline

    def ready(self, contexts: Contexts, remotes: Remotes, places: Places, links: Mapping[str, Ready]) -> Ready:
        """The build with its sources."""
        return Ready(
            self.options,
            self.world,
            parse(self._source(contexts)),
            self.build_args,
            contexts,
            remotes,
            platform=self.platform,
            places=places,
            links=links,
            materials=lambda *date: Materials(self.world.store, self.world.helper, self._times(*date), places.offers),
        )

    def _times(self, epoch_s: int, is_given: bool) -> Times:
        if self.options.timestamps == "keep":
            return Times(epoch_s if is_given else int(time.time()), keep=True, keep_volatile=True)
        return Times(epoch_s, keep_volatile=self.options.keep_volatile)

    def sharing(self, ready: Ready) -> tuple[object, ...]:
        """Builds for which this is equal can be solved together: their steps see the same of the host."""
        lent = self.lent._replace(logs=None)
        proxies = {name: value for name, value in self.build_args.items() if name in PROXY_ARGS}
        return (ready.materials.times.kind, lent, proxies, self.exporter.codec)

    def no_cache(self, step: Step) -> bool:
        """Whether the step's stage ignores kept results."""
        return self.options.no_cache or step.stage in {name.lower() for name in self.options.no_cache_filter}

    def ambient(self, ready: Ready) -> Ambient:
        """What the steps see of the host."""

        def mirror_mounts() -> tuple[Mount, ...]:
            from aerogel.distroless.apt import mirror_mounts
            from aerogel.distroless.recipe import RELEASES

            return mirror_mounts(ready.bases.sources(), RELEASES[0].suite)

        return ambient(self.world.settings, self.build_args, mirror_mounts, self.lent)

    def export(
        self, ready: Ready, prepared: Sequence[Prepared], solver: Solver, outcomes: Mapping[str, Outcome]
    ) -> tuple[BuildResult, Exported]:
        """Puts the results of all platforms in the store. Raises `store.*`, `build.bad-squash`."""
        materials = ready.materials
        if not self.exporter.is_only_pushed:
            for each in prepared:
                materials.bring_all(outcomes[each.graph.target.node.digest].layers)
        finished = []
        for each in prepared:
            target = each.graph.target
            outcome = stamp(outcomes[target.node.digest], materials, self.exporter.codec)
            made = finish(target, outcome, self.options.label, materials.times.epoch_s)
            finished.append(with_library_cache(made, materials, self.exporter.codec))
            lint = ready.lint_options()
            check_finished(each.planned, each.graph, outcome, finished[-1], materials, lint, self.world.sink)

        def stage_layers(name: str) -> list[tuple[Digest, ...]] | None:
            found = [_layers_of(name, each, solver) for each in prepared]
            return (
                [layers for layers in found if layers is not None]
                if all(layers is not None for layers in found)
                else None
            )

        def provenance(number: int) -> dict[str, object]:
            from aerogel.commands.attesting import provenance_of

            wanted, began_s = self.exporter.attestations, self._began_s
            return provenance_of(self.options, wanted, self.world, ready, prepared[number], began_s)

        image = self.exporter.take(finished, materials, stage_layers, provenance)
        return self._result(prepared, solver, materials, image), image

    def _result(
        self, prepared: Sequence[Prepared], solver: Solver, materials: Materials, image: Exported
    ) -> BuildResult:
        sizes: dict[str, int] = {}
        steps: dict[str, Step] = {}
        for each in prepared:
            for stage in each.planned.stages:
                outcome = solver.peek(each.graph.stages[stage.index].node)
                if outcome is not None:
                    name = stage.name if len(prepared) == 1 else f"{stage.name} {each.platform}"
                    sizes[name] = sum(materials.size(layer) for layer in outcome.layers)
            for step in each.steps():
                steps.setdefault(step.node.digest, step)
        return BuildResult(
            image_id=image.image_id,
            descriptor=image.descriptor,
            references=tuple(reference.familiar() for reference in self.exporter.tags),
            platform=",".join(str(each.platform) for each in prepared),
            size=image.size,
            layers=image.layers,
            steps=tuple(
                StepResult(stage=step.stage, name=step.title, status=solver.statuses.get(step.node.digest, "SKIPPED"))
                for step in steps.values()
                if not isinstance(step.node.op, Base)
            ),
            stages=sizes,
        )


class _Job(NamedTuple):
    """A build of a run, with its graphs."""

    builder: Builder
    ready: Ready
    prepared: list[Prepared]


def build_together(builders: Sequence[Builder]) -> list[tuple[BuildResult, Exported]]:
    """Builds all; each step that several of them have is done once. The results are in the given order.

    Links that are not in the list are solved as far as others read them, and nothing of them is kept.
    """
    world = builders[0].world
    with ExitStack() as stack:
        places = Places()
        known: dict[int, Ready] = {}

        def ready_of(builder: Builder) -> Ready:
            if id(builder) not in known:
                links = {name: ready_of(link) for name, link in builder.links.items()}
                contexts, remotes = stack.enter_context(builder.sources())
                stack.callback(builder.caches.close)
                known[id(builder)] = builder.ready(contexts, remotes, places, links)
            return known[id(builder)]

        jobs = []
        for builder in builders:
            ready = ready_of(builder)
            jobs.append(_Job(builder, ready, [ready.prepare(platform) for platform in builder.platforms]))
        _label(jobs)
        made: dict[int, tuple[BuildResult, Exported]] = {}
        for group in _groups(jobs):
            solver, outcomes, recordings = _solve(group, list(known.values()), world)
            for number, job in enumerate(group):
                try:
                    made[id(job.builder)] = job.builder.export(job.ready, job.prepared, solver, outcomes)
                except AerogelError:
                    _salvage(group[number:], solver)
                    raise
                nodes = [each.graph.target.node for each in job.prepared]
                steps = [step for each in job.prepared for step in each.steps()]
                image = made[id(job.builder)][1].descriptor
                job.builder.caches.write(steps, nodes, solver, job.ready.materials, image)
                for recording in recordings[id(job.builder)]:
                    recording.finish(made[id(job.builder)][0].image_id)
            world.store.sync()
            if len(jobs) == 1 and len(jobs[0].prepared) == 1:
                _testify(jobs[0], solver, *made[id(jobs[0].builder)])
        return [made[id(builder)] for builder in builders]


def _testify(job: _Job, solver: Solver, result: BuildResult, image: Exported) -> None:
    if all(step.status in ("CACHED", "SKIPPED") for step in result.steps):
        options, world = job.builder.options, job.builder.world
        graph = job.prepared[0].graph
        testify(options, world, job.ready.contexts, graph, solver, image, job.builder.exporter.tags)


def _groups(jobs: Sequence[_Job]) -> Iterator[list[_Job]]:
    """Builds that can be solved together, in the order of the first of each group."""
    groups: list[tuple[tuple[object, ...], list[_Job]]] = []
    for job in jobs:
        sharing = job.builder.sharing(job.ready)
        found = next((group for key, group in groups if key == sharing), None)
        if found is None:
            groups.append((sharing, [job]))
        else:
            found.append(job)
    yield from (group for _, group in groups)


def _label(jobs: Sequence[_Job]) -> None:
    """Says in the titles of steps whose they are, unless they are everybody's."""
    owners: dict[str, list[str]] = {}
    parts = [(job, prepared) for job in jobs for prepared in job.prepared]
    labels = [
        " ".join(part for part in (job.builder.name, str(prepared.platform) if len(job.prepared) > 1 else "") if part)
        for job, prepared in parts
    ]
    for label, (_, prepared) in zip(labels, parts, strict=True):
        for digest in dict.fromkeys(step.node.digest for step in prepared.steps()):
            owners.setdefault(digest, []).append(label)
    for step in {id(step): step for _, prepared in parts for step in prepared.steps()}.values():
        whose = owners[step.node.digest]
        if any(whose) and (len(whose) < len(parts) or len(parts) == 1):
            step.title = f"[{', '.join(whose[:3])}{', ...' if len(whose) > 3 else ''}] {step.title}"


_Solved = tuple[Solver, dict[str, Outcome], dict[int, list[Recording]]]


def _solve(jobs: Sequence[_Job], all_ready: Sequence[Ready], world: World) -> _Solved:
    """The same, once more without a cache that does not have what it promised."""
    imported, offers = Imported(), jobs[0].ready.materials.offers
    for job in jobs:
        caches = job.builder.caches
        caches.begin(
            [step for each in job.prepared for step in each.steps()],
            [each.graph.target.node for each in job.prepared],
            job.ready.materials,
        )
        caches.lend(imported, offers, job.builder.exporter.codec)
    while True:
        try:
            return _solve_with(imported, jobs, all_ready, world)
        except AerogelError as error:
            if not jobs[0].builder.caches.give_up(error, imported, offers):
                raise


def _solve_with(imported: Imported, jobs: Sequence[_Job], all_ready: Sequence[Ready], world: World) -> _Solved:
    """Runs the graphs of several builds as one, and keeps a record of each."""
    steps: list[Step] = []
    forced: set[str] = set()
    for job in jobs:
        own = [step for prepared in job.prepared for step in prepared.steps()]
        forced |= {step.node.digest for step in own if job.builder.no_cache(step)}
        steps += own
    targets = {each.graph.target.node.digest: each.graph.target.node for job in jobs for each in job.prepared}
    exported = frozenset[str]().union(*(_chain(node) for node in targets.values()))
    first = jobs[0]
    trees = {name: tree for ready in all_ready for name, tree in ready.trees(steps).items()}
    options = Options(
        codec=first.builder.exporter.codec,
        exported=exported,
        jobs=world.settings.jobs or len(os.sched_getaffinity(0)),
        no_cache=lambda step: step.node.digest in forced,
        numbers=world.take_numbers,
        retry=any(job.builder.options.retry for job in jobs),
        imported=imported,
        on_made=partial(_made, jobs),
    )
    materials, remotes = first.ready.materials, first.ready.remotes
    keys = Keys(trees, remotes, materials.times.kind, world.store.builds.selections)
    host = first.builder.ambient(first.ready)
    solver = Solver(steps, materials, keys, trees, remotes, host, world.sink, options)
    _check_emulation(steps, list(targets.values()), forced, solver, host.emulator, world)
    nodes = list(targets.values())
    recordings = {id(job.builder): _recordings(job, world) for job in jobs}
    with recorded([each for found in recordings.values() for each in found], solver):
        try:
            outcomes = dict(zip(targets, solver.solve_all(nodes), strict=True))
            bring({layer for outcome in outcomes.values() for layer in outcome.layers}, materials)
        except AerogelError as error:
            if error.code != BROKEN:
                _salvage(jobs, solver)
            raise
    if options.retry:
        _tell_of_retry(solver, world)
    return solver, outcomes, recordings


def _salvage(jobs: Sequence[_Job], solver: Solver) -> None:
    """What the steps of a failed build made is for others all the same."""
    for job in jobs:
        steps = [step for each in job.prepared for step in each.steps()]
        nodes = [each.graph.target.node for each in job.prepared]
        job.builder.caches.salvage(steps, nodes, solver, job.ready.materials)


def _made(jobs: Sequence[_Job], node: Node, outcome: Outcome) -> None:
    for job in jobs:
        job.builder.caches.made(node, outcome)


def _tell_of_retry(solver: Solver, world: World) -> None:
    if not solver.resumed:
        text = "nothing failed here that could go on: `--retry` changed nothing"
        world.sink.emit(Message(text))
        return
    hints = ["build once more without `--retry` for an image that the Dockerfile alone makes"]
    remark = Diagnostic(
        "a step went on from a failed state, so this result is not kept", code="build.retried", hints=hints
    )
    world.sink.emit(Warned(remark))


def _recordings(job: _Job, world: World) -> list[Recording]:
    options, builder = job.builder.options, job.builder
    name = options.file or builder.name or "Dockerfile"
    times = job.ready.materials.times.kind
    return [
        Recording(options, world, each.steps(), dockerfile=name, platform=str(each.platform), times=times)
        for each in job.prepared
    ]


def _check_emulation(
    steps: Sequence[Step],
    targets: Sequence[Node],
    forced: set[str],
    solver: Solver,
    emulator: Emulator,
    world: World,
) -> None:
    """Says before anything runs that a RUN is for a machine that this host cannot be. Raises `sandbox.no-emulation`."""
    foreign = [step for step in steps if isinstance(step.node.op, Run) and not _is_host(step.node.platform)]
    if not foreign or (not forced and all(solver.peek(node) is not None for node in targets)):
        return
    for step in foreign:
        try:
            emulator.prepare(world.helper, step.node.platform)
        except AerogelError as error:
            if step.node.digest not in forced and solver.peek(step.node) is not None:
                continue
            step.place(error)
            raise


def _is_host(platform: str) -> bool:
    return Platform.parse(platform) == Platform.host()


def _layers_of(name: str, prepared: Prepared, solver: Solver) -> tuple[Digest, ...] | None:
    """The layers of a stage that the target is built from."""
    chain = _chain(prepared.graph.target.node)
    for stage in prepared.planned.stages:
        node = prepared.graph.stages[stage.index].node
        found = solver.peek(node) if stage.name == name and node.digest in chain else None
        if found is not None:
            return found.layers
    return None


def _chain(node: Node) -> frozenset[str]:
    """The digests of the node and of all below it: their layers go into the image."""
    found: set[str] = set()
    current: Node | None = node
    while current is not None:
        found.add(current.digest)
        current = current.root
    return frozenset(found)
