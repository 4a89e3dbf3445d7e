"""Runs structure tests: commands in fresh copies of the image, several at a time; files from the layers.

A command that cannot be started fails its test, whatever exit status it asks for. Setup commands change the copy that
their test runs in; how they end is told and decides nothing, as with container-structure-test.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, Self

import msgspec

from aerogel.commands.run import found_image
from aerogel.commands.world import World
from aerogel.errors import EXIT_USAGE, AerogelError, Diagnostic
from aerogel.events import Warned
from aerogel.files.tar import CHUNK, Readable
from aerogel.oci.digest import Digest
from aerogel.oci.types import ContainerConfig
from aerogel.runtime import terminal
from aerogel.runtime.container import ContainerOptions, sandbox_for
from aerogel.sandbox.emulator import Emulator
from aerogel.sandbox.spec import Exit, Rootfs, Sandbox
from aerogel.solve.materials import Materials, make_layer_root
from aerogel.structure import checks
from aerogel.structure.config import CommandTest, Config, RunOptions, Variable
from aerogel.structure.expand import expand
from aerogel.structure.report import Verdict

__all__ = ["run_tests"]

_MAX_OUTPUT = 64 << 20
_SHOWN_OUTPUT = 1 << 16


class _Image(NamedTuple):
    """The image of a run of tests."""

    layers: tuple[Digest, ...]
    config: ContainerConfig
    platform: str
    materials: Materials


def run_tests(name: str, configs: Sequence[Config], world: World, *, timeout_s: float) -> tuple[str, list[Verdict]]:
    """The image's platform, and how each test went, in the order of the files.

    Raises `build.no-base` for an image that is nowhere, `sandbox.*` and `store.*`; a failing test raises nothing.
    """
    materials = Materials(world.store, world.helper)
    layers, config, platform = found_image(name, world, materials, "missing")
    image = _Image(layers, config, platform, materials)
    waiting: list[Callable[[], Verdict]] = []
    if any(each.commands for each in configs):
        runner = _Runner(image, world, timeout_s)
        waiting = [_bound(runner, each, test) for each in configs for test in each.commands]
    with ThreadPoolExecutor(world.settings.jobs or len(os.sched_getaffinity(0)), thread_name_prefix="test") as pool:
        try:
            futures = [pool.submit(each) for each in waiting]
            others = _from_layers(image, configs)
            ran = iter([future.result() for future in futures])
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    verdicts = []
    for each in configs:
        verdicts += [next(ran) for _ in each.commands]
        verdicts += [one for one in others if one.file == each.name]
    return platform, verdicts


def _bound(runner: _Runner, config: Config, test: CommandTest) -> Callable[[], Verdict]:
    return lambda: runner.run(config, test)


# Files and metadata


def _from_layers(image: _Image, configs: Sequence[Config]) -> list[Verdict]:
    if not any(each.size - len(each.commands) for each in configs):
        return []
    tree = image.materials.tree(image.layers)
    wanted: dict[bytes, int] = {}
    for each in configs:
        wanted |= dict(checks.wanted_paths(each.contents, each.licenses, tree))
    contents = _read(image, {path for path, size in wanted.items() if size <= checks.MAX_CONTENT})
    verdicts = []
    for each in configs:
        subject = checks.Subject(tree, _with_env(image.config, each.global_env), contents)
        found = [("content", one.name, checks.check_content(one, subject)) for one in each.contents]
        found += [("existence", one.name, checks.check_existence(one, subject)) for one in each.existences]
        found += [("license", "licences", checks.check_licenses(one, subject)) for one in each.licenses]
        if each.metadata is not None:
            found.append(("metadata", "metadata", checks.check_metadata(each.metadata, image.config)))
        verdicts += [_judged(each, kind, name, faults) for kind, name, faults in found]
    return verdicts


def _judged(config: Config, kind: str, name: str, faults: Sequence[str]) -> Verdict:
    return Verdict(file=config.name, kind=kind, name=name, passed=not faults, faults=tuple(faults))


def _read(image: _Image, paths: set[bytes]) -> dict[bytes, bytes | None]:
    """The contents of regular files; each layer that has some is read once."""
    tree = image.materials.tree(image.layers)
    places: dict[int, dict[int, tuple[int, list[bytes]]]] = {}
    for path in paths:
        origin = tree.origin(path)
        if origin is not None:
            offsets = places.setdefault(origin.layer, {})
            offsets.setdefault(origin.offset, (origin.entry.size, []))[1].append(path)
    found: dict[bytes, bytes | None] = {}
    for layer, offsets in sorted(places.items()):
        with image.materials.open_tar(image.layers[layer]) as stream:
            at = 0
            for offset, (size, names) in sorted(offsets.items()):
                _exactly(stream, offset - at)
                data = b"".join(_exactly(stream, size, keep=True))
                at = offset + size
                found.update(dict.fromkeys(names, data))
    return found


def _exactly(stream: Readable, size: int, *, keep: bool = False) -> list[bytes]:
    pieces = []
    while size:
        data = stream.read(min(size, CHUNK))
        if not data:
            raise AerogelError("a layer ends too early", code="tar.truncated")
        size -= len(data)
        if keep:
            pieces.append(data)
    return pieces


def _with_env(config: ContainerConfig, added: Sequence[Variable]) -> ContainerConfig:
    """The config with more variables; their values may use those that it has."""
    env = checks.environment(config)
    env |= {each.key: expand(each.value, env) for each in added}
    return msgspec.structs.replace(config, env=tuple(f"{key}={value}" for key, value in env.items()))


# Commands


class _Ran(NamedTuple):
    """A command that was run."""

    end: Exit
    stdout: bytes
    stderr: bytes
    is_late: bool


class _Place(NamedTuple):
    """What the commands of one test write: a layer each, which the next one sees."""

    path: str
    uppers: list[str]

    def root(self, lowers: tuple[str, ...]) -> Rootfs:
        """The root of the next command."""
        seen = (*lowers, *self.uppers)
        place = f"{self.path}/{len(self.uppers)}"
        self.uppers.append(f"{place}/upper")
        os.mkdir(place)
        make_layer_root(f"{place}/upper")
        os.mkdir(f"{place}/work")
        return Rootfs(lowers=seen, upper=f"{place}/upper", work=f"{place}/work")


class _Runner:
    """Runs the commands of tests; threads may share it."""

    def __init__(self, image: _Image, world: World, timeout_s: float) -> None:
        self._image = image
        self._world = world
        self._timeout_s = timeout_s
        self._directories = tuple(image.materials.directories(image.layers))
        self._is_emulated = Emulator().prepare(world.helper, image.platform)

    def run(self, config: Config, test: CommandTest) -> Verdict:
        """How a test goes. Raises what is wrong with the sandbox itself."""
        settings = _with_env(self._image.config, config.global_env)
        env = checks.environment(settings)
        words = [expand(word, env) for word in (test.command, *test.args)]
        own = _given(config.run_options, self._world) | {each.key: expand(each.value, env) for each in test.env}
        began = time.monotonic()
        place = self._place() if test.setup or test.teardown else None
        try:
            for line in test.setup:
                done = self._command(settings, own, line, config.run_options, place)
                if done.end.fault is not None:
                    return _verdict(config, test, [f"setup: {done.end.fault.message}"], done, began)
                self._tell(test, line, done)
            ran = self._command(settings, own, words, config.run_options, place)
            for line in test.teardown:
                self._command(settings, own, line, config.run_options, place)
        finally:
            if place is not None:
                self._image.materials.remove(place.path)
        return _verdict(config, test, self._faults(test, words, ran), ran, began)

    def _faults(self, test: CommandTest, words: Sequence[str], ran: _Ran) -> list[str]:
        if ran.end.fault is not None:
            return ["; ".join([ran.end.fault.message, *ran.end.fault.hints])]
        if ran.is_late:
            return [f"`{words[0]}` did not end within {self._timeout_s:.0f} s and was killed"]
        if max(len(ran.stdout), len(ran.stderr)) >= _MAX_OUTPUT:
            return [f"`{words[0]}` printed more than {_MAX_OUTPUT >> 20} MiB"]
        faults = checks.check_output(test, _decoded(ran.stdout), _decoded(ran.stderr), ran.end.code)
        if faults and ran.end.oom:
            faults.append("the kernel ran out of memory and killed the command")
        return faults

    def _tell(self, test: CommandTest, line: Sequence[str], done: _Ran) -> None:
        if done.end.code:
            message = f"setup command `{' '.join(line)}` of `{test.name}` ended with {done.end.code}"
            self._world.sink.emit(Warned(Diagnostic(message, code="test.setup")))

    def _place(self) -> _Place:
        """A directory for what setup commands write."""
        return _Place(self._world.store.scratch.directory(), [])

    def _command(
        self,
        settings: ContainerConfig,
        env: Mapping[str, str],
        words: Sequence[str],
        options: RunOptions,
        place: _Place | None,
    ) -> _Ran:
        here = self._world.settings.directory
        mounts = tuple(f"{here}/{one}" if one.startswith(("./", "../")) else one for one in options.bind_mounts)
        wanted = ContainerOptions(
            arguments=tuple(words[1:]),
            entrypoint=words[0],
            env=tuple(env.items()),
            user=options.user or None,
            volumes=mounts,
            tty=options.tty,
            cap_add=options.capabilities,
            emulated=self._is_emulated,
        )
        sandbox = sandbox_for(self._directories, settings, wanted)
        if options.privileged:
            sandbox = msgspec.structs.replace(sandbox, insecure=True)
        if place is not None:
            sandbox = msgspec.structs.replace(sandbox, root=place.root(self._directories))
        return self._captured(sandbox)

    def _captured(self, sandbox: Sandbox) -> _Ran:
        late = threading.Event()
        with _Output() as stdout, _Output() as stderr:
            with self._world.helper().run(sandbox, stdout=stdout.fd, stderr=stderr.fd) as process:

                def give_up() -> None:
                    late.set()
                    process.kill()

                timer = threading.Timer(self._timeout_s, give_up)
                timer.daemon = True
                timer.start()
                try:
                    if process.tty is not None:
                        terminal.join(None, stdout.fd, process.tty)
                    end = process.wait()
                finally:
                    timer.cancel()
            return _Ran(end, stdout.end(), stderr.end(), late.is_set())


class _Output:
    """What a command prints, through a pipe: a file could be opened anew by its name, and what is in it be lost.

    Of more than `_MAX_OUTPUT` bytes the rest is read and forgotten.
    """

    def __init__(self) -> None:
        self._reading, self.fd = os.pipe2(os.O_CLOEXEC)
        self._data = bytearray()
        self._thread = threading.Thread(target=self._read, name="output", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
        os.close(self._reading)

    def end(self) -> bytes:
        """All of it, once nobody can write any more."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
        self._thread.join()
        return bytes(self._data)

    def _read(self) -> None:
        while piece := os.read(self._reading, CHUNK):
            self._data += piece[: _MAX_OUTPUT - len(self._data)]


def _given(options: RunOptions, world: World) -> dict[str, str]:
    """The variables of the file and of this environment that `containerRunOptions` names."""
    lookup = world.settings.environment.get
    found: dict[str, str] = {}
    if options.env_file:
        from aerogel.bake.interpolation import parse_dotenv

        try:
            text = (world.settings.directory / options.env_file).read_text("utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            why = str(error.strerror).lower() if isinstance(error, OSError) else "it is not UTF-8"
            raise AerogelError(
                f"`envFile`: `{options.env_file}` cannot be read: {why}", code="test.env-file", exit_status=EXIT_USAGE
            ) from None
        found |= parse_dotenv(text, lookup)
    found |= {name: value for name in options.env if (value := lookup(name))}
    return found


def _decoded(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _verdict(config: Config, test: CommandTest, faults: Sequence[str], ran: _Ran, began: float) -> Verdict:
    return Verdict(
        file=config.name,
        kind="command",
        name=test.name,
        passed=not faults,
        faults=tuple(faults),
        stdout=_decoded(ran.stdout[:_SHOWN_OUTPUT]),
        stderr=_decoded(ran.stderr[:_SHOWN_OUTPUT]),
        exit_status=None if ran.end.fault is not None else ran.end.code,
        duration_s=time.monotonic() - began,
    )
