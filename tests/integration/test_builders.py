"""Programs that one base builds and another runs, with no registry: the examples, and that the two bases fit."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import NamedTuple

import pytest
from process import ROOT, Aerogel

pytestmark = [pytest.mark.host, pytest.mark.network, pytest.mark.slow]


class Built(NamedTuple):
    example: str
    words: tuple[str, ...]
    """Of `aerogel run`, behind the image."""
    expected: str
    options: tuple[str, ...] = ()
    """Of `aerogel build`."""


EXAMPLES = {
    "python": Built(
        "dsn-python",
        ("postgresql://ada@db.example/orders",),
        "dbname: orders\nhost: db.example\nuser: ada\nlibpq: 17\n",
    ),
    "node": Built("server-node", ("/app/server.js", "--once"), "200 Ada\n"),
    "go": Built("greeter-go", (), "Hello from nonroot (65532), 13:00 CET, by Go alone\n"),
    "cgo": Built("greeter-go", (), "Hello from nonroot (65532), 13:00 CET, by glibc 2.41\n", ("--target", "with-c")),
    "maven": Built("server-java", ("--once",), "200 Hello, Ada!\n"),
    "gradle": Built("server-java", ("--once",), "200 Hello, Ada!\n", ("-f", "examples/server-java/Dockerfile.gradle")),
    "cmake": Built("shapes-cmake", ("2",), "circle 12.6, square 4.0\n"),
    "dotnet": Built("money-dotnet", ("1234.5",), "de-DE 1.234,50 €\nen-US $1,234.50\nja-JP ￥1,235\n"),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_example(aerogel: Aerogel, name: str) -> None:
    one = EXAMPLES[name]
    words = ("build", f"examples/{one.example}", *one.options, "--json", "--progress=plain")
    done = aerogel(*words, "-t", f"built-{name}")
    assert not re.search("(?m)^warning", done.stderr)
    if name == "python":  # the first of all: nothing has composed its build root before
        assert re.search(
            r"(?m)^#\d+ setting up \d+ packages, which can take a minute; the result is kept$", done.stderr
        )
    built = json.loads(done.stdout)
    assert aerogel("run", "--rm", f"built-{name}", *one.words).stdout == one.expected
    again = json.loads(aerogel(*words).stdout)
    assert again["image_id"] == built["image_id"]
    assert {step["status"] for step in again["steps"]} <= {"CACHED", "SKIPPED"}


def packages(aerogel: Aerogel, folder: Path, name: str) -> dict[str, str]:
    """Versions by name, as the image itself states them."""
    (folder / "Dockerfile").write_text(f"FROM {name}\n")
    aerogel("build", "-q", "-t", "looked-at", str(folder))
    return {
        one["name"]: one["version"] for one in json.loads(aerogel("sbom", "--json", "looked-at").stdout)["packages"]
    }


@pytest.mark.parametrize(
    ("builder", "runtime", "both"),
    [
        ("python3-build", "python3", {"libc6", "python3.13-minimal", "libpython3.13-stdlib", "libssl3t64"}),
        ("nodejs24-build", "nodejs24", {"libc6", "libstdc++6", "libssl3t64"}),
        ("go-build", "base", {"libc6", "libssl3t64"}),
        ("java-build", "java21", {"libc6", "openjdk-21-jre-headless"}),
        ("cc-build", "cc", {"libc6", "libstdc++6", "libgomp1"}),
    ],
)
def test_what_builds_is_of_the_versions_that_run(
    aerogel: Aerogel, tmp_path: Path, builder: str, runtime: str, both: set[str]
) -> None:
    """Every package that is in both images has one version, the libraries and the runtime itself among them."""
    building, running = (packages(aerogel, tmp_path, f"aerogel/{name}") for name in (builder, runtime))
    shared = building.keys() & running.keys()
    assert both <= shared
    assert {name: building[name] for name in shared} == {name: running[name] for name in shared}


def test_a_module_with_c_is_compiled_by_npm(aerogel: Aerogel, tmp_path: Path) -> None:
    """The headers of Node.js are in the build base, so that node-gyp asks nobody for them."""
    (tmp_path / "binding.gyp").write_text('{"targets": [{"target_name": "sum", "sources": ["sum.c"]}]}\n')
    (tmp_path / "package.json").write_text('{"name": "sum", "version": "1.0.0", "gypfile": true}\n')
    (tmp_path / "sum.c").write_text(
        """\
#include <node_api.h>
static napi_value sum(napi_env env, napi_callback_info info) {
    size_t count = 2;
    double a = 0, b = 0;
    napi_value words[2], result;
    napi_get_cb_info(env, info, &count, words, NULL, NULL);
    napi_get_value_double(env, words[0], &a);
    napi_get_value_double(env, words[1], &b);
    napi_create_double(env, a + b, &result);
    return result;
}
NAPI_MODULE_INIT() {
    napi_value function;
    napi_create_function(env, "sum", NAPI_AUTO_LENGTH, sum, NULL, &function);
    return function;
}
"""
    )
    (tmp_path / "Dockerfile").write_text(
        """\
FROM aerogel/nodejs24-build AS build
COPY . /app
RUN --network=none cd /app && npm install --offline --no-audit
FROM aerogel/nodejs24:nonroot
COPY --from=build /app/build/Release/sum.node /app/
CMD ["-p", "require('/app/sum.node')(40, 2)"]
"""
    )
    aerogel("build", "-q", "-t", "sum", str(tmp_path))
    assert aerogel("run", "--rm", "sum").stdout == "42\n"


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_guide_shows_what_is_built_here(name: str) -> None:
    one = EXAMPLES[name]
    path = one.options[1] if one.options[:1] == ("-f",) else f"examples/{one.example}/Dockerfile"
    assert f"```dockerfile\n{(ROOT / path).read_text()}```\n" in (ROOT / "docs/guides/runtimes.md").read_text()


def test_packages_that_a_step_cannot_install_are_added_in_from(aerogel: Aerogel, tmp_path: Path) -> None:
    """What the error says to write is a base that has them."""
    dockerfile = tmp_path / "Dockerfile"
    dockerfile.write_text("FROM gcr.io/distroless/base:nonroot AS app\nFROM app\nRUN apt-get install -y libpq5\n")
    done = aerogel("build", "-q", str(tmp_path), check=False)
    assert done.returncode == 1
    said = done.stderr
    assert "hint: this base has no shell and no apt: write `FROM aerogel/base+libpq5:nonroot`, which " in said
    assert "`FROM debian AS build`, `RUN apt-get update && apt-get install -y libpq5`" in said
    found = packages(aerogel, tmp_path, "aerogel/base+libpq5:nonroot")
    assert {"libpq5", "libssl3t64"} <= found.keys()
