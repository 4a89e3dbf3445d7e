"""The options and the results of `aerogel bake`; what is done with them is in `bake` and `baking`."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Struct

from aerogel.commands.build_model import BuildResult
from aerogel.commands.result import Result
from aerogel.flag import Flag

__all__ = ["Bake", "BakeReport", "BakeResult"]


class Bake(Struct, frozen=True, kw_only=True):
    """Build the targets of a bake file or of the `build` sections of a compose file.

    Without `-f`: compose.yaml, docker-bake.json, docker-bake.hcl and their overrides, of the current folder.
    """

    targets: Annotated[
        tuple[str, ...],
        Flag(
            "Targets and groups, or patterns; first perhaps the URL of a definition", positional=True, metavar="TARGET"
        ),
    ] = ()
    file: Annotated[
        list[str], Flag("Bake or compose file, `-` for standard input", short="f", metavar="FILE", complete="file")
    ] = []
    overrides: Annotated[
        list[str],
        Flag("Another value: `TARGET.KEY=VALUE`, the target a pattern", name="set", metavar="TARGET.KEY=VALUE"),
    ] = []
    var: Annotated[dict[str, str], Flag("Value of a variable")] = {}
    is_print: Annotated[
        bool, Flag("Build nothing; print what would be built as JSON", name="print", group="Questions")
    ] = False
    listing: Annotated[
        str,
        Flag(
            "Build nothing; list `targets` or `variables`; `type=targets,format=json` for data",
            name="list",
            metavar="WHAT",
            group="Questions",
        ),
    ] = ""
    check: Annotated[bool, Flag("Build nothing; check the Dockerfiles as `aerogel lint` does", group="Questions")] = (
        False
    )
    call: Annotated[
        str,
        Flag(
            "Build nothing and answer for each target: `check`, `outline`, `targets`",
            metavar="METHOD",
            group="Questions",
        ),
    ] = ""
    push: Annotated[bool, Flag("Send the images to the registries of their names", group="Output")] = False
    load: Annotated[bool, Flag("Accepted for docker's sake: images always go to the local store", group="Output")] = (
        False
    )
    metadata_file: Annotated[
        str, Flag("Write the digests of each target as JSON to a file", metavar="FILE", group="Output")
    ] = ""
    no_cache: Annotated[bool, Flag("Run every step again", group="Cache")] = False
    pull: Annotated[bool, Flag("Compose or fetch base images anew", group="Cache")] = False
    allow: Annotated[
        tuple[str, ...], Flag("Let steps use `network.host` or `security.insecure`", metavar="WHAT", group="Steps")
    ] = ()
    retry: Annotated[
        bool, Flag("Let the step that failed go on from what it had written; see `aerogel debug last`", group="Steps")
    ] = False
    on_error: Annotated[
        Literal["fail", "debug"],
        Flag("When a step fails: `fail`, or `debug`, open a shell there if this is a terminal", group="Steps"),
    ] = "fail"
    sbom: Annotated[str, Flag("For every target: `true`, `false` or attributes", metavar="WHAT", group="Output")] = ""
    provenance: Annotated[
        str, Flag("For every target: `true`, `false` or attributes", metavar="WHAT", group="Output")
    ] = ""
    bases: Annotated[str | None, Flag("`auto`, `builtin` or `registry`", setting="bases", group="Host")] = None
    mirror: Annotated[str | None, Flag("Debian mirror", setting="mirror", metavar="URL", group="Host")] = None
    insecure_registry: Annotated[
        str | None,
        Flag(
            "Registries that may be spoken to without TLS",
            setting="insecure_registry",
            metavar="HOST[:PORT],...",
            group="Host",
        ),
    ] = None
    isolation: Annotated[
        str | None, Flag("How steps are isolated; see `aerogel doctor`", setting="isolation", group="Host")
    ] = None
    jobs: Annotated[int | None, Flag("Steps that run at the same time", short="j", setting="jobs", group="Host")] = None


class BakeResult(Result, frozen=True, kw_only=True):
    """What was built, by target."""

    targets: dict[str, BuildResult]
    report: str = ""
    """What is said of targets with a `call`, which are not built."""
    status: int = 0

    def text(self) -> str:
        lines = [f"{name} {built.image_id}" for name, built in self.targets.items()]
        return "\n".join([*([self.report, ""] if self.report else []), *lines])

    def exit_status(self) -> int:
        return self.status


class BakeReport(Result, frozen=True, kw_only=True):
    """What is said when nothing is built."""

    report: str
    status: int = 0

    def text(self) -> str:
        return self.report

    def exit_status(self) -> int:
        return self.status
