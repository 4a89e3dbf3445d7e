"""Runs a graph by demand: each node once, independent nodes at the same time, nothing that a cached result covers.

A demand walks down from its node to the first one whose result is known by definition key; only what lies above is
done, lowest first, and what those nodes read from elsewhere is demanded meanwhile. One thread for each demand; how
many steps work at the same time is bounded by `jobs`.

What is said of a step: RAN, it was executed; CACHED, its result was known by definition key; REUSED, known by
content key although something before it ran again; SKIPPED, never looked at because a later result covers it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from hashlib import sha256
from typing import TYPE_CHECKING, Any, NamedTuple

from aerogel.errors import AerogelError, Faults
from aerogel.events import Sink, StepDone, StepLog, StepStarted
from aerogel.files.codec import Codec
from aerogel.files.host import HostTree
from aerogel.graph.ops import Base, Copy, Git, Http, Local, Mkdir, Node, Run
from aerogel.graph.steps import Step
from aerogel.oci.digest import Digest
from aerogel.solve.ambient import Ambient
from aerogel.solve.imported import Imported
from aerogel.solve.keys import Keys, Taken, content_of_node
from aerogel.solve.materials import Materials
from aerogel.solve.remotes import Remotes
from aerogel.solve.walk import above, down

if TYPE_CHECKING:
    from aerogel.solve.file import Copying
    from aerogel.store.failed import FailedState

__all__ = ["Canceled", "Options", "Outcome", "Solver", "StepRun"]


class Outcome(NamedTuple):
    """What a node gives: the layers of its root, lowest first.

    `chain` has, for the node and each one below it down to the base, lowest first, the layer that it added, or an
    empty text.
    """

    layers: tuple[Digest, ...]
    chain: tuple[str, ...]

    def added(self, node: Node) -> dict[str, str]:
        """Node digest -> the layer it added (or an empty text), for the node of this outcome and all below it."""
        found: dict[str, str] = {}
        current: Node | None = node
        for layer in reversed(self.chain):
            if current is None:
                raise AssertionError(f"{node!r} has fewer steps than its result")
            found[current.digest] = layer
            current = current.root
        return found


class Options(NamedTuple):
    """How the graph is run. `exported` are the digests of the nodes whose layers the image will hold.

    `no_cache` is asked for each step whether its stage ignores kept results. `jobs` is at least 1. `numbers` gives so
    many numbers for steps, and returns the first.
    """

    codec: Codec
    exported: frozenset[str]
    jobs: int
    no_cache: Callable[[Step], bool]
    numbers: Callable[[int], int] = lambda _: 1
    retry: bool = False
    """Steps that failed before go on from what they had written; their results are not kept."""
    imported: Imported | None = None
    """What other places know of the steps."""
    on_made: Callable[[Node, Outcome], object] = lambda _node, _outcome: None
    """Called when a step has ended that was not known before."""


class StepRun(NamedTuple):
    """What became of a step, for records: times in seconds since the solver was made.

    `content` is its content key and `shown` the digest of the list of files that this was made of, either empty when
    it was not asked for. `note` says why a kept result was not taken: `no-cache`, or `gone` when its layers are.
    """

    status: str
    began_s: float
    ended_s: float
    content: str = ""
    note: str = ""
    layers: str = ""
    """A digest of all layers of the result."""


class Canceled(Exception):
    """The build ends: this step is not begun any more."""


class Solver:
    """One run over one graph."""

    def __init__(
        self,
        steps: Sequence[Step],
        materials: Materials,
        keys: Keys,
        contexts: dict[str, HostTree],
        remotes: Remotes,
        ambient: Ambient,
        sink: Sink,
        options: Options,
    ) -> None:
        self._materials = materials
        self._keys = keys
        self._contexts = contexts
        self._remotes = remotes
        self._ambient = ambient
        self._sink = sink
        self._options = options
        self._imported = Imported() if options.imported is None else options.imported
        shown = dict.fromkeys(step.node.digest for step in steps if not isinstance(step.node.op, Base))
        numbers = {digest: number for number, digest in enumerate(shown, options.numbers(len(shown)))}
        self._steps: dict[str, tuple[int, Step]] = {}
        for step in steps:
            self._steps.setdefault(step.node.digest, (numbers.get(step.node.digest, 0), step))
        self._forced = {step.node.digest for step in steps if options.no_cache(step)}
        self._tainted = above(steps, self._forced)
        self._lock = threading.Lock()
        self._futures: dict[str, Future[Outcome]] = {}
        self._threads: list[threading.Thread] = []
        self._slots = threading.BoundedSemaphore(max(1, options.jobs))
        self._canceled = threading.Event()
        self._first_error: BaseException | None = None
        self._targets: list[Node] = []
        self.statuses: dict[str, str] = {}
        self.runs: dict[str, StepRun] = {}
        """By node digest, of the steps that were looked at."""
        self.resumed: set[str] = set()
        """Steps that went on from a state that is not of the Dockerfile alone, and those that work on their results."""
        self._zero = time.monotonic()
        self._gone: set[str] = set()
        materials.on_wait = self._give_up

    def solve(self, node: Node) -> Outcome:
        """The result of the node. Raises the error of the first step that failed, with the span of its instruction."""
        return self.solve_all([node])[0]

    def solve_all(self, nodes: Sequence[Node]) -> list[Outcome]:
        """The results of several nodes, worked at together. Raises as `solve`."""
        self._targets = list(nodes)
        self._check_contexts()
        try:
            futures = [self._demand(node) for node in nodes]
            for future in futures:
                while not future.done():
                    # A wait without a limit would keep Ctrl-C waiting as well.
                    self._wait(future, 0.2)
        except BaseException:
            self._canceled.set()
            raise
        finally:
            self._join()
        if self._first_error is not None:
            raise self._first_error
        self._report_skipped(list(self._steps))
        return [future.result() for future in futures]

    def key(self, node: Node) -> Digest:
        """The key under which the result of a node is kept."""
        return self._keys.definition(node)

    def salt(self) -> bytes:
        """What values that stand in no record are hashed with."""
        return self._materials.store.builds.salt()

    def number(self, node: Node) -> int:
        """The number under which the events of a step are told; 0 for a base."""
        return self._steps[node.digest][0]

    def taken(self, node: Node) -> tuple[Taken, ...]:
        """What the node takes from contexts and from the network."""
        return self._keys.taken(node)

    def _check_contexts(self) -> None:
        """Everything that is missing from a local context or behind a URL is told at once, before anything runs."""
        sides = (side.op for _, step in self._steps.values() for side in step.node.inputs)
        self._remotes.prefetch([op for op in sides if isinstance(op, Http | Git)])
        faults: list[AerogelError] = []
        for _, step in self._steps.values():
            try:
                self._keys.taken(step.node)
            except AerogelError as error:
                step.place(error)
                if error not in faults:
                    faults.append(error)
        if faults:
            raise faults[0] if len(faults) == 1 else Faults(faults)

    def peek(self, node: Node) -> Outcome | None:
        """The result of a node if it is known, without doing anything."""
        if isinstance(node.op, Base):
            return Outcome(content_of_node(node), ())
        future = self._futures.get(node.digest)
        if future is not None and future.done():
            return future.result()
        key = self._keys.definition(node)
        return self._recorded(key, usable=False) or (self._borrowed(key, node) if self._imported else None)

    @staticmethod
    def _wait(future: Future[Outcome], seconds: float) -> None:
        try:
            future.exception(timeout=seconds)
        except TimeoutError:
            return

    def _join(self) -> None:
        while True:
            with self._lock:
                threads = [thread for thread in self._threads if thread.is_alive()]
            if not threads:
                return
            for thread in threads:
                thread.join(0.2)

    def _report_skipped(self, digests: Sequence[str]) -> None:
        """Those of the steps that nothing was said of are not looked at any more; in the order of the file."""
        left = [self._steps[digest] for digest in digests if digest in self._steps and digest not in self.statuses]
        for number, step in sorted(left, key=lambda each: each[0]):
            if number:
                self._sink.emit(StepStarted(number, step.title))
                self._done(step.node, number, "SKIPPED", 0.0)

    def _covered(self, node: Node) -> list[str]:
        """The steps that nothing asks for, now that the result of this one is known."""
        if len(self._targets) > 1:
            return []  # told at the end: another result may still need them
        if self._targets and node.digest == self._targets[0].digest:
            return [digest for digest in self._steps if digest != node.digest]
        elsewhere = {
            each.digest for _, step in self._steps.values() for side in step.node.inputs[1:] for each in down(side)
        }
        return [each.digest for each in down(node) if each is not node and each.digest not in elsewhere]

    def _done(self, node: Node, number: int, status: str, duration_s: float) -> None:
        self.statuses[node.digest] = status
        self._sink.emit(StepDone(number, status, duration_s))

    def _demand(self, node: Node) -> Future[Outcome]:
        with self._lock:
            future = self._futures.get(node.digest)
            if future is not None:
                return future
            future = self._futures[node.digest] = Future()
            thread = threading.Thread(target=self._chain, args=(node, future), name=f"step {node.digest[7:15]}")
            self._threads.append(thread)
        thread.start()
        return future

    def _chain(self, node: Node, future: Future[Outcome]) -> None:
        try:
            future.set_result(self._resolve(node))
        except BaseException as error:  # noqa: BLE001 - raised again by whoever waits for the future
            self._fail(error)
            future.set_exception(error)

    def _fail(self, error: BaseException) -> None:
        with self._lock:
            if self._first_error is None and not isinstance(error, Canceled):
                self._first_error = error
        self._canceled.set()

    def _resolve(self, node: Node) -> Outcome:
        """Walks down to what is known, then works upwards."""
        todo: list[Node] = []
        current: Node | None = node
        outcome: Outcome | None = None
        while current is not None and outcome is None:
            outcome = self._known(current)
            if outcome is None:
                todo.append(current)
                current = current.root
        if outcome is None:
            raise AssertionError(f"{node!r} has no base")
        for each in todo:
            for side in each.inputs[1:]:
                if not isinstance(side.op, Local | Http | Git):
                    self._demand(side)
        while todo:
            each = todo.pop()
            outcome = self._make(each, outcome) if each is node else self._claimed(each, outcome)
        return outcome

    def _claimed(self, node: Node, below: Outcome) -> Outcome:
        """A node on the way to ours: made here, unless another demand makes it already."""
        with self._lock:
            future = self._futures.get(node.digest)
            mine = future is None
            if future is None:
                future = self._futures[node.digest] = Future()
        if not mine:
            return future.result()
        try:
            outcome = self._make(node, below)
        except BaseException as error:
            future.set_exception(error)
            raise
        future.set_result(outcome)
        return outcome

    def _known(self, node: Node) -> Outcome | None:
        """The result without doing anything: of a base, of a node that is done, or by definition key."""
        if isinstance(node.op, Base):
            return Outcome(content_of_node(node), ())
        with self._lock:
            future = self._futures.get(node.digest)
        if future is not None and future.done():
            return future.result()
        if node.digest in self._tainted:
            return None
        key = self._keys.definition(node)
        outcome = self._recorded(key, node) or self._lent(key, node)
        if outcome is not None:
            with self._lock:
                is_new = node.digest not in self.statuses
                self.statuses.setdefault(node.digest, "CACHED")
            if is_new:
                number, step = self._steps[node.digest]
                self._report_skipped(self._covered(node))
                self._sink.emit(StepStarted(number, step.title))
                self._sink.emit(StepDone(number, "CACHED", 0.0))
                now = time.monotonic() - self._zero
                self.runs[node.digest] = StepRun("CACHED", now, now, layers=_digest_of(outcome.layers))
        return outcome

    def _recorded(self, key: Digest, node: Node | None = None, *, usable: bool = True) -> Outcome | None:
        """A kept result; with `usable` only if all its layers are still here."""
        result = self._materials.store.actions.get(key)
        if result is None or "chain" not in result:
            return None
        layers = tuple(Digest(each) for each in result["layers"])
        if usable and not all(self._materials.is_here(each) for each in layers):
            if node is not None:
                self._gone.add(node.digest)
            return None
        return Outcome(layers, tuple(result["chain"]))

    def _borrowed(self, key: Digest, node: Node) -> Outcome | None:
        """The result that another place knows, on the base that was found here; only if all its layers can be had."""
        steps = list(down(node))
        chain = self._imported.chain(key, len(steps) - 1)
        if chain is None:
            return None
        layers = (*content_of_node(steps[-1]), *(Digest(layer) for layer in chain if layer))
        return Outcome(layers, chain) if all(map(self._materials.is_here, layers)) else None

    def _lent(self, key: Digest, node: Node) -> Outcome | None:
        """The same, from now on known here too: the record is not believed when its layers are not here."""
        if not self._imported:
            return None
        outcome = self._borrowed(key, node)
        if outcome is not None:
            work = _Work(node, 0, ())
            work.key = self._imported.content(key)
            self._record(work, outcome)
        return outcome

    def _make(self, node: Node, below: Outcome) -> Outcome:
        """Does the node on top of `below`, or finds it by content key."""
        inputs = (
            below.layers,
            *(
                () if isinstance(side.op, Local | Http | Git) else self._demand(side).result().layers
                for side in node.inputs[1:]
            ),
        )
        number, step = self._steps[node.digest]
        with self._slots:
            if self._canceled.is_set():
                raise Canceled
            self._sink.emit(StepStarted(number, step.title))
            began = time.monotonic()
            work = _Work(node, number, inputs)
            try:
                if isinstance(node.op, Run):
                    self._run(work, node.op)
                else:
                    self._copy(work)
                layer = work.layer
                stack = (*below.layers, layer) if layer else below.layers
                outcome = Outcome(stack, (*below.chain, layer or ""))
                self._record(work, outcome)
            except BaseException as error:
                canceled = self._canceled.is_set() or isinstance(error, KeyboardInterrupt)
                self._ended(work, "CANCELED" if canceled else "FAILED", began)
                if self._canceled.is_set():
                    raise Canceled from error
                if isinstance(error, AerogelError):
                    step.place(error)
                raise
            self._ended(work, work.status, began, outcome.layers)
        return outcome

    def _ended(self, work: _Work, status: str, began: float, layers: tuple[Digest, ...] | None = None) -> None:
        digest = work.node.digest
        now = time.monotonic()
        note = "no-cache" if digest in self._forced else "gone" if digest in self._gone else ""
        digest_of = _digest_of(layers) if layers is not None else ""
        zero = self._zero
        self.runs[digest] = StepRun(status, began - zero, now - zero, work.key or "", note, digest_of)
        self._done(work.node, work.number, status, now - began)

    def _run(self, work: _Work, op: Run) -> None:
        """Runs the command, or finds what it gave in a root and with mounts that are byte for byte the same."""
        from aerogel.solve import exec as execution
        from aerogel.solve.failed import About

        node, inputs = work.node, work.inputs
        narrowed = inputs
        if len(inputs) > 1:
            from aerogel.solve.subtree import narrowed as narrow

            narrowed = narrow(node, inputs, self._materials)
            work.facts["shown"] = [list(each) for each in narrowed]
        key = work.key = self._keys.run(node, narrowed)
        with self._materials.store.once(key, self._waiting(work.number)) as waited:
            if self._found(work, key, waited=waited):
                return
            number, step = self._steps[node.digest]
            place = f"{step.span.source.name}:{step.span.line}"
            about = About(key=key, stage=step.stage, title=step.title, place=place, base=step.base)
            resumed = self._failed_before(work, key) if self._options.retry else None
            work.layer = execution.run(
                node,
                op,
                inputs,
                self._contexts,
                self._materials,
                self._ambient,
                codec=self._options.codec if node.digest in self._options.exported else None,
                sink=self._sink,
                step=number,
                canceled=self._canceled,
                about=about,
                resumed=resumed,
            )
            if resumed is None:
                self._keep(work, key)

    def _failed_before(self, work: _Work, key: Digest) -> FailedState | None:
        """What the step had written when it failed the last time, if that is still there."""
        mapping = self._materials.helper().rung.map_id
        stage = self._steps[work.node.digest][1].stage
        found = self._materials.store.failed.find(mapping, key, work.inputs[0], stage)
        if found is None:
            return None
        self._sink.emit(StepLog(work.number, b"going on from where it failed\n", 2))
        self.resumed.add(work.node.digest)
        return found

    def _copy(self, work: _Work) -> None:
        """Writes the layer, or finds one with the same entries and contents, wherever these came from."""
        key = self._keys.copy(work.node, work.inputs)
        with self._materials.store.once(key, self._waiting(work.number)) as waited:
            if self._found(work, key, waited=waited):
                return
            with self._planned(work) as plan:
                self._write(work, plan)
            self._keep(work, key)

    def _write(self, work: _Work, plan: Copying) -> None:
        actions = self._materials.store.actions
        use_cache = work.node.digest not in self._forced
        shape = None if plan.is_known else plan.shape()
        # Contents that nobody wrote before in this shape are read once, into the layer, and not before to be known.
        if shape is None or (use_cache and (self._imported or actions.get(shape) is not None)):
            key = work.key = plan.key()
            with self._materials.store.once(key, self._waiting(work.number)) as waited:
                if not self._found(work, key, waited=waited):
                    work.layer = plan.write(self._options.codec, self._ambient.lent.secrets)
        else:
            work.layer = plan.write(self._options.codec, self._ambient.lent.secrets)
        key = work.key = plan.key()
        work.facts["copied"] = key
        self._materials.store.builds.selections.keep(key, plan.rows)
        if shape is not None:
            actions.put(shape, {"kind": "shape"}, {})
        self._keep(work, key)

    @contextmanager
    def _planned(self, work: _Work) -> Iterator[Copying]:
        # Imported when something must be done: most builds find everything.
        from aerogel.solve import file

        node = work.node
        if isinstance(node.op, Mkdir):
            yield file.making(node.op, work.inputs[0], self._materials)
            return
        if not isinstance(node.op, Copy):
            raise TypeError(f"{node!r} is not executed")
        origin = self._steps[node.digest][1].origin
        with file.copying(
            node, node.op, work.inputs, self._contexts, self._remotes, self._materials, origin=origin
        ) as plan:
            yield plan

    def _found(self, work: _Work, key: Digest, *, waited: bool) -> bool:
        """Takes a kept layer. One that another build made while this one waited is new enough for `--no-cache`."""
        if work.node.digest in self._forced and not waited:
            return False
        record = self._materials.store.actions.record(key)
        known = self._recorded(key, work.node) if record is not None else None
        if record is None or known is None:
            return self._found_elsewhere(work, key)
        work.facts |= {name: record["facts"][name] for name in ("shown", "copied") if name in record["facts"]}
        work.key = work.key or key
        work.layer = Digest(known.chain[-1]) if known.chain[-1] else None
        work.status = "REUSED"
        return True

    def _found_elsewhere(self, work: _Work, key: Digest) -> bool:
        """Takes the layer that another place knows under a content key."""
        found = self._imported.chain(key, 1) if self._imported else None
        if found is None or not all(self._materials.is_here(Digest(layer)) for layer in found if layer):
            return False
        work.key = work.key or key
        work.layer = Digest(found[0]) if found[0] else None
        work.status = "REUSED"
        self._keep(work, key)
        return True

    def _keep(self, work: _Work, key: Digest) -> None:
        """Records the layer that the step added, under a key of what it reads."""
        layer = work.layer
        result = {"layers": [layer] if layer else [], "chain": [layer or ""]}
        self._materials.store.actions.put(key, self._facts(work), result)

    def _facts(self, work: _Work) -> dict[str, Any]:
        """What the keys of a step were made of."""
        from aerogel.solve.facts import facts_of

        return {
            "op": facts_of(work.node.op, self.salt()),
            "platform": work.node.platform,
            "epoch": self._materials.times.kind,
            "inputs": [list(each) for each in work.inputs],
            "taken": [list(each) for each in self._keys.taken(work.node)],
            **work.facts,
        }

    def _record(self, work: _Work, outcome: Outcome) -> None:
        if work.node.digest in self.resumed or any(side.digest in self.resumed for side in work.node.inputs):
            self.resumed.add(work.node.digest)
            return
        facts = {**self._facts(work), "content": work.key}
        result = {"layers": list(outcome.layers), "chain": list(outcome.chain)}
        self._materials.store.actions.put(self._keys.definition(work.node), facts, result)
        self._options.on_made(work.node, outcome)

    def _give_up(self) -> None:
        if self._canceled.is_set():
            raise Canceled

    def _waiting(self, step: int) -> Callable[[], None]:
        """What to do while another process does the same step: say so once, and give up when the build ends."""
        said = threading.Event()

        def wait() -> None:
            if self._canceled.is_set():
                raise Canceled
            if not said.is_set():
                said.set()
                self._sink.emit(StepLog(step, b"waiting: another build does this step\n", 2))

        return wait


class _Work:
    """A step in work: what is found out about it."""

    __slots__ = ("facts", "inputs", "key", "layer", "node", "number", "status")

    def __init__(self, node: Node, number: int, inputs: tuple[tuple[Digest, ...], ...]) -> None:
        self.node = node
        self.number = number
        self.inputs = inputs
        self.key: Digest | None = None
        self.layer: Digest | None = None
        self.status = "RAN"
        self.facts: dict[str, Any] = {}


def _digest_of(layers: Sequence[Digest]) -> str:
    """A short name of a list of layers."""
    return sha256(" ".join(layers).encode()).hexdigest()[:32]
