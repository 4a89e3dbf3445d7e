"""`aerogel build`: from a Dockerfile and a context to an image."""

from __future__ import annotations

from aerogel.commands.build_model import Build, BuildResult, CallResult, StepResult, VerifyResult
from aerogel.commands.world import World
from aerogel.errors import AerogelError

__all__ = ["ABSENT", "EXAMPLES", "Build", "BuildResult", "CallResult", "StepResult", "VerifyResult", "run", "text"]

EXAMPLES = (
    ("build the Dockerfile of this folder", "aerogel build -t app ."),
    ("only up to one stage, with a build argument", "aerogel build --target test --build-arg VERSION=1.2 ."),
    ("write an OCI archive", "aerogel build -o type=oci,dest=app.tar ."),
    ("take the files out of the last stage", "aerogel build -o out ."),
    ("see whether it is the same when it is built again", "aerogel build --verify ."),
    ("look around where a step fails, then go on", "aerogel build --on-error=debug . || aerogel build --retry ."),
    ("send it to a registry", "aerogel build --push -t registry.example/team/app ."),
)


ABSENT = {
    ("--memory-swap", "--cpu-shares", "--cpu-period", "--cpu-quota", "-c"): (
        "`--memory` and `--cpus` hold steps; `systemd-run --user --scope -p MemorySwapMax=0 aerogel build ...` the build"
    ),
    ("--cpuset-cpus", "--cpuset-mems"): "start it with `taskset -c 0,1 aerogel build ...`",
    ("--security-opt",): "`--allow security.insecure` is for `RUN --security=insecure`",
    ("--builder",): "there is one builder, this host; leave it out",
    ("--compress",): "the context is read in place; leave it out",
    ("--cgroup-parent",): "start it with `systemd-run --user --scope --slice=NAME aerogel build ...`",
}
"""What to use instead of docker's flags that `aerogel build` does not have."""


def run(options: Build, world: World) -> BuildResult | CallResult | VerifyResult:
    """Builds the image and writes the outputs. Raises AerogelError for everything that a user can cause."""
    from aerogel.commands.building import Builder
    from aerogel.commands.calling import call, parse_call

    wanted = parse_call(options)
    builder = Builder(options, world)
    if wanted.method != "build":
        return call(wanted, options, builder, world)
    if options.verify:
        from aerogel.commands.verifying import check_repeatable, verify

        check_repeatable(options)
        result, image = builder.build()
        builder.exporter.write(result)
        return verify(options, world, result, image)
    try:
        result, _ = builder.build()
    except AerogelError as error:
        if options.on_error == "debug":
            from aerogel.commands.debug_last import debug_failed

            debug_failed(error, world)
        raise
    builder.exporter.write(result)
    return result


def text(options: Build, result: BuildResult | CallResult | VerifyResult) -> str:
    """The image id, unless standard output is an archive."""
    from aerogel.export.output import parse_output

    if isinstance(result, BuildResult) and any(parse_output(each).dest == "-" for each in options.output):
        return ""
    return result.text()
