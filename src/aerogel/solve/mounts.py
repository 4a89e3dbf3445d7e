"""The mounts of one RUN, made ready for the sandbox; what they hold (locks of caches) is given back at the end.

bind    of a context: its selected files, laid out (`bound`); of a stage or an image: its layers, read-only below an
        upper directory that is thrown away
cache   a directory of the store (`store.mounts`), begun with a copy of `source` when it is new
tmpfs   memory
secret  a file in memory, or a variable, that exists in the sandbox only
ssh     a socket that `sandbox.agent` serves
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from typing import NamedTuple

from msgspec.structs import replace

from aerogel.errors import AerogelError, nearest
from aerogel.events import Sink, StepLog
from aerogel.files.copy import CopyOptions
from aerogel.files.entry import DIR
from aerogel.files.host import HostTree
from aerogel.files.tar import TarWriter
from aerogel.files.tree import LayerTree
from aerogel.graph.ops import Copy, CopySource, Git, Http, Local, Node, Run
from aerogel.graph.ops import Mount as Asked
from aerogel.oci.digest import Digest
from aerogel.sandbox.spec import Mount
from aerogel.solve.ambient import Lent
from aerogel.solve.bound import bind_context
from aerogel.solve.content import ContextContent, LayerContent, Source, write_items
from aerogel.solve.materials import Materials
from aerogel.solve.seen import Shown, View, bases_of, show, view_of_context, view_of_layers
from aerogel.solve.selection import select
from aerogel.solve.subtree import MountError, chosen, context_digest, layers_digest
from aerogel.store.mounts import CacheAbout, CacheMounts, HeldCache

__all__ = ["Prepared", "prepare"]


class Prepared(NamedTuple):
    """What the sandbox gets. `agents` are paths of agents by target; `secrets` are those that the step can see.

    `above` are directories to go above the layers of the root, whose files have times that only the step sees, of all
    that were made (`shown`);
    `settled` are pairs of such a time and what stands for it in the layer (`seen`).
    """

    mounts: tuple[Mount, ...]
    env: Mapping[str, str]
    agents: Mapping[str, str]
    secrets: Mapping[str, bytes]
    above: tuple[str, ...] = ()
    shown: tuple[str, ...] = ()
    settled: tuple[tuple[int, int], ...] = ()


class _Step(NamedTuple):
    node: Node
    inputs: tuple[tuple[Digest, ...], ...]
    contexts: Mapping[str, HostTree]
    materials: Materials
    number: int
    sink: Sink
    canceled: threading.Event


def prepare(
    node: Node,
    op: Run,
    inputs: tuple[tuple[Digest, ...], ...],
    contexts: Mapping[str, HostTree],
    materials: Materials,
    lent: Lent,
    stack: ExitStack,
    folder: str,
    step: int,
    sink: Sink,
    canceled: threading.Event,
) -> Prepared:
    """Makes the mounts ready; what they hold is given back with `stack`, what is made for them lies in `folder`.

    Raises `solve.no-secret`, `solve.no-agent`, `solve.mount-source`, `solve.secret-not-text`, `context.*`, `store.*`.
    """
    whole = _Step(node, inputs, contexts, materials, step, sink, canceled)
    mounts: list[Mount] = []
    env: dict[str, str] = {}
    agents: dict[str, str] = {}
    secrets: dict[str, bytes] = {}
    for at, asked in enumerate(op.mounts):
        match asked.type:
            case "bind":
                mounts.append(_bind(whole, asked, at))
            case "tmpfs":
                mounts.append(Mount(kind="tmpfs", target=asked.target, size_bytes=asked.size_bytes))
            case "secret":
                mounts += _secret(asked, at, lent, env, secrets)
            case "ssh":
                mounts += _agent(asked, at, lent, env, agents)
    # Caches last, and always in the same order: two steps must not wait for each other.
    caches = [(at, asked) for at, asked in enumerate(op.mounts) if asked.type == "cache"]
    shown = Shown({}, ())
    if caches:
        held, made = _caches(whole, caches, stack)
        shown = show(held, _views(whole, op, mounts), whole.materials, folder, partial(_give_up, canceled))
        mounts = [_above(mount, shown) for mount in mounts] + made
    above = tuple(path for target, path in shown.directories.items() if not target)
    return Prepared(tuple(mounts), env, agents, secrets, above, tuple(shown.directories.values()), shown.settled)


def _give_up(canceled: threading.Event) -> None:
    if canceled.is_set():
        raise AerogelError("the build was canceled", code="solve.canceled")


def _views(whole: _Step, op: Run, mounts: list[Mount]) -> list[View]:
    """All that the step sees of layers and contexts."""
    materials, inputs = whole.materials, whole.inputs
    views = {"": view_of_layers("", inputs[0], bases_of(whole.node), materials)}
    directories = {mount.target: mount for mount in mounts}
    for at, asked in enumerate(op.mounts):
        if asked.type != "bind":
            continue
        side = whole.node.inputs[asked.input]
        if isinstance(side.op, Local):
            tree = whole.contexts[side.op.name]
            root = chosen(tree, asked.source, at)
            mount = directories[asked.target]
            directory = mount.lowers[0] if mount.lowers else mount.source
            if not mount.lowers and root.kind != DIR:
                directory = os.path.dirname(directory)
            views[asked.target] = view_of_context(asked.target, tree, root.path, directory)
        else:
            layers = inputs[asked.input]
            path = chosen(materials.tree(layers), asked.source, at).path
            views[asked.target] = view_of_layers(asked.target, layers, bases_of(side), materials, path)
    return list(views.values())


def _above(mount: Mount, shown: Shown) -> Mount:
    """The mount with what the step is shown instead of some of its files."""
    above = shown.directories.get(mount.target)
    if above is None:
        return mount
    if mount.kind == "overlay":
        return replace(mount, lowers=(*mount.lowers, above))
    is_directory = os.path.isdir(mount.source)
    directory, name = (mount.source, "") if is_directory else os.path.split(mount.source)
    return replace(mount, kind="overlay", lowers=(directory, above), source=name, is_directory=is_directory)


def _bind(whole: _Step, asked: Asked, at: int) -> Mount:
    side = whole.node.inputs[asked.input].op
    if isinstance(side, Http | Git):
        raise MountError(at, "a mount cannot read from a URL or repository", code="solve.mount-source")
    if isinstance(side, Local):
        bound = bind_context(whole.contexts[side.name], asked.source, at, whole.materials)
        if asked.readonly:
            path = f"{bound.directory}/{bound.name}".rstrip("/")
            return Mount(kind="bind", target=asked.target, source=path, readonly=True)
        return Mount(
            kind="overlay",
            target=asked.target,
            lowers=(bound.directory,),
            source=bound.name,
            is_directory=not bound.name,
        )
    layers = whole.inputs[asked.input]
    entry = chosen(whole.materials.tree(layers), asked.source, at)
    return Mount(
        kind="overlay",
        target=asked.target,
        lowers=tuple(whole.materials.directories(layers)),
        source=os.fsdecode(entry.path),
        is_directory=entry.kind == DIR,
        readonly=asked.readonly,
    )


def _secret(asked: Asked, at: int, lent: Lent, env: dict[str, str], secrets: dict[str, bytes]) -> list[Mount]:
    content = lent.secrets.get(asked.id)
    if content is None:
        if not asked.required:
            return []
        guess = nearest(asked.id, lent.secrets)
        hints = [f"did you mean `{guess}`?"] if guess else []
        hints.append(f"give it with `--secret id={asked.id},src=FILE` or `--secret id={asked.id},env=NAME`")
        raise MountError(
            at, f"the step needs the secret `{asked.id}`, which was not given", code="solve.no-secret", hints=hints
        )
    secrets[asked.id] = content
    if asked.env:
        text = content.decode("utf-8", "surrogateescape")
        if "\0" in text:
            message = f"the secret `{asked.id}` has a zero byte, so it cannot be the variable `{asked.env}`"
            raise MountError(
                at, message, code="solve.secret-not-text", hints=["give the mount a `target` instead of `env`"]
            )
        env[asked.env] = text
    if not asked.target:
        return []
    mode = 0o400 if asked.mode is None else asked.mode
    return [
        Mount(
            kind="file",
            target=asked.target,
            data=content,
            is_secret=True,
            mode=mode,
            uid=asked.uid,
            gid=asked.gid,
            readonly=True,
        )
    ]


def _agent(asked: Asked, at: int, lent: Lent, env: dict[str, str], agents: dict[str, str]) -> list[Mount]:
    path = lent.agents.get(asked.id)
    if path is None:
        if not asked.required:
            return []
        hints = [f"lend it one with `--ssh {asked.id}" + ("`" if asked.id == "default" else "=SOCKET`")]
        raise MountError(
            at, f"the step needs the ssh agent `{asked.id}`, which was not given", code="solve.no-agent", hints=hints
        )
    agents[asked.target] = path
    env.setdefault("SSH_AUTH_SOCK", asked.target)
    mode = 0o600 if asked.mode is None else asked.mode
    return [Mount(kind="socket", target=asked.target, mode=mode, uid=asked.uid, gid=asked.gid)]


def _caches(
    whole: _Step, caches: list[tuple[int, Asked]], stack: ExitStack
) -> tuple[list[tuple[HeldCache, bool]], list[Mount]]:
    """Takes the caches: each with whether the step may write to it, and their mounts."""
    store = whole.materials.store
    kept = CacheMounts(store.cache, store.scratch)
    mapping = whole.materials.helper().rung.map_id
    wanted = [(_about(whole, asked, at), at, asked) for at, asked in caches]
    taken: dict[tuple[CacheAbout, str, int], HeldCache] = {}
    writable: set[str] = set()
    mounts = []
    for about, at, asked in sorted(wanted, key=lambda each: (each[0].name, _STRICT.index(each[2].sharing))):
        known = next((held for key, held in taken.items() if key[0] == about and key[1] != "private"), None)
        if known is None or asked.sharing == "private":

            def fill(path: str, about: CacheAbout = about, asked: Asked = asked, at: int = at) -> None:
                _fill(whole, asked, at, about, path)

            def wait(first: bool, asked: Asked = asked) -> None:
                _give_up(whole.canceled)
                if first:
                    text = f"waiting for cache `{asked.id}`, which another step has\n"
                    whole.sink.emit(StepLog(whole.number, text.encode("utf-8", "surrogateescape")))

            known = stack.enter_context(kept.hold(mapping, about, asked.sharing, fill, wait))
            taken[about, asked.sharing, at] = known
        if not asked.readonly:
            writable.add(known.path)
        mounts.append(Mount(kind="bind", target=asked.target, source=known.path, readonly=asked.readonly))
    return [(held, held.path in writable) for held in taken.values()], mounts


_STRICT = ("locked", "private", "shared")
"""A step that mounts one cache twice takes the stricter lock, once."""


def _about(whole: _Step, asked: Asked, at: int) -> CacheAbout:
    seed = ""
    if asked.input >= 0:
        side = whole.node.inputs[asked.input].op
        if isinstance(side, Local):
            seed = context_digest(whole.contexts[side.name], asked.source, at)
        else:
            seed = layers_digest(whole.materials, whole.inputs[asked.input], asked.source, at)
    return CacheAbout(asked.id, asked.uid, asked.gid, 0o755 if asked.mode is None else asked.mode, seed)


def _fill(whole: _Step, asked: Asked, at: int, about: CacheAbout, path: str) -> None:
    """Puts what a new cache begins with into its directory: a copy of its source, and its owner."""
    if asked.input >= 0:
        _seed(whole, asked, at, path)
    whole.materials.helper().call("own", {"path": path, "uid": about.uid, "gid": about.gid, "mode": about.mode})


def _seed(whole: _Step, asked: Asked, at: int, path: str) -> None:
    op = Copy(sources=(CopySource(1, asked.source or "/"),), dest="/", keep_owner=True)
    side = whole.node.inputs[asked.input].op
    source: Source
    if isinstance(side, Local):
        tree = whole.contexts[side.name]
        items = select(op, 1, tree, LayerTree([]), CopyOptions(epoch=whole.materials.times.copied))
        source = ContextContent(tree, whole.materials.store.cache)
    else:
        layers = whole.inputs[asked.input]
        merged = whole.materials.tree(layers)
        if chosen(merged, asked.source, at).kind != DIR:
            raise MountError(at, f"a cache cannot begin with a file, `{asked.source}`", code="solve.mount-source")
        options = CopyOptions(keep_owner=True, epoch=whole.materials.times.copied)
        items = select(op, 1, merged, LayerTree([]), options)
        source = LayerContent(whole.materials, layers, merged)
    read_fd, write_fd = os.pipe()
    failures: list[BaseException] = []

    def pump() -> None:
        try:
            with os.fdopen(write_fd, "wb") as pipe:
                if isinstance(source, LayerContent):
                    source.open(items)
                write_items([(item, source) for item in items], TarWriter(pipe.write))
        except BrokenPipeError:
            return  # the job failed and says why
        except BaseException as error:  # noqa: BLE001 - raised again in the calling thread
            failures.append(error)

    thread = threading.Thread(target=pump, name="seed a cache")
    thread.start()
    try:
        whole.materials.helper().call("extract", {"path": path, "overlay": None}, [read_fd])
    finally:
        os.close(read_fd)
        thread.join()
        source.close()
    if failures:
        raise failures[0]
