"""The options and the result of `aerogel build`; what is done with them is in `build` and `building`."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Struct

from aerogel.commands.result import Result
from aerogel.export.verdict import Difference
from aerogel.flag import Flag
from aerogel.oci.digest import Digest
from aerogel.oci.types import Descriptor

__all__ = ["Build", "BuildResult", "CallResult", "StepResult", "VerifyResult"]


class Build(Struct, frozen=True, kw_only=True):
    """Build an image from a Dockerfile."""

    context: Annotated[
        str,
        Flag(
            "What COPY and ADD read: a folder, a tar, `-` (a tar or a Dockerfile on standard input), or the URL of a "
            "tar, of a Dockerfile or of a git repository (`URL#ref:subdir`)",
            positional=True,
            complete="directory",
            metavar="PATH",
        ),
    ]
    file: Annotated[
        str,
        Flag(
            "Dockerfile, `-` for standard input, or a URL; default: `PATH/Dockerfile`",
            short="f",
            complete="file",
            metavar="FILE",
        ),
    ] = ""
    tag: Annotated[list[str], Flag("Name of the image, `name[:tag]`", short="t", metavar="NAME")] = []
    target: Annotated[str, Flag("Stage to build instead of the last one", metavar="STAGE")] = ""
    build_arg: Annotated[dict[str, str | None], Flag("Value of an ARG; without `=`, from the environment")] = {}
    build_context: Annotated[
        dict[str, str],
        Flag(
            "A context by name: a folder, a tar, a URL, a git repository, `docker-image://NAME` or "
            "`oci-layout://FOLDER[:TAG|@DIGEST]`"
        ),
    ] = {}
    label: Annotated[dict[str, str], Flag("Label of the image")] = {}
    annotation: Annotated[dict[str, str], Flag("Annotation of the manifest, or with `index:KEY` of the index")] = {}
    platform: Annotated[str, Flag("Platform of the image, or several with commas", metavar="OS/ARCH,...")] = ""
    output: Annotated[
        list[str],
        Flag(
            "What else to write: `FOLDER` or `type=local` (the files), `-` or `type=tar` (the files as a tar), "
            "`type=oci`, `type=docker`, `type=image`, `type=registry`, each with `,key=value`",
            short="o",
            group="Output",
        ),
    ] = []
    compression: Annotated[str, Flag("`gzip`, `zstd`, `uncompressed`, `fast` or `small`", group="Output")] = "gzip"
    squash: Annotated[
        str,
        Flag(
            "One layer of all; `--squash=base` leaves the base's layers, `--squash=STAGE` those up to a stage",
            bare="all",
            metavar="STAGE",
            group="Output",
        ),
    ] = ""
    sbom: Annotated[
        str,
        Flag("Tell what the image holds: `true`, `false` or `format=cyclonedx-json`", bare="true", group="Output"),
    ] = ""
    provenance: Annotated[
        str,
        Flag("Tell how the image was made: `true`, `false`, `mode=max`, `builder-id=URI`", bare="true", group="Output"),
    ] = ""
    attest: Annotated[
        list[str], Flag("`type=sbom` or `type=provenance`, with `,key=value`", metavar="TYPE", group="Output")
    ] = []
    iidfile: Annotated[str, Flag("Write the image id to a file", metavar="FILE", group="Output")] = ""
    metadata_file: Annotated[str, Flag("Write digests as JSON to a file", metavar="FILE", group="Output")] = ""
    quiet: Annotated[bool, Flag("Show no progress; print the image id", short="q", group="Output")] = False
    load: Annotated[bool, Flag("Accepted for docker's sake: images always go to the local store", group="Output")] = (
        False
    )
    push: Annotated[bool, Flag("Send the image to the registries of its names", group="Output")] = False
    rm: Annotated[bool, Flag("Accepted for docker's sake: steps leave no containers", hidden=True)] = True
    force_rm: Annotated[bool, Flag("Accepted for docker's sake: steps leave no containers", hidden=True)] = True
    check: Annotated[bool, Flag("Build nothing; check the Dockerfile as `aerogel lint` does")] = False
    call: Annotated[
        str,
        Flag(
            "Build nothing and answer: `check`, `outline` (what the target takes) or `targets`; `,format=json` for data",
            metavar="METHOD",
        ),
    ] = ""
    timestamps: Annotated[
        str,
        Flag(
            "Times of files: `image`, that of the image (SOURCE_DATE_EPOCH, else the newest commit, else 1980-01-01), or "
            "`keep`, those they have",
            metavar="WHICH",
            group="Reproducibility",
        ),
    ] = "image"
    keep_volatile: Annotated[
        bool,
        Flag("Leave logs and caches in the layers that differ from run to run", group="Reproducibility"),
    ] = False
    verify: Annotated[
        bool,
        Flag("Build twice, the second time as on another machine, and compare", group="Reproducibility"),
    ] = False
    no_cache: Annotated[bool, Flag("Run every step again", group="Cache")] = False
    no_cache_filter: Annotated[list[str], Flag("Run every step of these stages again", group="Cache")] = []
    cache_from: Annotated[
        list[str],
        Flag(
            "Results of steps from elsewhere: `NAME`, `type=local,src=FOLDER` or `type=s3,bucket=NAME`",
            metavar="NAME|TYPE",
            group="Cache",
        ),
    ] = []
    cache_to: Annotated[
        list[str],
        Flag(
            "Where to put the results of the steps: `NAME`, `type=local,dest=FOLDER`, `type=s3,bucket=NAME` or `type=inline`, "
            "with `,mode=min|max`",
            metavar="NAME|TYPE",
            group="Cache",
        ),
    ] = []
    pull: Annotated[bool, Flag("Compose or fetch base images anew", group="Cache")] = False
    secret: Annotated[
        list[str],
        Flag("Secret for `RUN --mount=type=secret`: `id=NAME,src=FILE` or `id=NAME,env=VARIABLE`", group="Steps"),
    ] = []
    ssh: Annotated[
        list[str], Flag("ssh agent for `RUN --mount=type=ssh`: `default` or `ID=SOCKET`", metavar="ID", group="Steps")
    ] = []
    allow: Annotated[
        list[str], Flag("Let steps use `network.host` or `security.insecure`", metavar="WHAT", group="Steps")
    ] = []
    network: Annotated[str, Flag("Network of RUN steps: `default`, `host`, `none` or `sandbox`", group="Steps")] = (
        "default"
    )
    add_host: Annotated[list[str], Flag("A line for /etc/hosts", metavar="NAME:ADDRESS", group="Steps")] = []
    shm_size: Annotated[str, Flag("Size of /dev/shm", metavar="SIZE", group="Steps")] = "64m"
    ulimit: Annotated[
        list[str], Flag("Limit such as `nofile=1024:2048`", metavar="NAME=SOFT[:HARD]", group="Steps")
    ] = []
    memory: Annotated[
        str,
        Flag("Most memory of one step; needs a control group of one's own", short="m", metavar="SIZE", group="Steps"),
    ] = ""
    cpus: Annotated[str, Flag("Most processors of one step, such as `1.5`", metavar="NUMBER", group="Steps")] = ""
    retry: Annotated[
        bool, Flag("Let the step that failed go on from what it had written; see `aerogel debug last`", group="Steps")
    ] = False
    on_error: Annotated[
        Literal["fail", "debug"],
        Flag("When a step fails: `fail`, or `debug`, open a shell there if this is a terminal", group="Steps"),
    ] = "fail"
    timeout: Annotated[str, Flag("Longest time of one step: `90s`, `10m`, `2h`", metavar="TIME", group="Steps")] = ""
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
    ca: Annotated[
        str | None, Flag("Certificates that steps trust: `auto`, `none`, FILE", setting="ca", group="Host")
    ] = None
    isolation: Annotated[
        str | None, Flag("How steps are isolated; see `aerogel doctor`", setting="isolation", group="Host")
    ] = None
    jobs: Annotated[int | None, Flag("Steps that run at the same time", short="j", setting="jobs", group="Host")] = None


class StepResult(Struct, frozen=True, kw_only=True):
    """One step: what it was and whether it was RAN, CACHED, REUSED or SKIPPED."""

    stage: str
    name: str
    status: str


class BuildResult(Result, frozen=True, kw_only=True):
    image_id: Digest
    """Digest of the config: docker's image id."""
    descriptor: Descriptor
    references: tuple[str, ...]
    platform: str
    size: int
    """Bytes of all blobs of the image."""
    layers: tuple[Descriptor, ...]
    steps: tuple[StepResult, ...]
    stages: dict[str, int]
    """Bytes of the uncompressed layers of each stage that was built, by stage name."""

    def text(self) -> str:
        return self.image_id


class CallResult(Result, frozen=True, kw_only=True):
    """What is said about the Dockerfile when nothing is built (`--check`, `--call`)."""

    report: str
    status: int

    def text(self) -> str:
        return self.report

    def exit_status(self) -> int:
        return self.status


class VerifyResult(Result, frozen=True, kw_only=True):
    """What two builds of the same gave."""

    is_reproducible: bool
    image_id: str
    digest: str
    second_digest: str
    difference: Difference | None = None

    def text(self) -> str:
        if self.difference is None:
            return f"reproducible: two builds gave `{self.digest}`"
        return "\n".join(_lines(self.difference))

    def exit_status(self) -> int:
        return 0 if self.is_reproducible else 1


def _lines(found: Difference) -> list[str]:
    where = f"layer {found.layer}: `{found.step}`" if found.step else f"layer {found.layer}" if found.layer else ""
    lines = [
        f"not reproducible: two builds differ first in {found.what}" + (f" of `{found.path}`" if found.path else "")
    ]
    lines += [f"  in      {where}"] if where else []
    lines += [f"  first   {found.first}", f"  second  {found.second}"] if found.first or found.second else []
    lines += [f"  likely  {found.cause}"] if found.cause else []
    return lines
