"""From bake files to builds: which files, what they say, and each target as the options of a build.

The files may lie in a repository or behind a URL; then the contexts of targets are relative to that place, and
`cwd://` names the current folder.
Spec: docker's reference of `docker buildx bake`; bake's guide "Remote Bake file definition".
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aerogel.bake.definition import Definition
from aerogel.bake.entries import to_flag
from aerogel.bake.files import DEFAULT_NAMES, define
from aerogel.bake.interpolation import parse_dotenv
from aerogel.bake.model import Target
from aerogel.bake.resolve import LINK, Resolved, resolve
from aerogel.commands.bake_model import Bake
from aerogel.commands.build_model import Build, BuildResult
from aerogel.commands.cache_flags import ELSEWHERE
from aerogel.commands.format import columns
from aerogel.commands.source import read_source
from aerogel.commands.world import World
from aerogel.errors import EXIT_FAILED, EXIT_OK, EXIT_USAGE, AerogelError, Diagnostic, Source, nearest
from aerogel.events import Warned
from aerogel.graph.ops import Git
from aerogel.graph.remote import is_remote, parse_remote
from aerogel.oci.platform import Platform

if TYPE_CHECKING:
    from aerogel.commands.building import Builder
    from aerogel.graph.ops import Http

__all__ = ["Baking", "open_baking"]

_HERE = "cwd://"
_CALLS = {"": "", "build": "", "check": "check", "lint": "check", "outline": "outline", "targets": "targets"}


@contextmanager
def open_baking(options: Bake, world: World) -> Iterator[Baking]:
    """Finds and reads the files. Raises AerogelError `bake.*`, `net.*`, `git.*`."""
    with ExitStack() as stack:
        yield Baking(options, world, stack)


class Baking:
    """The definition and what is asked of it."""

    def __init__(self, options: Bake, world: World, stack: ExitStack) -> None:
        self._options = options
        self._world = world
        words = list(options.targets)
        self._url = words.pop(0) if words and is_remote(words[0]) else ""
        self._base = ""
        """What relative contexts begin with: a repository, or the folder of a definition that came as a tar."""
        command = words.pop(0) if self._url and words and (is_remote(words[0]) or words[0].startswith(_HERE)) else ""
        self._command = command
        self.names = words or ["default"]
        self._environment = world.settings.environment
        built_in = {"BAKE_CMD_CONTEXT": command or _HERE, "BAKE_LOCAL_PLATFORM": str(Platform.host())}
        self._folder: Path | None = None
        """Where the files of a remote definition are."""
        self.definition: Definition = define(
            self._sources(stack),
            self._lookup,
            self._compose_lookup(),
            built_in,
            self._read,
            is_relative=self._is_relative(),
        )

    # Files.

    def _sources(self, stack: ExitStack) -> list[Source]:
        here = self._world.settings.directory
        if not self._url:
            names = self._options.file or self._from_environment() or [n for n in DEFAULT_NAMES if (here / n).is_file()]
            if not names:
                raise AerogelError(
                    "there is no bake file here",
                    code="bake.no-file",
                    exit_status=EXIT_USAGE,
                    hints=[
                        "name one with `-f FILE`; looked for are " + ", ".join(f"`{name}`" for name in DEFAULT_NAMES)
                    ],
                )
            stdin = self._world.streams.stdin
            return [read_source(name.removeprefix(_HERE), here, stdin, "bake.no-file") for name in names]
        folder, single = self._fetched(stack)
        self._folder = folder
        if single is not None:
            return [single]
        names = self._options.file or [name for name in DEFAULT_NAMES if (folder / name).is_file()]
        if not names:
            raise AerogelError(
                f"there is no bake file at `{self._url}`",
                code="bake.no-file",
                exit_status=EXIT_USAGE,
                hints=["name one with `-f FILE`, or one of this folder with `-f cwd://FILE`"],
            )
        stdin = self._world.streams.stdin
        return [
            read_source(name.removeprefix(_HERE), here, stdin, "bake.no-file")
            if name.startswith(_HERE)
            else _inside(folder, name)
            for name in names
        ]

    def _read(self, name: str) -> Source:
        """A file that a bake file names."""
        if self._folder is not None:
            return _inside(self._folder, name)
        return read_source(name, self._world.settings.directory, self._world.streams.stdin, "bake.no-file")

    def _is_relative(self) -> bool:
        """`BUILDX_BAKE_FILE_RELATIVE_PATHS`: contexts are relative to the files, if these are of this host."""
        text = self._environment.get("BUILDX_BAKE_FILE_RELATIVE_PATHS", "").strip()
        if text.lower() in ("", "0", "f", "false"):
            return False
        if text.lower() in ("1", "t", "true"):
            return not self._url
        raise AerogelError(
            f"`BUILDX_BAKE_FILE_RELATIVE_PATHS={text}` is neither `true` nor `false`",
            code="bake.bad-value",
            exit_status=EXIT_USAGE,
            hints=["write `1` for contexts that are relative to the file that names them"],
        )

    def _from_environment(self) -> list[str]:
        """`BUILDX_BAKE_FILE` names files when no `-f` does."""
        text = self._environment.get("BUILDX_BAKE_FILE", "")
        separator = self._environment.get("BUILDX_BAKE_FILE_SEPARATOR") or ":"
        return [part for part in text.split(separator) if part]

    def _fetched(self, stack: ExitStack) -> tuple[Path, Source | None]:
        """The folder of a remote definition, or the one file that it is."""
        from aerogel.commands.remotes import open_remotes
        from aerogel.commands.unpack import is_tar, unpack

        remotes = open_remotes(self._world)
        stack.callback(remotes.close)
        wanted: Http | Git | None = parse_remote(self._url)
        if wanted is None:
            raise AerogelError(
                f"`{self._url}` is not an address that can be read",
                code="bake.no-file",
                exit_status=EXIT_USAGE,
                hints=["give the http(s) address of a bake file or a tar, or of a git repository"],
            )
        if isinstance(wanted, Git):
            self._base = self._url
            return remotes.tree(wanted).path, None
        path = remotes.fetched(wanted).path
        if not is_tar(path):
            return path.parent, Source(wanted.name, path.read_bytes())
        folder = self._world.store.scratch.directory()
        stack.callback(self._world.store.scratch.discard, folder)
        unpack(path, Path(folder), f"`{wanted.name}`")
        self._base = folder
        return Path(folder), None

    def _lookup(self, name: str) -> str | None:
        if name in self._options.var:
            return self._options.var[name]
        if self._environment.get("BUILDX_BAKE_DISABLE_VARS_ENV_LOOKUP", "") in ("1", "true"):
            return None
        return self._environment.get(name)

    def _compose_lookup(self) -> Any:
        """As `_lookup`, and then the `.env` file of this folder."""
        try:
            text = (self._world.settings.directory / ".env").read_text("utf-8")
        except (OSError, UnicodeDecodeError):
            text = ""
        dotenv = parse_dotenv(text, self._lookup)

        def lookup(name: str) -> str | None:
            found = self._lookup(name)
            return dotenv.get(name) if found is None else found

        return lookup

    # Answers.

    def resolved(self) -> Resolved:
        """The targets that were asked for. Raises `bake.*`."""
        options = self._options
        overrides = list(options.overrides)
        overrides += ["*.push=true"] * options.push + ["*.no-cache=true"] * options.no_cache
        overrides += ["*.pull=true"] * options.pull
        for kind, text in (("sbom", options.sbom), ("provenance", options.provenance)):
            if text:
                overrides.append(f"*.attest={_attest(kind, text)}")
        found = resolve(self.definition, self.names, overrides, self._environment)
        epoch = self._environment.get("SOURCE_DATE_EPOCH", "")
        for target in found.targets.values():
            if epoch and "SOURCE_DATE_EPOCH" not in (target.get("args") or {}):
                target.values["args"] = {**(target.get("args") or {}), "SOURCE_DATE_EPOCH": epoch}
        return found

    def printed(self) -> str:
        """The JSON of `--print`."""
        return json.dumps(self.resolved().shown(), indent=2, ensure_ascii=False)

    def listed(self, what: str) -> str:
        """The targets or the variables. Raises `bake.bad-list`."""
        fields = dict(part.partition("=")[::2] if "=" in part else ("type", part) for part in what.split(","))
        kind, form = fields.get("type", ""), fields.get("format", "table")
        if kind not in ("targets", "variables") or form not in ("table", "json") or fields.keys() - {"type", "format"}:
            guess = nearest(kind, ("targets", "variables"))
            raise AerogelError(
                f"`--list {what}`: there is no such list",
                code="bake.bad-list",
                exit_status=EXIT_USAGE,
                hints=[
                    f"did you mean `{guess}`?"
                    if guess and guess != kind
                    else "write `targets`, `variables` or `type=targets,format=json`"
                ],
            )
        rows = self._targets() if kind == "targets" else self._variables()
        if form == "json":
            return json.dumps([_filled(row) for row in rows], indent=2, ensure_ascii=False)
        if kind == "targets":
            return columns(("TARGET", "DESCRIPTION"), [(row["name"], row["description"]) for row in rows])
        table = [(r["name"], r["type"], "<null>" if r["value"] is None else r["value"], r["description"]) for r in rows]
        return columns(("VARIABLE", "TYPE", "VALUE", "DESCRIPTION"), table)

    def _targets(self) -> list[dict[str, Any]]:
        """Names that begin with `_` are private."""
        rows = [
            {"name": name, "description": target.get("description") or ""}
            for name, target in self.definition.targets.items()
        ]
        for name, group in self.definition.groups.items():
            members = ", ".join(sorted(group.targets))
            about = f"{group.description} ({members})" if group.description else members
            rows.append({"name": name, "description": about, "group": True})
        return sorted((row for row in rows if not row["name"].startswith("_")), key=lambda row: str(row["name"]))

    def _variables(self) -> list[dict[str, Any]]:
        rows = [
            {"name": each.name, "description": each.description, "type": each.type, "value": each.value}
            for each in self.definition.variables
        ]
        return sorted(rows, key=lambda row: str(row["name"]))

    @property
    def is_question(self) -> bool:
        """Whether nothing is built."""
        return bool(self._call(None))

    def _call(self, target: Target | None) -> str:
        text = "check" if self._options.check else self._options.call
        if not text and target is not None:
            text = target.get("call") or ""
        method = text.partition(",")[0].removeprefix("method=")
        if method not in _CALLS:
            guess = nearest(method, _CALLS)
            raise AerogelError(
                f"`--call` does not know `{method}`",
                code="build.bad-call",
                exit_status=EXIT_USAGE,
                hints=[f"did you mean `{guess}`?" if guess else "valid are `check`, `outline`, `targets` and `build`"],
            )
        return text if _CALLS[method] else ""

    def answers(self) -> tuple[str, int]:
        """What `--call` says of each target, or the `call` of a target in the files; and the exit status.

        Empty when no target that is asked for is to be answered for.
        """
        from aerogel.commands.calling import call, parse_call

        resolved = self.resolved()
        parts, status = [], EXIT_OK
        for name, target in resolved.targets.items():
            method = self._call(target)
            if not method:
                continue
            options = self.options_of(target, call=method)
            answer = call(parse_call(options), options, self._builder(target, {}, call=method), self._world)
            parts.append(answer.report if len(resolved.targets) == 1 else f"{name}\n{answer.report}")
            status = max(status, answer.status)
        return "\n\n".join(parts), EXIT_FAILED if status else EXIT_OK

    # Builds.

    def build(self) -> dict[str, BuildResult]:
        """Builds all, together. Raises all that a build raises."""
        from aerogel.commands.building import build_together

        resolved = self.resolved()
        self._check_entitlements(resolved)
        builders: dict[str, Builder] = {}

        def builder_of(name: str) -> Builder:
            if name not in builders:
                target = resolved.targets[name]
                linked = {
                    context: builder_of(place.removeprefix(LINK))
                    for context, place in (target.get("contexts") or {}).items()
                    if place.startswith(LINK)
                }
                builders[name] = self._builder(target, linked, name=name if len(resolved.targets) > 1 else "")
            return builders[name]

        wanted = [name for name, target in resolved.targets.items() if not target.is_linked and not self._call(target)]
        made = build_together([builder_of(name) for name in wanted]) if wanted else []
        results = {name: result for name, (result, _) in zip(wanted, made, strict=True)}
        for name, result in results.items():
            builders[name].exporter.write(result)
        if self._options.metadata_file:
            self._write_metadata(builders, results)
        return results

    def _write_metadata(self, builders: Mapping[str, Builder], results: Mapping[str, BuildResult]) -> None:
        from aerogel.commands.exporting import write_whole

        found = {name: json.loads(builders[name].exporter.metadata(result)) for name, result in results.items()}
        write_whole(self._options.metadata_file, json.dumps(found, indent=2, sort_keys=True) + "\n")

    def _builder(self, target: Target, links: Mapping[str, Builder], *, name: str = "", call: str = "") -> Builder:
        from aerogel.commands.building import Builder

        inline = target.get("dockerfile-inline")
        source = None if inline is None else Source(f"dockerfile-inline of {target.name}", inline.encode())
        try:
            return Builder(self.options_of(target, call=call), self._world, name=name, dockerfile=source, links=links)
        except AerogelError as error:
            if error.span is None:
                error.message = f"target `{target.name}`: {error.message}"
            raise

    def options_of(self, target: Target, *, call: str = "") -> Build:
        """The target as the options of `aerogel build`."""
        get = target.get
        context = self._context(get("context") or ".")
        contexts = {
            name: self._context(place) for name, place in (get("contexts") or {}).items() if not place.startswith(LINK)
        }
        more = self._attestations(target)
        return Build(
            context=context,
            file="" if get("dockerfile-inline") is not None else self._dockerfile(context, get("dockerfile") or ""),
            tag=list(get("tags") or ()),
            target=get("target") or "",
            build_arg=_set(get("args")),  # type: ignore[arg-type]  # a map of strings is one of strings or none
            build_context=contexts,
            label=_set(get("labels")),
            annotation=dict(text.partition("=")[::2] for text in get("annotations") or ()),
            platform=",".join(get("platforms") or ()),
            output=[to_flag("output", entry) for entry in get("output") or ()],
            call=call,
            no_cache=bool(get("no-cache")),
            no_cache_filter=list(get("no-cache-filter") or ()),
            pull=bool(get("pull")),
            secret=[to_flag("secret", entry) for entry in get("secret") or ()],
            ssh=[to_flag("ssh", entry) for entry in get("ssh") or ()],
            allow=sorted({*(get("entitlements") or ()), *self._options.allow} & {"network.host", "security.insecure"}),
            network=get("network") or "default",
            add_host=[f"{name}:{address}" for name, address in (get("extra-hosts") or {}).items() if address],
            shm_size=get("shm-size") or "64m",
            ulimit=list(get("ulimits") or ()),
            retry=self._options.retry,
            **more,
        )

    def _attestations(self, target: Target) -> dict[str, Any]:
        """Caches and attestations; what this version of `build` cannot do is told."""
        found: dict[str, Any] = {}
        for name, field in (("cache-from", "cache_from"), ("cache-to", "cache_to"), ("attest", "attest")):
            entries = [entry for entry in target.get(name) or () if not entry.get("disabled")]
            if name == "attest":
                found[field] = [to_flag(name, entry) for entry in target.get(name) or ()]
                continue
            served = [entry for entry in entries if entry.get("type") not in ELSEWHERE]
            found[field] = [to_flag(name, entry) for entry in served]
            for entry in entries:
                if entry not in served:
                    self._ignored(target, name, f"`{entry['type']}` is not spoken; steps are kept in the local store")
        for name in ("resources", "policy"):
            if target.get(name):
                self._ignored(target, name, "it has no effect")
        return found

    def _ignored(self, target: Target, name: str, why: str) -> None:
        message = f"target `{target.name}`: `{name}` is not used: {why}"
        self._world.sink.emit(Warned(Diagnostic(message, code="bake.not-used", span=target.spans.get(name))))

    def _context(self, place: str) -> str:
        """Where a context is, seen from the current folder."""
        if place == "-":
            raise AerogelError(
                "a target cannot have standard input as its context",
                code="bake.stdin",
                exit_status=EXIT_USAGE,
                hints=["name a folder, or use `aerogel build`"],
            )
        if place.startswith(_HERE):
            return place.removeprefix(_HERE) or "."
        special = ("docker-image://", "oci-layout://", LINK)
        if not self._base or is_remote(place) or place.startswith(special) or posixpath.isabs(place):
            return place
        if is_remote(self._base):
            return _below(self._base, place)
        return posixpath.normpath(posixpath.join(self._base, place))

    def _dockerfile(self, context: str, name: str) -> str:
        """Relative to the context when that is a folder of this host."""
        if name.startswith(_HERE):
            return name.removeprefix(_HERE)
        if is_remote(context) or is_remote(name) or posixpath.isabs(name):
            return name
        return posixpath.normpath(posixpath.join(context, name))

    def _check_entitlements(self, resolved: Resolved) -> None:
        """What the files ask for must be allowed on the command line. Raises `bake.not-allowed`."""
        for name, target in resolved.targets.items():
            for wanted in target.get("entitlements") or ():
                if wanted in ("network.host", "security.insecure") and wanted not in self._options.allow:
                    raise AerogelError(
                        f"target `{name}` asks for `{wanted}`, which this run does not allow",
                        code="bake.not-allowed",
                        span=target.spans.get("entitlements") or target.spans.get("network"),
                        exit_status=EXIT_USAGE,
                        hints=[f"if you trust these files, bake with `--allow {wanted}`"],
                    )


def _set(values: Mapping[str, str | None] | None) -> dict[str, str]:
    return {key: value for key, value in (values or {}).items() if value is not None}


def _attest(kind: str, text: str) -> str:
    if text.lower() in ("true", "1"):
        return f"type={kind}"
    return f"type={kind},disabled=true" if text.lower() in ("false", "0") else f"type={kind},{text}"


def _below(url: str, place: str) -> str:
    """A folder of a repository as an address."""
    if posixpath.normpath(place) == ".":
        return url
    address, _, fragment = url.partition("#")
    ref, _, subdir = fragment.partition(":")
    return f"{address}#{ref}:{posixpath.normpath(posixpath.join(subdir, place))}"


def _inside(folder: Path, name: str) -> Source:
    """A file of a definition that others wrote: links in it lead nowhere but into it."""
    import os

    from aerogel.files.host import HostTree

    tree = HostTree(folder)
    try:
        path = tree.resolve(os.fsencode(name).strip(b"/"))
        if tree.lookup(path) is None:
            raise AerogelError(
                f"the definition has no `{name}`",
                code="bake.no-file",
                exit_status=EXIT_USAGE,
                hints=[f"`-f cwd://{name}` is the file of this folder"],
            )
        with os.fdopen(tree.open(path), "rb") as file:
            return Source(name, file.read())
    finally:
        tree.close()


def _filled(row: Mapping[str, Any]) -> dict[str, Any]:
    """As Go leaves empty fields out."""
    return {key: value for key, value in row.items() if key == "name" or value not in ("", None, False)}
