"""`aerogel test`: structure tests of an image, as container-structure-test runs them, without Docker."""

from __future__ import annotations

from typing import Annotated

from msgspec import Struct

from aerogel.commands.result import Result
from aerogel.commands.world import World
from aerogel.errors import EXIT_FAILED, EXIT_OK, EXIT_USAGE, AerogelError
from aerogel.flag import Flag
from aerogel.structure import report
from aerogel.structure.report import Verdict

__all__ = ["EXAMPLES", "Test", "TestResult", "run", "text"]

EXAMPLES = (
    ("does the image hold what it should?", "aerogel test app --config structure.yaml"),
    ("for CI", "aerogel test app -c base.yaml -c app.yaml --junit report.xml"),
    ("another platform, by qemu", "aerogel test gcr.io/distroless/cc --platform linux/arm64 -c cc.yaml"),
)


class Test(Struct, frozen=True, kw_only=True):
    """Run structure tests on an image.

    The files are container-structure-test's, YAML or JSON, schema 2.0.0. Each command runs in a fresh copy of the
    image, several at a time; files are read from the layers. The exit status is 1 when a test fails.
    """

    __test__ = False  # for pytest, which takes the name for its own

    image: Annotated[str, Flag("Name or id of an image", positional=True, metavar="IMAGE")]
    config: Annotated[tuple[str, ...], Flag("File with tests", short="c", metavar="FILE", complete="file")] = ()
    junit: Annotated[str, Flag("Write a report in JUnit's form", metavar="FILE", complete="file")] = ""
    timeout: Annotated[int, Flag("Seconds after which a command is killed, and its test fails", metavar="SECONDS")] = (
        600
    )
    quiet: Annotated[bool, Flag("Show only tests that fail", short="q")] = False
    platform: Annotated[str | None, Flag("Platform of the image", metavar="OS/ARCH", setting="platform")] = None
    bases: Annotated[str | None, Flag("Where an image comes from that is not here", setting="bases")] = None


class TestResult(Result, frozen=True, kw_only=True):
    __test__ = False

    image: str
    platform: str
    passed: int
    failed: int
    tests: tuple[Verdict, ...]

    def exit_status(self) -> int:
        return EXIT_FAILED if self.failed else EXIT_OK


def run(options: Test, world: World) -> TestResult:
    """Runs every test. Raises `test.config`, `test.unreadable`, `test.none`, and what finding the image raises."""
    from aerogel.commands.source import read_source
    from aerogel.commands.structure import run_tests
    from aerogel.structure.config import read_config

    if not options.config:
        raise AerogelError(
            "no file with tests is named",
            code="test.none",
            hints=["`--config FILE` names one; the guide `docs/guides/structure-tests.md` shows how it looks"],
            exit_status=EXIT_USAGE,
        )
    here = world.settings.directory
    configs = [
        read_config(read_source(name, here, world.streams.stdin, "test.unreadable", "name a YAML or JSON file"))
        for name in options.config
    ]
    if not sum(config.size for config in configs):
        raise AerogelError(
            "the files have no test",
            code="test.none",
            hints=["tests are under `commandTests`, `fileExistenceTests`, `fileContentTests`, `metadataTest`"],
            exit_status=EXIT_USAGE,
        )
    platform, verdicts = run_tests(options.image, configs, world, timeout_s=options.timeout)
    if options.junit:
        _write(world, options.junit, report.junit(verdicts, options.image))
    failed = sum(not one.passed for one in verdicts)
    return TestResult(
        image=options.image,
        platform=platform,
        passed=len(verdicts) - failed,
        failed=failed,
        tests=tuple(verdicts),
    )


def text(options: Test, result: TestResult) -> str:
    return report.text(result.tests, result.image, quiet=options.quiet)


def _write(world: World, path: str, content: str) -> None:
    from aerogel.store.disk import disk_errors

    target = world.settings.directory / path
    with disk_errors(str(target.parent)):
        target.write_text(content, encoding="utf-8")
