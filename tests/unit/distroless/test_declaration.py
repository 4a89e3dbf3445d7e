"""The text form of a base: what is read, what it inherits, and what is said of faults."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import msgspec
import pytest

from aerogel.distroless.catalogue import built_in, choose, declarations, find_declaration, lookup, tags
from aerogel.distroless.declaration import Declaration, Java, PackageEntry, Part, PathEntry, Slice
from aerogel.distroless.declared import Beside, load_declared
from aerogel.distroless.extend import family, merged
from aerogel.distroless.reading import parse_declaration
from aerogel.distroless.recipe import make_recipe
from aerogel.errors import AerogelError, Source, render

HEAD = "apiVersion: aerogel/v1\nkind: Base\nname: app\n"


def read(text: str, *, head: str = HEAD) -> Declaration:
    return parse_declaration(Source("base.yaml", (head + textwrap.dedent(text)).encode()))[0]


def recipe(text: str, variant: str = "latest", **given):
    whole = family(read(text), lambda name, _: find_declaration(name))
    chosen = {"name": "app", "release": "trixie", "profile": None, "variant": variant, **given}
    return make_recipe(whole, **chosen)


def test_scalars_are_what_they_look_like():
    found = read(
        """
        packages: [no, "1.10", on, {name: libpq5, pin: 17.*}]
        paths:
          - {dir: /a, mode: 0770, owner: 65532}
        image: {env: {VERSION: "3.10", YES: yes}}
        library-cache: true
        """
    )
    assert found.packages == ("no", "1.10", "on", PackageEntry(name="libpq5", pin="17.*"))
    assert found.paths == (PathEntry(dir="/a", mode="0770", owner=65532),)
    assert found.image is not None
    assert found.image.env == {"VERSION": "3.10", "YES": "yes"}
    assert found.library_cache is True


@pytest.mark.parametrize(
    ("text", "code", "expected"),
    [
        (
            "packges: [libpq5]\n",
            "base.field",
            """\
            error: a declaration has no field `packges`
              --> base.yaml:4:1
             4 | packges: [libpq5]
               | ^^^^^^^
            hint: did you mean `packages`?
            """,
        ),
        (
            "packages:\n  - libc6\n  - {nam: libpq5}\n",
            "base.field",
            """\
            error: `packages[1]` has no field `nam`
              --> base.yaml:6:6
             6 |   - {nam: libpq5}
               |      ^^^
            hint: did you mean `name`?
            """,
        ),
        (
            "variants:\n  latest: {}\n  nonroot:\n    image: {entry-point: [/x]}\n",
            "base.field",
            """\
            error: `variants.nonroot.image` has no field `entry-point`
              --> base.yaml:7:13
             7 |     image: {entry-point: [/x]}
               |             ^^^^^^^^^^^
            hint: did you mean `entrypoint`?
            """,
        ),
        (
            "resolve: {elf-closure: maybe}\n",
            "base.field",
            """\
            error: `resolve.elf-closure` cannot be `maybe`
              --> base.yaml:4:24
             4 | resolve: {elf-closure: maybe}
               |                        ^^^^^
            hint: values are `add`, `error`, `off`, `warn`
            """,
        ),
        (
            "timezone: UTC\ntimezone: Europe/Berlin\n",
            "base.syntax",
            """\
            error: `timezone` is said twice
              --> base.yaml:5:1
             5 | timezone: Europe/Berlin
               | ^^^^^^^^
            """,
        ),
        (
            'summary: "\u00fcber" ]\n',
            "base.syntax",
            """\
            error: `base.yaml` is not YAML: expected <block end>, but found ']'
              --> base.yaml:4:17
             4 | summary: "\u00fcber" ]
               |                 ^
            """,
        ),
    ],
)
def test_faults_have_their_place(text: str, code: str, expected: str):
    with pytest.raises(AerogelError) as caught:
        read(text)
    assert caught.value.code == code
    assert caught.value.exit_status == 2
    assert render(caught.value).rstrip() == textwrap.dedent(expected).rstrip()


def test_what_must_be_there():
    with pytest.raises(AerogelError) as caught:
        read("", head="apiVersion: aerogel/v1\nkind: Base\n")
    assert caught.value.message == "the declaration lacks the field `name`"
    with pytest.raises(AerogelError) as caught:
        read("", head="- a\n")
    assert caught.value.message == "`base.yaml` is no declaration of a base: it is no map"


def test_a_text_of_many_aliases_is_refused():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    with pytest.raises(AerogelError) as caught:
        read("\n".join(lines) + "\n")
    assert "too many values" in caught.value.message


def test_merging():
    base = read("packages: [a, b]\nimage: {env: {A: '1', B: '2'}, entrypoint: [/a]}\nresolve: {skip: [x]}\n")
    over = read("packages: [b, c]\nimage: {env: {B: '3'}, entrypoint: [/b]}\nresolve: {skip: [y], recommends: true}\n")
    found = merged(base, over)
    assert found.packages == ("a", "b", "c")
    assert found.image is not None
    assert (found.image.env, found.image.entrypoint) == ({"A": "1", "B": "3"}, ("/b",))
    assert found.resolve is not None
    assert (found.resolve.skip, found.resolve.recommends) == (("x", "y"), True)


def test_own_base():
    found = recipe(
        """
        extends: cc
        packages: [libpq5, {name: libcurl4t64, pin: "8.*"}]
        without: [tzdata-legacy]
        accounts: {users: [{name: app, uid: 10001, home: /home/app}], run-as: app}
        image: {env: {LANG: C.UTF-8}}
        """
    )
    assert {"libpq5", "libcurl4t64", "libstdc++6", "libssl3t64"} <= set(found.packages)
    assert "tzdata-legacy" not in found.packages
    assert found.pins == {"libcurl4t64": "8.*"}
    assert "libgcc-s1" not in found.skip
    assert found.env[-1] == "LANG=C.UTF-8"
    # Not what the variant `latest` of `static` says.
    assert found.user == "10001"
    assert found.workdir == "/"


def test_programs_with_a_list_of_their_own_learn_what_is_trusted_besides():
    """The variables of the base and one's own, which `image.env` can say otherwise; none without an `additional`."""
    text = "extends: nodejs24\ncertificates: {additional: [a.pem], variables: [REQUESTS_CA_BUNDLE]}\n"
    bundle = "/etc/ssl/certs/ca-certificates.crt"
    env = dict(each.split("=") for each in recipe(text).env)
    assert env["NODE_EXTRA_CA_CERTS"] == env["REQUESTS_CA_BUNDLE"] == bundle
    env = dict(each.split("=") for each in recipe(text + "image: {env: {NODE_EXTRA_CA_CERTS: /own}}\n").env)
    assert env["NODE_EXTRA_CA_CERTS"] == "/own"
    assert not any("CA_" in each for each in recipe("extends: nodejs24\n").env)


def test_a_variant_of_ones_own():
    text = """
        extends: static
        variants:
          app: {accounts: {run-as: "10001"}, image: {entrypoint: [/app]}}
          app-debug: {extends: debug, accounts: {run-as: "10001"}}
        """
    assert recipe(text, "app").user == "10001"
    debug = recipe(text, "app-debug")
    assert (debug.user, debug.entrypoint, debug.busybox) == ("10001", ("/busybox/sh",), True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("packages: [{name: a, url: b}]", "an entry of `packages` has one of"),
        ("accounts: {users: [{name: root, uid: 1}]}", "the user `root` is there already"),
        ("accounts: {users: [{name: app, uid: 1}, {name: app, uid: 2}]}", "the user `app` is declared twice"),
        ("accounts: {users: [{name: app, uid: 1, home: app}]}", "the home `app` of the user `app` is no absolute path"),
        ("accounts: {users: [{name: app, uid: 1, comment: 'a:b'}]}", "has a colon or a line end"),
        ("accounts: {run-as: nonrot}", "`run-as` names the user `nonrot`"),
        ("variants: {a: {extends: b}, b: {extends: a}}", "extend each other in a circle"),
        ("variants: {a: {extends: lastest}}", "extends `lastest`, which is not there"),
    ],
)
def test_what_does_not_fit(text: str, message: str):
    with pytest.raises(AerogelError) as caught:
        recipe(f"extends: static\n{text}\n", "a" if "variants" in text else "none")
    assert message in caught.value.message
    assert caught.value.exit_status == 2


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("accounts: {users: [{name: app, uid: 10001}]}", "accounts"),
        ("certificates: {additional: [corp.pem]}", "certificates"),
        ("java: {modules: [java.base]}", "java"),
        ("layers: {strategy: origin, budget: 3}", "layers"),
        ("library-cache: true", "library-cache"),
        ("locales: [de_DE]", "locales"),
        ("slices: {packages: {git: {drop: ['/usr/share/**']}}}", "slices"),
        ("timezone: Europe/Berlin", "timezone"),
    ],
)
def test_what_dpkg_would_leave_out_is_refused(tmp_path: Path, text: str, field: str):
    (tmp_path / "corp.pem").touch()
    (tmp_path / "base.yaml").write_text(f"{HEAD}extends: debian\n{text}\n")
    with pytest.raises(AerogelError) as caught:
        load_declared("base.yaml", Beside(tmp_path)).recipe()
    error = caught.value
    assert (error.code, error.exit_status) == ("base.method", 2)
    assert error.message == f"`{field}` is for bases that are put together from files, and dpkg sets this one up"
    assert error.span is not None
    assert (error.span.line, error.span.column) == (5, 1)


def test_what_dpkg_adds_to(tmp_path: Path):
    text = "extends: debian\npackages: [git]\nprobe: true\npaths: [{dir: /data}]\n"
    (tmp_path / "base.yaml").write_text(HEAD + text)
    made = load_declared("base.yaml", Beside(tmp_path)).recipe()
    assert (made.kind, made.probe, made.paths[0].dir) == ("buildroot", True, "/data")
    assert "git" in made.packages


def test_an_unknown_base():
    with pytest.raises(AerogelError) as caught:
        recipe("extends: pyhton3\n")
    assert caught.value.code == "base.unknown"
    assert caught.value.hints == ("did you mean `python3`?",)


def test_a_circle():
    with pytest.raises(AerogelError) as caught:
        family(read("extends: app\n"), lambda _, one: one)
    assert caught.value.message == "declarations extend each other in a circle: `app` -> `app`"


@pytest.mark.parametrize("name", declarations())
def test_every_tag_of_every_built_in_base_has_a_recipe_of_its_own_name(name: str):
    base = built_in(name)
    repository = base.declaration.names[0] if base.declaration.names else f"aerogel/{name}"
    for tag in tags(name):
        made = lookup(f"{repository}:{tag}")
        assert lookup(made.name) == made
        assert made.packages
        assert made.env[0].startswith("PATH=/usr/local/sbin:")
        assert made.platforms


def test_inline_packages():
    choice = choose("aerogel/python3+libpq5+tzdata:nonroot")
    assert choice is not None
    assert choice.name == "aerogel/python3-debian13+libpq5+tzdata:nonroot"
    assert "libpq5" in choice.recipe().packages
    assert choose("aerogel/python3+:nonroot") is None
    assert choose("aerogel/python3+UPPER") is None
    assert choose("gcr.io/distroless/python3+libpq5") is None


def test_parity_is_a_tag():
    for tag, variant in (("parity", "latest"), ("latest-parity", "latest"), ("debug-nonroot-parity", "debug-nonroot")):
        choice = choose(f"aerogel/static:{tag}")
        assert choice is not None
        assert (choice.variant, choice.profile) == (variant, "parity")
        assert choice.recipe().rules == "parity"
    assert choose("aerogel/static:micro-parity") is None
    assert choose("aerogel/debian:parity") is None


def test_part_alone_says_nothing():
    assert merged(Part(), Part()) == Part()


def guides() -> list[str]:
    text = (Path(__file__).parents[3] / "docs/guides/bases.md").read_text()
    return re.findall(r"(?ms)^```yaml\n(.*?)^```", text)


@pytest.mark.parametrize("block", guides())
def test_the_guide_is_true(block: str):
    read(block, head="" if block.startswith("apiVersion") else HEAD)


def test_null_takes_back_what_is_inherited():
    base = read(
        """
        packages: [libpq5]
        timezone: Europe/Berlin
        image: {entrypoint: [/x], env: {LANG: C.UTF-8, A: b}, labels: {a/b.c: d}, workdir: /srv}
        java: {version: 21, languages: [de]}
        accounts: {run-as: nonroot}
        slices: {packages: {libssl3.0: {drop: [/a], keep: [/b]}}}
        platforms: [linux/amd64]
        releases: {trixie: {}}
        variants: {latest: {}, small: {accounts: {run-as: "7"}, image: {workdir: /small}}}
        """
    )
    over = read(
        """
        extends: above
        packages: null
        timezone: ~
        image: {entrypoint: null, env: {A: null, B: c}, labels: {a/b.c: null}}
        java: {languages: null}
        slices: {packages: {libssl3.0: {drop: null}}}
        sources: {debian: {snapshot: null}}
        platforms: null
        variants: {small: {image: {workdir: null}, accounts: null}}
        """
    )
    whole = family(over, lambda *_: base)
    assert whole.platforms == ()
    found = make_recipe(whole, name="app", release="trixie", profile=None, variant="latest")
    assert (found.packages, found.timezone, found.entrypoint, found.labels) == ((), "", (), {})
    assert found.env == ("LANG=C.UTF-8", "B=c")
    assert found.java == Java(version=21)
    assert found.slices == {"libssl3.0": Slice(keep=("/b",))}
    assert (found.user, found.workdir) == ("65532", "/srv")
    small = make_recipe(whole, name="app", release="trixie", profile=None, variant="small")
    assert (small.user, small.workdir) == ("", "")
    # As JSON has it, which is how built-in declarations are kept; what was not inherited may be taken back too.
    assert msgspec.json.decode(msgspec.json.encode(over), type=Declaration) == over
    assert ("java", "languages") in over.unset
    assert recipe("extends: static\nreleases: {trixie: {}}\njava: null\n") == recipe(
        "extends: static\nreleases: {trixie: {}}\n"
    )


def test_null_of_a_field_that_is_not_there():
    with pytest.raises(AerogelError, match="`image` has no field `enrtypoint`"):
        read("image: {enrtypoint: null}\n")
    with pytest.raises(AerogelError, match=r"`unset` names `image\.volume`, which is no field") as caught:
        recipe("extends: static\nimage: {workdir: /}\nunset: [[image, volume]]\n")
    assert caught.value.hints == ("did you mean `volumes`?",)


def test_null_removes_a_variant():
    one = read("extends: static\nvariants: {debug: null, debug-nonroot: null, small: {timezone: Etc/UTC}}\n")
    whole = family(one, lambda name, _: find_declaration(name))
    assert whole.variants == ("latest", "nonroot", "small")
    assert whole.part("trixie", "micro", "nonroot").accounts.run_as == "65532"
    # One that comes back is a variant of its own: nothing of the removed one counts.
    again = read("extends: static\nvariants: {debug: {timezone: Etc/UTC}}\n")
    lower = read("extends: static\nvariants: {debug: null}\n")
    whole = family(again, lambda name, one: lower if one is again else find_declaration(name))
    assert whole.variants == ("latest", "nonroot", "debug-nonroot", "debug")
    assert whole.part("trixie", "micro", "debug").busybox is None
    assert whole.part("trixie", "micro", "debug").timezone == "Etc/UTC"
    assert whole.part("trixie", "micro", "debug-nonroot").accounts.run_as == "65532"
    # What another one extends is missed, and a misspelt one is told.
    whole = family(lower, lambda name, _: find_declaration(name))
    with pytest.raises(AerogelError, match="the variant `debug-nonroot` of `app` extends `debug`, which is not there"):
        whole.part("trixie", "micro", "debug-nonroot")
    with pytest.raises(AerogelError, match="`app` removes the variant `debgu`, which is not there") as caught:
        family(read("extends: static\nvariants: {debgu: null}\n"), lambda name, _: find_declaration(name))
    assert caught.value.hints == ("did you mean `debug`?",)
