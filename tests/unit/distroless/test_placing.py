"""Paths, accounts, time zone, certificates and file rules of a declaration, in an image made of packages of the test."""

from __future__ import annotations

import pytest
from test_compose import base_files, content, make  # noqa: F401 - a fixture

from aerogel.distroless.accounts import Group, User
from aerogel.distroless.compose import compose
from aerogel.distroless.declaration import PathEntry, Slice
from aerogel.distroless.layout import Item, Layout
from aerogel.distroless.locales import directory_of, parse_locale
from aerogel.distroless.placing import place_paths
from aerogel.distroless.recipe import Recipe
from aerogel.errors import AerogelError
from aerogel.files.entry import DIR, REG, SYM, Entry

FILES = {"etc/motd": b"hi", "usr/bin/tool": b"tool", "usr/share/zoneinfo/Europe/Berlin": b"TZif", "usr/lib/x": None}


def composed(make, *paths: PathEntry, more=None, read=None, **given):  # noqa: F811
    recipe = Recipe(name="t", suite="trixie", packages=("base-files",), paths=paths, **given)
    packages = [base_files(make, {**FILES, **(more or {})})]
    found = compose(recipe, packages, "amd64", None, read or (lambda name: name.encode()))
    return {item.entry.path.decode(): item for item in found.items}


def test_paths(make):  # noqa: F811
    found = composed(
        make,
        PathEntry(dir="/data", owner="app", mode="0770"),
        PathEntry(dir="/data/in/", owner="1:nobody", mode=755),
        PathEntry(file="/bin/run", source="run.py", mode="0o755"),
        PathEntry(file="/etc/app.conf", text="a=1\n"),
        PathEntry(file="/etc/motd", text="mine\n", owner=5),
        PathEntry(link="/usr/bin/alias", to="tool"),
        PathEntry(remove="/usr/bin/tool"),
        users=(User("app", 1000, 1001, "/home/app"),),
        groups=(Group("app", 1001),),
    )
    assert found["data"].entry[:5] == (b"data", DIR, 0o770, 1000, 1001)
    assert found["data/in"].entry[2:5] == (0o755, 1, 65534)
    assert found["usr/bin/run"].entry[1:3] == (REG, 0o755)
    assert content(found["usr/bin/run"]) == b"run.py"
    assert content(found["etc/app.conf"]) == b"a=1\n"
    assert content(found["etc/motd"]) == b"mine\n"
    assert found["etc/motd"].entry[3:5] == (5, 5)
    assert found["usr/bin/alias"].entry.kind == SYM
    assert "usr/bin/tool" not in found
    assert content(found["etc/passwd"]).endswith(b"app:x:1000:1001::/home/app:/sbin/nologin\n")
    assert content(found["etc/group"]).endswith(b"app:x:1001:\n")
    assert found["home/app"].entry[2:5] == (0o700, 1000, 1001)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (PathEntry(dir="data"), "`data` is no absolute path"),
        (PathEntry(dir="/a/../b"), "is no absolute path without `.` and `..`"),
        (PathEntry(dir="/"), "is no absolute path"),
        (PathEntry(), "an entry of `paths` has one of"),
        (PathEntry(dir="/a", file="/b"), "an entry of `paths` has one of"),
        (PathEntry(link="/a"), "the link `/a` has no `to`"),
        (PathEntry(file="/a"), "the file `/a` has either `text` or `source`"),
        (PathEntry(file="/a", text="", source="b"), "the file `/a` has either `text` or `source`"),
        (PathEntry(dir="/a", text="b"), "`text` means nothing for `dir: /a`"),
        (PathEntry(link="/a", to="b", owner="root"), "`owner` means nothing for `link: /a`"),
        (PathEntry(dir="/a", mode="rwx"), "`mode` of `/a` is no permission in octal: `rwx`"),
        (PathEntry(dir="/a", owner="ap"), "`owner` of `/a` names the user `ap`, whom nothing declares"),
        (PathEntry(remove="/nothing"), "there is nothing at `/nothing` to remove"),
        (PathEntry(dir="/etc/motd"), "the packages have something else there"),
        (PathEntry(file="/etc", text="a"), "the packages have a directory there"),
        (PathEntry(link="/etc", to="/srv"), "`/etc` is to be a link, and a directory with something in it is there"),
        (PathEntry(file="/out/a", text="a"), "lies below the link `/out`, which leads to no directory"),
    ],
)
def test_paths_that_do_not_hold(make, entry: PathEntry, message: str):  # noqa: F811
    with pytest.raises(AerogelError) as caught:
        composed(make, entry, more={"out": ("->", "/nowhere")})
    assert message in caught.value.message
    assert caught.value.code == "base.path"


def test_a_path_below_a_link_lands_where_it_leads(make):  # noqa: F811
    more = {"srv": None, "www": ("->", "srv"), "loop": ("->", "loop")}
    assert "srv/index" in composed(make, PathEntry(file="/www/index", text=""), more=more)
    with pytest.raises(AerogelError):
        composed(make, PathEntry(file="/loop/index", text=""), more=more)


@pytest.mark.parametrize("there", [PathEntry(link="/old", to="/etc"), PathEntry(file="/old", text="")])
def test_what_takes_the_place_of_a_folder_of_an_image(there: PathEntry):
    """It hides the folder; a whiteout below a link would hide what the link leads to."""
    paths = {b"etc": DIR, b"etc/a": REG, b"old": DIR, b"old/a": REG, b"old/b": DIR, b"old/b/c": REG}
    layout = Layout({path: Item(Entry(path, kind, 0o755)) for path, kind in paths.items()})
    place_paths(layout, [PathEntry(remove="/old"), there], (), (), lambda _: b"")
    assert [each.entry.path for each in layout.ordered()] == [b"old"]
    layout.write(b"etc", b"")
    with pytest.raises(
        AerogelError, match="`/etc` is a directory with files in the image, and something else is to take"
    ):
        layout.ordered()
    layout.items[b"etc"] = layout.below[b"etc"]
    place_paths(layout, [PathEntry(remove="/old"), PathEntry(dir="/old")], (), (), lambda _: b"")
    assert [each.entry.path for each in layout.ordered()] == [b"old", b"old/.wh.a", b"old/.wh.b"]


def test_time_zone(make):  # noqa: F811
    found = composed(make, timezone="Europe/Berlin")
    assert found["etc/localtime"].entry.link == b"/usr/share/zoneinfo/Europe/Berlin"
    assert content(found["etc/timezone"]) == b"Europe/Berlin\n"
    for zone in ("Europe/Brlin", "../../etc/passwd", "Europe"):
        with pytest.raises(AerogelError) as caught:
            composed(make, timezone=zone)
        assert caught.value.code == "base.timezone"
    with pytest.raises(AerogelError) as caught:
        composed(make, timezone="Europe/Brlin")
    assert caught.value.hints == ("did you mean `Europe/Berlin`?",)


def test_additional_certificates_come_last_and_have_hash_links(make):  # noqa: F811
    pem = certificate()
    found = composed(make, certificates=("corp.pem",), hash_links=True, read=lambda _: pem)
    assert content(found["etc/ssl/certs/ca-certificates.crt"]) == pem
    assert found["usr/lib/ssl/cert.pem"].entry.link == b"/etc/ssl/certs/ca-certificates.crt"
    assert [path for path in found if path.startswith("etc/ssl/certs/") and path.endswith(".0")]
    with pytest.raises(AerogelError) as caught:
        composed(make, certificates=("corp.pem",), read=lambda _: b"no certificate")
    assert caught.value.message == "`corp.pem` holds no PEM certificate"


def certificate() -> bytes:
    from datetime import UTC, datetime

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Corp")])
    made = x509.CertificateBuilder(name, name, key.public_key(), 1)
    made = made.not_valid_before(datetime(2020, 1, 1, tzinfo=UTC)).not_valid_after(datetime(2040, 1, 1, tzinfo=UTC))
    return made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def test_own_rules_for_files(make):  # noqa: F811
    more = {"usr/share/man/man1/tool.1": b"", "usr/lib/drop/a": b"", "usr/lib/drop/b": b""}
    own = Slice(drop=("/usr/lib/drop",), keep=("/usr/lib/drop/b", "/usr/share/man/man1/tool.1"), why="small")
    found = composed(make, more=more, slices={"base-files": own})
    assert "usr/lib/drop/a" not in found
    assert {"usr/lib/drop/b", "usr/share/man/man1/tool.1"} <= set(found)
    record = content(found["var/lib/dpkg/status.d/base-files"])
    assert b"declared" in record
    without = composed(make, more=more)
    assert "usr/share/man/man1/tool.1" not in without
    assert "usr/lib/drop/a" in without


@pytest.mark.parametrize(
    ("name", "definition", "charset", "folder"),
    [
        ("de_DE", "de_DE", "UTF-8", "de_DE.utf8"),
        ("de_DE.UTF-8", "de_DE", "UTF-8", "de_DE.utf8"),
        ("de_DE.ISO-8859-15@euro", "de_DE@euro", "ISO-8859-15", "de_DE.iso885915@euro"),
        ("C.UTF-8", "C", "UTF-8", "C.utf8"),
        ("sr_RS@latin", "sr_RS@latin", "UTF-8", "sr_RS.utf8@latin"),
    ],
)
def test_names_of_locales(name: str, definition: str, charset: str, folder: str):
    assert parse_locale(name) == (definition, charset)
    assert directory_of(name) == folder
    with pytest.raises(AerogelError) as caught:
        parse_locale(f"/{name}")
    assert caught.value.code == "base.locale"
