"""The checks of a finished image in a build: what they read, what is kept of it, where their findings stand.

What is found is kept by the digest of all that decides it, and what a layer's ELF files say by the layer's: a build with
nothing to do looks at nothing, and one that changed a layer at this layer. Read is a few pages of each file, from blobs
that are at hand; of what cannot be entered in the middle nothing is said.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from aerogel import __version__
from aerogel.checks.dynamic import Dynamic, Reader, linked_go_functions, read_dynamic
from aerogel.checks.image import Found, Subject, check_image, is_candidate
from aerogel.commands.starting import instructions_of, missing_programs, started_paths
from aerogel.dockerfile import ast
from aerogel.errors import AerogelError, Diagnostic, Span
from aerogel.events import Message, Sink, Warned
from aerogel.export.image import Finished
from aerogel.files.tree import LayerTree
from aerogel.graph.stages import ImageRef, Plan, StageRef
from aerogel.graph.steps import Graph
from aerogel.lint.image import IMAGE_RULES
from aerogel.lint.rule import Finding, Options, allowed
from aerogel.oci.digest import Digest
from aerogel.solve.materials import Materials
from aerogel.solve.peek import are_huge, has_indexes, peek
from aerogel.solve.solver import Outcome

__all__ = ["Reading", "check_finished"]

_PIECE = 1 << 20
_KEPT_PIECES = 4
_MAX_PIECES = 512
_MAX_FILES = 5000
_NAMES = [rule.name for rule in IMAGE_RULES]


def check_finished(
    planned: Plan,
    graph: Graph,
    outcome: Outcome,
    finished: Finished,
    materials: Materials,
    options: Options,
    sink: Sink,
) -> None:
    """Tells what is wrong with an image as warnings. Raises AerogelError `lint.failed` when they are to fail the build."""
    told: list[tuple[Finding, Diagnostic]] = []
    instructions = instructions_of(planned)
    fallback = planned.target.stage.origin
    for remark in missing_programs(planned, finished, materials):
        node = _node_at(remark.span, instructions) or fallback
        told.append((Finding("MissingProgram", remark.message, remark.span or node.span, node), remark))
    places = _Places(graph, outcome, instructions, fallback)
    if are_huge(materials, finished.layers):
        sink.emit(
            Message("the image has too many files for the checks of its programs and libraries: they are left out")
        )
    for found in _kept(finished, materials, _base_name(planned)):
        node = places.of(found, materials)
        finding = Finding(found.rule, found.message, node.span, node, found.hints)
        told.append((finding, finding.diagnostic()))
    rules = {rule.name: rule for rule in IMAGE_RULES}
    told = [each for each in told if allowed(each[0], rules[each[0].rule], options, _NAMES)]
    for _, remark in told:
        sink.emit(Warned(remark))
    if told and options.error:
        names = ", ".join(f"`{name}`" for name in sorted({finding.rule for finding, _ in told}))
        raise AerogelError(
            f"the image breaks the rule{'s' if ',' in names else ''} {names}",
            code="lint.failed",
            span=told[0][0].span,
            hints=["`error=true` of `check` makes warnings fail the build; `skip=RULE` switches one off"],
        )


def _node_at(span: Span | None, instructions: Sequence[ast.Instruction]) -> ast.Instruction | None:
    if span is None:
        return None
    inside = (each for each in instructions if each.span.source is span.source)
    return next((each for each in inside if each.span.start <= span.start <= each.span.end), None)


def _base_name(planned: Plan) -> str:
    """What the FROM says that the target stands on."""
    stages = {stage.index: stage for stage in planned.stages}
    stage = planned.target
    while isinstance(stage.base, StageRef) and stage.base.index in stages:
        stage = stages[stage.base.index]
    return stage.base.name if isinstance(stage.base, ImageRef) else ""


class _Places:
    """Which instruction brought a file."""

    def __init__(
        self, graph: Graph, outcome: Outcome, instructions: Sequence[ast.Instruction], fallback: ast.Instruction
    ) -> None:
        steps = {step.node.digest: step for step in graph.steps}
        added = outcome.added(graph.target.node)
        self._spans = {layer: steps[node].span for node, layer in added.items() if layer and node in steps}
        self._layers = outcome.layers
        self._instructions = instructions
        self._fallback = fallback

    def of(self, found: Found, materials: Materials) -> ast.Instruction:
        if found.rule == "MissingTimeZones" and not found.path:
            named = [each for each in self._instructions if isinstance(each, ast.Env) and "TZ" in each.span.text]
            return named[-1] if named else self._fallback
        origin = materials.tree(self._layers).origin(found.path)
        span = self._spans.get(self._layers[origin.layer]) if origin is not None else None
        return _node_at(span, self._instructions) or self._fallback


def _kept(finished: Finished, materials: Materials, base_name: str) -> list[Found]:
    """What the checks found, now or before."""
    if not has_indexes(materials, finished.layers):
        return []
    config = finished.config
    asked = config.config
    parts = (asked.env, asked.entrypoint, asked.cmd, asked.working_dir, config.architecture, _release(finished))
    decides = (__version__, " ".join(finished.layers), str(finished.base), base_name, json.dumps(parts))
    key = _key("image", *decides)
    actions = materials.store.actions
    known = actions.get(key)
    if known is not None:
        return [Found(rule, text, _raw(path), tuple(hints)) for rule, text, path, hints in known["found"]]
    reading = Reading(finished, materials)
    found = check_image(reading.subject(base_name))
    reading.keep()
    saved = [[each.rule, each.message, _text(each.path), list(each.hints)] for each in found]
    if reading.is_whole:
        actions.put(key, {"checks": "image"}, {"found": saved})
    return found


def _key(*parts: str) -> Digest:
    return Digest("sha256:" + hashlib.sha256("\0".join(("aerogel checks 1", *parts)).encode()).hexdigest())


def _text(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")


def _raw(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _release(finished: Finished) -> str:
    """Debian's release of the image: by its history, which names the base; 13 for what is not Debian 12."""
    history = " ".join(each.created_by for each in finished.config.history)
    return "12" if "debian12" in history or "bookworm" in history else "13"


class Reading:
    """The ELF files of one image."""

    def __init__(self, finished: Finished, materials: Materials) -> None:
        self._finished = finished
        self._materials = materials
        self._tree: LayerTree = materials.tree(finished.layers)
        self._pieces: dict[tuple[int, int], bytes] = {}
        self._read = 0
        self._given: dict[int, dict[bytes, Dynamic | None]] = {}
        """What was read of the libraries of a layer of the base, now or before."""
        self._new: set[int] = set()
        self.is_whole = True
        """False when something could not be read that may be read another time."""

    def subject(self, base_name: str) -> Subject:
        """What the checks ask."""
        config = self._finished.config
        dynamic: dict[bytes, Dynamic] = {}
        for number in range(self._finished.base, len(self._finished.layers)):
            for path, found in self._of_layer(number).items():
                origin = self._tree.origin(path)
                if origin is not None and origin.layer == number:
                    dynamic[path] = found
        return Subject(
            tree=self._tree,
            config=config.config,
            architecture=config.architecture,
            base=self._finished.base,
            dynamic=dynamic,
            given=self.given,
            linked=self.linked,
            release=_release(self._finished),
            base_name=base_name,
            started=started_paths(config.config, self._tree),
        )

    def _of_layer(self, number: int) -> Mapping[bytes, Dynamic]:
        """The ELF files that a layer brings."""
        layer = self._finished.layers[number]
        key = _key("layer", __version__, layer)
        actions = self._materials.store.actions
        known: dict[str, Any] | None = actions.get(key)
        if known is not None:
            return {_raw(path): Dynamic.loads(saved) for path, saved in known["files"].items()}
        index = self._materials.index(layer)
        places = [
            (offset, entry) for entry, offset in zip(index.entries, index.offsets, strict=True) if is_candidate(entry)
        ]
        found = {
            entry.path: one
            for offset, entry in places[:_MAX_FILES]
            if (one := read_dynamic(self._reader(number, offset, entry.size))) is not None
        }
        saved = {_text(path): one.dumps() for path, one in found.items()}
        if places and not self._piece(number, 0):
            self.is_whole = False
        elif self._read < _MAX_PIECES:
            actions.put(key, {"checks": "layer"}, {"files": saved})
        return found

    def given(self, path: bytes) -> Dynamic | None:
        """What a library of any layer says."""
        origin = self._tree.origin(path)
        if origin is None:
            return None
        number = origin.layer
        if number not in self._given:
            known = self._materials.store.actions.get(self._given_key(number))
            files: dict[str, Any] = known["files"] if known is not None else {}
            self._given[number] = {_raw(name): Dynamic.loads(one) for name, one in files.items()}
        found = self._given[number]
        if path not in found:
            found[path] = read_dynamic(self._reader(number, origin.offset, origin.entry.size))
            self._new.add(number)
        return found[path]

    def _given_key(self, number: int) -> Digest:
        return _key("given", __version__, self._finished.layers[number])

    def keep(self) -> None:
        """Keeps what was read of libraries below, for the next change above."""
        for number in sorted(self._new):
            files = {_text(path): one.dumps() for path, one in self._given[number].items() if one is not None}
            self._materials.store.actions.put(self._given_key(number), {"checks": "given"}, {"files": files})

    def linked(self, path: bytes, names: tuple[bytes, ...]) -> frozenset[bytes] | None:
        """Which functions a program of Go has."""
        reader, entry = self._reader_of(path), self._tree.lookup(path)
        return None if reader is None or entry is None else linked_go_functions(reader, entry.size, names)

    def _reader_of(self, path: bytes) -> Reader | None:
        origin = self._tree.origin(path)
        return None if origin is None else self._reader(origin.layer, origin.offset, origin.entry.size)

    def _reader(self, number: int, offset: int, size: int) -> Reader:
        def read(at: int, length: int) -> bytes:
            length = max(0, min(length, size - at)) if at >= 0 else 0
            start, parts = offset + at, []
            while length:
                piece, skip = divmod(start, _PIECE)
                part = self._piece(number, piece)[skip : skip + length]
                if not part:
                    break
                parts.append(part)
                start, length = start + len(part), length - len(part)
            return b"".join(parts)

        return read

    def _piece(self, number: int, piece: int) -> bytes:
        """A MiB of the tar of a layer; the last few are kept, for files lie one behind the other."""
        key = number, piece
        found = self._pieces.pop(key, None)
        if found is None:
            if self._read >= _MAX_PIECES:
                return b""
            self._read += 1
            found = peek(self._materials, self._finished.layers[number], piece * _PIECE, _PIECE)
        self._pieces[key] = found
        if len(self._pieces) > _KEPT_PIECES:
            del self._pieces[next(iter(self._pieces))]
        return found
