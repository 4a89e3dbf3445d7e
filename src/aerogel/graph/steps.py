"""Lowers the instructions of the planned stages to graph nodes and to an image config.

Pure. What an instruction does to the variables, to the config and to the history happens here; what it does to
files becomes a node. Other images' configs come through the `resolve` callback, so nothing is fetched here.

Spec: notes of the Dockerfile reference, one function per instruction; history texts as BuildKit writes them.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Mapping
from typing import assert_never

import msgspec

from aerogel.dockerfile import ast
from aerogel.errors import AerogelError, Diagnostic, Span, nearest
from aerogel.graph.config import ConfigState, go_list, healthcheck_text
from aerogel.graph.ops import STEP_HOSTNAME, Base, Copy, CopySource, InlineFile, Local, Mkdir, Node, Run
from aerogel.graph.runs import mounts_of, network_of, security_of
from aerogel.graph.scope import PROXY_ARGS, Scope
from aerogel.graph.signals import check_signal
from aerogel.graph.sources import sources_of
from aerogel.graph.stages import ContextRef, ImageRef, Plan, PlannedStage, ScratchRef, SourceRef, StageRef
from aerogel.oci.platform import Platform
from aerogel.oci.types import ContainerConfig, Healthcheck, ImageConfig
from aerogel.redact import redact

__all__ = ["BaseImage", "Graph", "Lowered", "Resolve", "Step", "lower"]


class BaseImage(msgspec.Struct, frozen=True):
    """What the graph must know of an image: its layers by diff id, lowest first, and its config."""

    diff_ids: tuple[str, ...]
    config: ImageConfig


class Step:
    """What is shown of a node: its title, its place, its stage; beside the graph, so it decides nothing.

    `words` has the place of each word of the instruction by its value after expansion; `origin` is what messages
    call the thing that a COPY reads from, `base` the image that the first FROM of its stage names, empty for none.
    """

    __slots__ = ("base", "node", "origin", "span", "stage", "title", "words")

    def __init__(
        self,
        node: Node,
        title: str,
        span: Span,
        stage: str,
        *,
        words: Mapping[str, Span] | None = None,
        origin: str = "source",
        base: str = "",
    ) -> None:
        self.base = base
        self.node = node
        self.title = title
        self.span = span
        self.stage = stage
        self.words: Mapping[str, Span] = words or {}
        self.origin = origin

    def place(self, error: AerogelError) -> None:
        """Gives an error without a place that of the word that it names (`error.word`), else of the instruction."""
        if error.span is None:
            error.span = self.words.get(getattr(error, "word", ""), self.span)


class Lowered:
    """A lowered stage: the node of its final root, the config, the variables that a child stage inherits."""

    __slots__ = ("config", "node", "platform", "scope")

    def __init__(self, node: Node, config: ConfigState, scope: Scope, platform: str) -> None:
        self.node = node
        self.config = config
        self.scope = scope
        self.platform = platform


Resolve = Callable[[SourceRef, str, Span], BaseImage | Lowered]
"""(an image or context reference, platform, where it is written) -> the image. Raises when there is none.

What another build of the same run makes is no image yet: it is the lowered stage of that build.
"""


class Graph:
    """All steps of the needed stages in the order of lowering, and the target."""

    __slots__ = ("diagnostics", "stages", "steps", "target")

    def __init__(
        self, steps: list[Step], stages: dict[int, Lowered], target: Lowered, diagnostics: list[Diagnostic]
    ) -> None:
        self.steps = steps
        self.stages = stages
        self.target = target
        self.diagnostics = diagnostics


def lower(plan: Plan, resolve: Resolve) -> Graph:
    """Lowers every stage of the plan.

    `resolve` is called for each base and each image that is copied from. Raises AerogelError `graph.*` with the
    span of the instruction.
    """
    lowering = _Lowering(plan, resolve)
    for planned in plan.stages:
        lowering.stage(planned)
    lowering.unused_build_args()
    return Graph(lowering.steps, lowering.done, lowering.done[plan.target.index], lowering.diagnostics)


class _Lowering:
    """The state of one run of `lower`."""

    def __init__(self, plan: Plan, resolve: Resolve) -> None:
        self.plan = plan
        self.resolve = resolve
        self.steps: list[Step] = []
        self.done: dict[int, Lowered] = {}
        self.diagnostics: list[Diagnostic] = []
        self.declared: set[str] = set(plan.globals.declared)
        self.names = {planned.index: planned.stage.name for planned in plan.stages}
        self.images: dict[int, str] = {}
        """What the chain of stages that leads to each starts from, if that is an image."""

    def stage(self, planned: PlannedStage) -> None:
        base = self.base(planned)
        match planned.base:
            case StageRef(index):
                self.images[planned.index] = self.images[index]
            case ImageRef(name):
                self.images[planned.index] = name
            case _:
                self.images[planned.index] = ""
        base.config.triggers.clear()
        lowerer = _StageLowering(self, planned, base)
        for instruction in planned.instructions:
            lowerer.instruction(instruction)
        self.done[planned.index] = Lowered(lowerer.node, lowerer.config, lowerer.scope, base.platform)

    def base(self, planned: PlannedStage) -> Lowered:
        """The state that a stage starts from, its own copy."""
        if isinstance(planned.base, StageRef):
            origin = self.done[planned.base.index]
            return Lowered(origin.node, origin.config.clone(), origin.scope.child(), origin.platform)
        if isinstance(planned.base, ScratchRef):
            return self.empty(planned)
        if isinstance(planned.base, ContextRef) and planned.base.name not in self.plan.request.image_contexts:
            return self.files(planned, planned.base.name)
        found = self.resolve(planned.base, planned.platform, planned.stage.base.span)
        if isinstance(found, Lowered):
            clone = found.config.clone()
            return Lowered(found.node, clone, self.plan.globals.stage(clone.env), found.platform)
        config = ConfigState(found.config)
        node = Node(Base(found.diff_ids))
        name = planned.base.name if isinstance(planned.base, ImageRef | ContextRef) else ""
        self.steps.append(Step(node, f"FROM {name}", planned.stage.origin.span, planned.name))
        return Lowered(node, config, self.plan.globals.stage(config.env), planned.platform)

    def empty(self, planned: PlannedStage) -> Lowered:
        """The state of `FROM scratch`."""
        platform = Platform.parse(planned.platform)
        image = ImageConfig(
            architecture=platform.architecture,
            os=platform.os,
            variant=platform.variant,
            os_version=platform.os_version,
            os_features=platform.os_features,
            config=ContainerConfig(working_dir="/"),
        )
        config = ConfigState(image)
        return Lowered(Node(Base(())), config, self.plan.globals.stage(config.env), planned.platform)

    def files(self, planned: PlannedStage, name: str) -> Lowered:
        """The state of a stage whose root file system is a named context that is no image: a layer of its files."""
        found = self.empty(planned)
        op = Copy(sources=(CopySource(input=1, path="/"),), dest="/")
        found.node = Node(op, (found.node, Node(Local(self.plan.request.local(name)))))
        found.config.commit_base(f"[context {name}] load from client", found.node)
        span = planned.stage.origin.span
        step = Step(found.node, f"FROM {name}", span, planned.name, origin=f"context `{name}`")
        self.steps.append(step)
        return found

    def source(self, word: ast.Word, planned: PlannedStage) -> Node:
        """The node that `--from` or `from=` reads."""
        ref = self.plan.source(word, planned)
        match ref:
            case StageRef(index):
                return self.done[index].node
            case ScratchRef():
                return Node(Base(()))
            case ContextRef(name) if name not in self.plan.request.image_contexts:
                return Node(Local(self.plan.request.local(name)))
            case ContextRef() | ImageRef():
                found = self.resolve(ref, planned.platform, word.span)
                return found.node if isinstance(found, Lowered) else Node(Base(found.diff_ids))
            case _:
                assert_never(ref)

    def unused_build_args(self) -> None:
        """A `--build-arg` that no stage declares is most often a typing error."""
        for name in self.plan.request.build_args:
            if name in self.declared or name in PROXY_ARGS or name.startswith(("BUILDKIT_", "SOURCE_DATE_EPOCH")):
                continue
            guess = nearest(name, self.declared)
            self.diagnostics.append(
                Diagnostic(
                    f"`--build-arg {name}` is not used: no ARG declares it",
                    code="graph.unused-build-arg",
                    hints=[f"did you mean `{guess}`?"] if guess else [],
                )
            )


class _StageLowering:
    """One stage: the node so far, the config, the variables."""

    def __init__(self, whole: _Lowering, planned: PlannedStage, base: Lowered) -> None:
        self.whole = whole
        self.planned = planned
        self.node = base.node
        self.platform = base.platform
        self.config = base.config
        self.scope = base.scope

    def instruction(self, it: ast.Instruction) -> None:
        match it:
            case ast.Run():
                self.run(it)
            case ast.Copy() | ast.Add():
                self.copy(it)
            case ast.Workdir():
                self.workdir(it)
            case ast.Env():
                self.env(it)
            case ast.Arg():
                self.arg(it)
            case ast.Label():
                self.label(it)
            case ast.User():
                user = self.scope.expand(it.user)
                self.config.edit(user=user)
                self.config.commit(f"USER {user}")
            case ast.Expose():
                self.expose(it)
            case ast.Volume():
                self.volume(it)
            case ast.Cmd() | ast.Entrypoint():
                self.command(it)
            case ast.Healthcheck():
                self.healthcheck(it)
            case ast.Shell():
                self.config.edit(shell=it.command.argv)
                self.config.commit(f"SHELL {go_list(it.command.argv)}")
            case ast.Stopsignal():
                signal = self.scope.expand(it.signal)
                check_signal(signal, it.signal.span)
                self.config.edit(stop_signal=signal)
                self.config.commit(f"STOPSIGNAL {signal}")
            case ast.Onbuild():
                self.config.triggers.append(it.expression)
            case ast.Maintainer():
                author = it.name.text
                self.config.base = msgspec.structs.replace(self.config.base, author=author)
                self.config.commit(f"MAINTAINER {author}")
            case ast.From():
                raise AssertionError("a FROM inside a stage")
            case _:
                assert_never(it)

    def extend(
        self, it: ast.Node, node: Node, text: str, *, words: Mapping[str, Span] | None = None, origin: str = "source"
    ) -> None:
        """Makes `node` the stage's root, with its history entry and its step."""
        self.node = node
        self.config.commit(text, node)
        base = self.whole.images[self.planned.index]
        step = Step(node, _title(it), it.span, self.planned.name, words=words, origin=origin, base=base)
        self.whole.steps.append(step)

    # Instructions that make files.

    def run(self, it: ast.Run) -> None:
        self._refuse(it, bool(it.devices), "RUN --device")
        argv, inline = self._run_argv(it)
        request, cwd = self.whole.plan.request, self.config.config.working_dir or "/"
        mounted = mounts_of(it, request, cwd, self.scope.expand, lambda word: self.whole.source(word, self.planned))
        op = Run(
            argv=argv,
            env=tuple(self.scope.values.items()),
            cwd=cwd,
            user=self.config.config.user,
            network=network_of(it, request),
            security=security_of(it, request),
            hosts=request.hosts,
            mounts=mounted.mounts,
            hostname=request.build_args.get("BUILDKIT_SANDBOX_HOSTNAME", STEP_HOSTNAME),
            inline=inline,
        )
        text = " ".join([*self.scope.declared_as_history(), *argv])
        node = Node(op, (self.node, *mounted.inputs), self.platform)
        self.extend(it, node, f"RUN {text}", words=mounted.words)

    def _run_argv(self, it: ast.Run) -> tuple[tuple[str, ...], tuple[InlineFile, ...]]:
        """The argument vector, and the file that a heredoc with `#!` becomes."""
        if isinstance(it.command, ast.ExecForm):
            return it.command.argv, ()
        text = it.command.text
        if it.heredocs:
            first = it.heredocs[0]
            if len(it.heredocs) == 1 and text.strip() == first.span.text.strip():
                if first.text.startswith("#!"):
                    return (f"/dev/pipes/{first.name}",), (InlineFile(first.name, first.text.encode(), 0o755),)
                text = first.text
            else:
                text += "".join(f"\n{doc.body}{doc.name}" for doc in it.heredocs)
        return (*self.config.shell(), text), ()

    def copy(self, it: ast.Copy | ast.Add) -> None:
        from_ = it.from_ if isinstance(it, ast.Copy) else None
        origin = None if from_ is None else self.whole.source(from_, self.planned)
        words = [(word, self.scope.expand(word)) for word in it.sources]
        docs = [InlineFile(doc.name, self._heredoc(doc).encode("utf-8", "surrogateescape")) for doc in it.heredocs]
        checksum = self.scope.expand(it.checksum) if isinstance(it, ast.Add) and it.checksum else ""
        sources = sources_of(it, words, docs, origin, checksum, context=self.whole.plan.request.local("context"))
        destination = self.scope.expand(it.destination)
        chown = self.scope.expand(it.chown) if it.chown else ""
        chmod = self.scope.expand(it.chmod) if it.chmod else ""
        parents = isinstance(it, ast.Copy) and it.parents
        op = Copy(
            sources=sources.words,
            dest=_absolute(self.config.config.working_dir, destination),
            chown=chown,
            chmod=chmod,
            link=it.link and not chmod,
            parents=parents,
            exclude=tuple(word.text for word in it.exclude),
            keep_owner=origin is not None and not isinstance(origin.op, Local),
            unpack=isinstance(it, ast.Add) and it.unpack is not False,
        )
        text = [
            type(it).__name__.upper(),
            *(["--parents"] if parents else []),
            *([f"--chown={chown}"] if chown else []),
            *([f"--chmod={chmod}"] if chmod else []),
            *(redact(path) for _, path in words),
            *(f"<<{doc.name}" for doc in docs),
            destination,
        ]
        places = {**sources.places, op.dest: it.destination.span}
        places |= {value: word.span for word, value in ((it.chown, chown), (it.chmod, chmod)) if word}
        node = Node(op, (self.node, *sources.nodes))
        self.extend(it, node, " ".join(text), words=places, origin=self._origin(from_))

    def _origin(self, word: ast.Word | None) -> str:
        """What messages call the source of a COPY."""
        if word is None:
            return "build context"
        match self.whole.plan.source(word, self.planned):
            case StageRef(index):
                name = self.whole.names[index]
                return f"stage `{name}`" if name else f"stage number {index}"
            case ScratchRef():
                return "empty image `scratch`"
            case ContextRef(name):
                return f"context `{name}`"
            case ImageRef(name):
                return f"image `{name}`"

    def _heredoc(self, doc: ast.Heredoc) -> str:
        return self.scope.expand_text(doc.text, doc.body_span) if doc.expand else doc.text

    def workdir(self, it: ast.Workdir) -> None:
        path = _clean(self.config.config.working_dir or "/", self.scope.expand(it.path))
        self.config.edit(working_dir=path)
        if path == "/":
            self.config.commit(f"WORKDIR {path}")
            return
        op = Mkdir(path=path, user=self.config.config.user)
        self.extend(it, Node(op, (self.node,)), f"WORKDIR {path}", words={path: it.path.span})

    def _refuse(self, it: ast.Node, wrong: bool, what: str) -> None:
        if wrong:
            raise AerogelError(
                f"`{what}` cannot be built by this version",
                code="graph.unsupported",
                span=it.flags[0].span if it.flags else it.span,
                hints=["see `docs/reference/dockerfile.md` for what can"],
            )

    # Instructions that edit the config.

    def env(self, it: ast.Env) -> None:
        pairs = [(self.scope.expand(pair.key), self.scope.expand(pair.value)) for pair in it.pairs]
        for key, value in pairs:
            self.scope.set(key, value)
            self.config.env[key] = value
        self.config.commit("ENV" + "".join(f" {key}={value}" for key, value in pairs))

    def arg(self, it: ast.Arg) -> None:
        texts: list[str] = []
        for item in it.items:
            name = item.name.text
            self.whole.declared.add(name)
            value = self.scope.declare(name, item.value)
            texts.append(name if value is None else f"{name}={value}")
        self.config.commit("ARG " + " ".join(texts))

    def label(self, it: ast.Label) -> None:
        pairs = [(self.scope.expand(pair.key), self.scope.expand(pair.value)) for pair in it.pairs]
        self.config.labels.update(pairs)
        self.config.commit("LABEL" + "".join(f" {key}={value}" for key, value in pairs))

    def expose(self, it: ast.Expose) -> None:
        from aerogel.graph.ports import parse_ports

        ports: list[str] = []
        for word in it.ports:
            for text in self.scope.expand_words(word):
                ports += parse_ports(text, word.span)
        self.config.ports.update({port: {} for port in ports})
        self.config.commit(f"EXPOSE {go_list(tuple(ports))}")

    def volume(self, it: ast.Volume) -> None:
        paths = tuple(self.scope.expand(word) for word in it.paths)
        for word, path in zip(it.paths, paths, strict=True):
            if not path:
                raise AerogelError(
                    "a VOLUME path is empty after expansion",
                    code="graph.empty-volume",
                    span=word.span,
                    hints=["give the variable a value, or leave the path out"],
                )
        self.config.edit(volumes={**self.config.config.volumes, **{path: {} for path in paths}})
        self.config.commit(f"VOLUME {go_list(paths)}")

    def command(self, it: ast.Cmd | ast.Entrypoint) -> None:
        argv = it.command.argv if isinstance(it.command, ast.ExecForm) else (*self.config.shell(), it.command.text)
        if isinstance(it, ast.Cmd):
            self.config.has_cmd = True
            self.config.edit(cmd=argv, args_escaped=True)
            self.config.commit(f"CMD {go_list(argv, quoted=True)}")
            return
        self.config.edit(entrypoint=argv)
        if not self.config.has_cmd:
            self.config.edit(cmd=())
        self.config.commit(f"ENTRYPOINT {go_list(argv, quoted=True)}")

    def healthcheck(self, it: ast.Healthcheck) -> None:
        if it.command is None:
            test: tuple[str, ...] = ("NONE",)
        elif isinstance(it.command, ast.ExecForm):
            test = ("CMD", *it.command.argv)
        else:
            test = ("CMD-SHELL", it.command.text)
        check = Healthcheck(
            test=test,
            interval=it.interval_ns,
            timeout=it.timeout_ns,
            start_period=it.start_period_ns,
            start_interval=it.start_interval_ns,
            retries=it.retries,
        )
        self.config.edit(healthcheck=check)
        self.config.commit(f"HEALTHCHECK {healthcheck_text(check)}")


def _title(it: ast.Node) -> str:
    """The instruction on one line, for progress."""
    text = " ".join(it.original.split())
    return text if len(text) <= 160 else text[:157] + "..."


def _absolute(cwd: str, path: str) -> str:
    """A destination under the working directory, cleaned, with its trailing slash kept."""
    if path in ("", "."):
        path = "./"
    cleaned = _clean(cwd or "/", path)
    return cleaned + "/" if path.endswith(("/", "/.")) and cleaned != "/" else cleaned


def _clean(cwd: str, path: str) -> str:
    """Go's `path.Clean` of the path under `cwd`."""
    joined = posixpath.normpath(posixpath.join("/", cwd, path))
    return "/" + joined.lstrip("/")
