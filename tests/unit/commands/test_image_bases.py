"""Declarations that extend an image: of a registry in memory, of files, of the store; packages from a small signed archive."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import tarfile
from pathlib import Path

from loop_registry import LoopRegistry
from own_bases import AMD64, Archive, Base, layers
from own_images import BOTH, OS_RELEASE, STATUS, certificate, config, declared, image
from small_elf import shared_library

from aerogel.distroless import ldcache


def test_a_base_on_an_image_of_a_registry(base: Base, archive: Archive, registry: LoopRegistry, ground: str) -> None:
    """One layer of ours on its layers; what it has installed comes from it, and its settings are kept or overridden."""
    more = "image: {cmd: [b], env: {B: null, C: '3'}, labels: {x: y}}\naccounts: {users: [{name: app, uid: 10001}]}\n"
    base.write("base.yaml", declared(f"docker://{ground}", "packages: [tool]\n" + more))
    base.on_another_machine("second")
    base("base", "build", *AMD64, "-t", "one", "-o", "type=local,dest=out")
    below = json.loads(registry.blobs["team/ground"][manifest(registry, "linux/amd64")["config"]["digest"]])
    found = layers(base, "one")
    assert found[:-1] == below["rootfs"]["diff_ids"]
    assert len(found) == len(below["rootfs"]["diff_ids"]) + 1
    # Its blob is the one of the registry, nothing was made anew of it.
    blobs = {each["digest"] for each in manifest(registry, "linux/amd64")["layers"]}
    store = base.folder / "second/data"
    assert all(list(store.rglob(each.removeprefix("sha256:"))) for each in blobs)
    out = base.folder / "out"
    assert (out / "usr/bin/tool").read_text() == "tool 1.0\n"
    assert sorted(path.name for path in (out / "var/lib/dpkg/status.d").iterdir()) == [
        "base-files", "ca-certificates", "libtool1", "media-types", "netbase", "tool", "tzdata", "tzdata-legacy",
    ]  # fmt: skip
    passwd = (out / "etc/passwd").read_text()
    assert passwd.endswith("nonroot:/sbin/nologin\napp:x:10001:10001::/nonexistent:/sbin/nologin\n")
    assert passwd.count("root:x:0:0:") == 1
    made = config(base, "one")
    assert (made["User"], made["WorkingDir"]) == ("65532", "/home/nonroot")
    assert (made["Entrypoint"], made["Cmd"], made["Labels"]) == (["/usr/bin/first"], ["b"], {"x": "y"})
    assert [each for each in made["Env"] if each[:2] in ("A=", "B=", "C=")] == ["A=1", "C=3"]
    # Only what differs is in the layer.
    base("save", "-o", "one.tar", "one")
    made_by = base.data("history", "one")["layers"]
    assert "aerogel: mine:latest, composed from debian trixie, 1 package on docker://" in json.dumps(made_by)
    # The whole for scanners, and what each command says.
    rows = {one["name"]: one["version"] for one in base.data("sbom", "one")["packages"]}
    assert {"tool", "libtool1", "tzdata"} <= rows.keys()
    shown = base.data("base", "show", *AMD64, "--packages", "base.yaml")["packages"]
    assert {one["name"]: one["suite"] for one in shown}["libtool1"] == "image"
    assert [one["name"] for one in shown].count("libtool1") == 1
    assert base("base", "why", *AMD64, "base.yaml", "libtool1") == f"libtool1 1.0: docker://{ground} has libtool1"
    assert base("base", "why", *AMD64, "base.yaml", "tool") == "tool 1.0: asked for by the base"


def manifest(registry: LoopRegistry, platform: str) -> dict:
    """That of the image for a platform."""
    index = json.loads(registry.manifests["team/ground"]["1"][1])
    architecture = platform.partition("/")[2]
    digest = next(each["digest"] for each in index["manifests"] if each["platform"]["architecture"] == architecture)
    return json.loads(registry.manifests["team/ground"][digest][1])


def test_a_lock_holds_the_image(base: Base, archive: Archive, registry: LoopRegistry, ground: str) -> None:
    base.write("base.yaml", declared(f"docker://{ground}"))
    base("base", "lock", "--platform", "all")
    assert set(base.lock["platforms"]) == {"linux/amd64", "linux/arm64"}
    kept = {name: one["image"] for name, one in base.lock["platforms"].items()}
    assert kept["linux/amd64"]["digest"] != kept["linux/arm64"]["digest"]
    assert kept["linux/amd64"]["index"] == kept["linux/arm64"]["index"]
    assert kept["linux/amd64"]["packages"]["libtool1"] == "1.0"
    base.on_another_machine("second")
    base("base", "build", *BOTH, "--locked", "-t", "one")
    expected = layers(base, "one")
    shutil.copy(base.folder / "base.lock.json", base.folder / "old.lock.json")
    # The tag moves: the lock holds, and `update` follows it.
    archive.put("libtool1", "1.1", entries=(("./usr/lib/libtool.so.1", b"newer\n"),))
    archive.publish()
    base("base", "build", *BOTH, "--push", "--pull", "-t", ground, "ground.yaml:nonroot")
    base.on_another_machine("third")
    base("base", "build", *AMD64, "--locked", "-t", "two")
    assert layers(base, "two") == expected
    base("base", "vendor")
    assert (base.folder / "vendor/images/index.json").is_file()
    base("base", "update", "--security-only")
    assert {name: one["image"] for name, one in base.lock["platforms"].items()} == kept
    found = base.data("base", "update", "--dry-run")["changes"]
    moved = {(one["name"], one["kind"]) for one in found if one["platform"] == "linux/amd64"}
    assert moved == {("image:libtool1", "newer"), (f"docker://{ground}", "moved")}
    base("base", "update")
    assert base.lock["platforms"]["linux/amd64"]["image"]["digest"] != kept["linux/amd64"]["digest"]
    said = base("base", "diff", "old.lock.json", "base.lock.json")
    assert "image:libtool1" in said
    assert f"docker://{ground}" in said
    # Nobody answers any more: what lies beside the lock is enough.
    shutil.copy(base.folder / "old.lock.json", base.folder / "base.lock.json")
    registry.manifests.clear()
    archive.server.files.clear()
    base.on_another_machine("fourth")
    base("base", "build", *AMD64, "--locked", "-t", "two")
    assert layers(base, "two") == expected
    shutil.rmtree(base.folder / "vendor/images")
    base.on_another_machine("fifth")
    base("base", "build", *AMD64, "--locked", status=1)
    assert (
        f"error: the registry has the locked image of `docker://{ground}` no more: `{kept['linux/amd64']['index']}`"
        in base.said
    )
    assert "hint: lock the image of today: `aerogel base update`" in base.said
    assert "--> base.yaml:4:" in base.said


def test_a_damaged_image_in_the_folder_is_not_taken(base: Base, ground: str) -> None:
    base.write("base.yaml", declared(f"docker://{ground}"))
    base("base", "lock", *AMD64)
    base("base", "vendor")
    blobs = [path for path in (base.folder / "vendor/images/blobs/sha256").iterdir() if path.read_bytes()[:1] != b"{"]
    good = blobs[0].read_bytes()
    blobs[0].write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    base.on_another_machine("second")
    base("base", "build", *AMD64, "--locked", status=1)
    assert f"{blobs[0].name}" in base.said
    assert "--> base.yaml:4:" in base.said
    base("base", "vendor")
    assert blobs[0].read_bytes() == good


def test_images_of_this_machine(base: Base, ground: str) -> None:
    """Layouts, archives and names of the store; another image in their place is noticed, with a lock an error."""
    base("pull", ground)
    base("copy", ground, "oci:sub/layout:1")
    base("save", "-o", "image.tar", ground)
    base("tag", ground, "kept")
    expected = None
    for text in ("oci:sub/layout:1", "oci-archive:image.tar", "docker-archive:image.tar", "store:kept", ground):
        base.write("base.yaml", declared(text))
        base("base", "build", *AMD64, "-t", "one")
        assert f"1 package on {text}" in base.said
        expected = expected or layers(base, "one")
        assert layers(base, "one") == expected
    # A file is named as seen from the declaration, wherever that is extended from.
    base.write("sub/base.yaml", declared("oci:layout:1"))
    base.write("base.yaml", declared("sub/base.yaml", "packages: [media-types]\n"))
    base("base", "build", *AMD64, "-t", "two")
    assert layers(base, "two") == expected
    for number, text in enumerate(("oci:sub/layout", "store:kept")):
        base.write("base.yaml", declared(text))
        base("base", "lock", *AMD64)
        base("base", "build", *AMD64, "--locked")
        base.write("Dockerfile", f"FROM {ground}\nENV X=y{number}\n")
        shutil.rmtree(base.folder / "sub/layout")
        base("build", *AMD64, "-t", "kept", "-o", "type=image", "-o", "type=oci,dest=sub/layout,tar=false", ".")
        base("base", "build", *AMD64, "--locked", status=1)
        assert f"error: `{text}` is not the image that was locked" in base.said
        assert "hint: if it was changed on purpose, lock it: `aerogel base update`" in base.said
        base("base", "update")
        base("base", "build", *AMD64, "--locked", "-t", "one")
        assert f"X=y{number}" in config(base, "one")["Env"]


def test_images_that_do_not_fit(base: Base, archive: Archive, registry: LoopRegistry, ground: str) -> None:
    def refused(extends: str, *said: str, rest: str = "packages: [tool]\n", status: int = 1, words=AMD64) -> None:
        base.write("base.yaml", declared(extends, rest))
        base("base", "build", *words, status=status)
        for each in said:
            assert each in base.said
        assert "Traceback" not in base.said
        assert "--> base.yaml:" in base.said

    refused("dcoker://a/b:1", "error: `dcoker://a/b:1` begins with no known word", "`docker://a/b:1`", status=2)
    refused("docker:a/b", "error: `docker:a/b` names no registry", "hint: write `docker://a/b`", status=2)
    refused("docker://a/B", "a repository is lower case", status=2)
    refused("'oci-archive:'", "names no file", status=2)
    refused("oci:none", "error: `none` cannot be read: no such file or directory", status=2)
    refused("cc:nonroot", "error: there is no built-in base `cc:nonroot`", status=2)
    refused("store:nobody", "error: there is no image `nobody` in the local store")
    refused(
        f"docker://{registry.host}/team/ground:9",
        f"error: image `{registry.host}/team/ground:9`",
        f"did you mean `{ground}`?",
    )
    refused(
        f"docker://{ground}",
        "has no image for `linux/s390x`",
        "hint: it has `linux/amd64`",
        words=("--platform", "linux/s390x"),
    )
    refused(f"docker://{ground}", "is Debian trixie, and the packages are taken from bookworm", "write `releases: {trixie: {}}`",
            rest="releases: {bookworm: {}}\npackages: [tool]\n", status=2)  # fmt: skip
    refused(
        f"docker://{ground}",
        "error: `method` is dpkg, which sets up a root of its own",
        rest="method: dpkg\n",
        status=2,
    )
    refused(f"docker://{ground}", "names the user `noonroot`, whom neither the declaration nor the image has",
            "did you mean `nonroot`?", rest="accounts: {run-as: noonroot}\n", status=2)  # fmt: skip
    archive.put("newer", Depends="libtool1 (>= 2)")
    archive.publish()
    base.on_another_machine("second")
    refused(
        f"docker://{ground}",
        "`newer` needs `libtool1 (>= 2)`",
        "libtool1 1.0 amd64 is installed already",
        rest="packages: [newer]\n",
    )
    refused(
        f"docker://{ground}",
        "has libtool1 1.0, which does not fit the pin `2.*`",
        rest="packages: [{name: libtool1, pin: '2.*'}]\n",
    )
    # A declaration that goes round, and an image that was made from the declaration which extends it.
    base.write("other.yaml", declared("./base.yaml"))
    refused("./other.yaml", "declarations extend each other in a circle", status=2)
    base("pull", ground)
    base("tag", ground, "again")
    base.write("base.yaml", declared("store:again"))
    base("base", "build", *AMD64, "-t", "again")
    refused(
        "store:again", "the image `store:again` was made from `base.yaml`: it would be put on top of itself", status=2
    )


def test_images_that_others_made(base: Base, archive: Archive) -> None:
    """dpkg's own database; no list of packages; another system, another architecture, a damaged list."""
    files = {
        "etc/os-release": OS_RELEASE,
        "var/lib/dpkg/status": STATUS,
        "var/lib/dpkg/info/libtool1.list": b"/.\n/usr/lib/libtool.so.1\n",
    }
    files |= {
        "etc/passwd": b"root:x:0:0:Big Boss:/root:/bin/bash\nwww:x:33:33::/srv:/bin/sh",
        "etc/group": b"root:x:0:\nwww:x:33:\n",
    }
    image(base, "debian-like", files)
    archive.put("needs", Depends="libc6 (>= 2.41), libc6-abi (= 2.41), libtool1")
    archive.publish()
    paths = "paths: [{dir: /data, owner: www}]\naccounts: {run-as: www}\n"
    base.write("base.yaml", declared("store:debian-like", f"packages: [needs]\n{paths}"))
    base("base", "build", *AMD64, "-t", "one", "-o", "type=local,dest=out")
    out = base.folder / "out"
    assert [path.name for path in (out / "var/lib/dpkg/status.d").iterdir()] == ["needs"]
    assert (out / "var/lib/dpkg/status").read_bytes() == STATUS
    lines = (out / "etc/passwd").read_text().splitlines()
    assert lines[:2] == ["root:x:0:0:Big Boss:/root:/bin/bash", "www:x:33:33::/srv:/bin/sh"]
    assert [one.partition(":")[0] for one in lines[2:]] == ["nobody", "nonroot"]
    assert config(base, "one")["User"] == "33"
    names = [one["name"] for one in base.data("sbom", "one")["packages"]]
    assert sorted(names) == ["libc6", "libtool1", "needs"]
    base("base", "why", *AMD64, "base.yaml", "libtol1", status=1)
    assert "did you mean `libtool1`?" in base.said
    base.write("base.yaml", declared("store:debian-like", "accounts: {users: [{name: www, uid: 7}]}\n"))
    base("base", "build", *AMD64, status=2)
    assert "error: the image has the user `www` already, with 33:33" in base.said
    # A file of a package is not written over, one of nobody is.
    archive.put("clash", entries=(("./usr/lib/libtool.so.1", b"other\n"), ("./etc/motd", b"ours\n")))
    archive.publish()
    files |= {"usr/lib/libtool.so.1": b"library\n", "etc/motd": b"theirs\n"}
    image(base, "debian-like", files)
    base.write("base.yaml", declared("store:debian-like", "packages: [clash]\n"))
    base("base", "build", *AMD64, "--pull", status=1)
    assert "`/usr/lib/libtool.so.1` of the package `clash` is of the package `libtool1` in the image" in base.said
    base.write(
        "base.yaml",
        declared(
            "store:debian-like",
            "packages: [clash]\nslices: {clash: {drop: [/usr/lib/*]}}\n".replace(
                "{clash:", "{packages: {clash:"
            ).replace("]}}", "]}}}"),
        ),
    )
    base("base", "build", *AMD64, "-o", "type=local,dest=out2")
    assert (base.folder / "out2/etc/motd").read_bytes() == b"ours\n"
    assert base("base", "why", *AMD64, "base.yaml", "libtool.so.1").splitlines()[0] == (
        "/usr/lib/libtool.so.1 is of libtool1 1.0: store:debian-like has libtool1"
    )
    assert base("base", "why", *AMD64, "base.yaml", "/etc/passwd") == (
        "/etc/passwd is of the image store:debian-like, and of no package"
    )
    # Nothing is known of it: all that is needed comes, and that is said.
    image(base, "bare", {"app": b"program\n"})
    base.write("base.yaml", declared("store:bare"))
    base("base", "build", *AMD64, "-t", "two")
    assert "the image `store:bare` has no list of packages: nothing counts as installed in it" in base.said
    assert {one["name"] for one in base.data("sbom", "two")["packages"]} == {"tool", "libtool1"}
    for name, changed, said, status in (
        ("etc/os-release", b'ID=alpine\nPRETTY_NAME="Alpine Linux v3.22"\n', "is Alpine Linux v3.22, not Debian", 2),
        ("var/lib/dpkg/status", STATUS.replace(b"amd64", b"arm64"), "has packages for arm64, and is wanted for amd64", 2),
        ("var/lib/dpkg/status", b"Package: a\n<html>\n", "the packages of the image `store:odd` cannot be read: `/var/lib/dpkg/status`: line 2", 1),
        ("etc/os-release", b"ID=debian\nVERSION_ID=11\nVERSION_CODENAME=bullseye\n", "is Debian bullseye, and the packages are taken from trixie", 2),
    ):  # fmt: skip
        image(base, "odd", files | {name: changed})
        base.write("base.yaml", declared("store:odd"))
        base("base", "build", *AMD64, status=status)
        assert said in base.said
    base("base", "build", "--platform", "linux/arm64", status=1)
    assert "image `store:odd` is for `linux/amd64`, not for `linux/arm64`" in base.said


def test_credentials_and_policies_are_those_of_from(
    base: Base, registry: LoopRegistry, ground: str, monkeypatch
) -> None:
    base.write("base.yaml", declared(f"docker://{ground}"))
    registry.auth = "basic"
    base("base", "build", *AMD64, status=4)
    assert "401" in base.said
    monkeypatch.setenv("DOCKER_CONFIG", str(base.folder / "docker"))
    auth = {"auths": {registry.host: {"auth": "YW15Om9wZW4tc2VzYW1l"}}}
    base.write("docker/config.json", json.dumps(auth))
    base("base", "build", *AMD64, "-t", "one")
    assert "open-sesame" not in base.said
    base.write("aerogel.toml", f'[signatures]\n"{registry.host}" = "reject"\n')
    base.on_another_machine("second")
    base("base", "build", *AMD64, status=1)
    assert "may not be used" in base.said


def test_one_platform_of_several_is_shown(base: Base, ground: str) -> None:
    base("base", "build", *BOTH, "-t", "both", "ground.yaml")
    found = json.loads(base("inspect", "both"))
    assert [one["Architecture"] for one in found] == ["amd64", "arm64"]
    assert json.loads(base("inspect", "--platform", "linux/arm64", "both")) == found[1:]
    base("inspect", "--platform", "linux/s390x", "both", status=1)
    assert "hint: it has `linux/amd64`, `linux/arm64`" in base.said
    base("base", "build", *AMD64, "-t", "one", "ground.yaml")
    base("inspect", "--platform", "linux/arm64", "one", status=1)
    assert "error: image `one` is for `linux/amd64`, not for `linux/arm64`" in base.said
    shown = json.loads(base("inspect", "--platform", "linux/arm64", "aerogel/static"))
    assert [one["Architecture"] for one in shown] == ["arm64"]


def test_files_of_the_image_are_added_to_replaced_or_removed(base: Base, archive: Archive) -> None:
    """The bundle of certificates grows, links lead on, what is removed is hidden, and the layer has nothing else."""
    first, second = certificate("First"), certificate("Second")
    files = {
        "etc/os-release": OS_RELEASE,
        "etc/ssl/certs/ca-certificates.crt": first,
        "etc/motd": b"theirs\n",
        "etc/nsswitch.conf": b"hosts: dns\n",
        "opt/old/a/b": b"1\n",
        "opt/old/c": b"2\n",
        "lib/x86_64-linux-gnu/libold.so.1": b"old\n",
        "var/lib/dpkg/status": STATUS,
    }
    image(base, "below", files)
    base.write("corp.pem", first + second)
    archive.put("linked", entries=(("./lib/x86_64-linux-gnu/libnew.so.1", b"new\n"), ("./usr/share/linked", b"x\n")))
    archive.publish()
    text = (
        "packages: [linked]\ncertificates: {additional: [corp.pem], hash-links: true}\npaths: [{remove: /opt/old}, "
        '{remove: /etc/motd}, {file: /etc/nsswitch.conf, text: "hosts: dns\\n"}, {link: /opt/new, to: /etc}]\n'
    )
    base.write("base.yaml", declared("store:below", text))
    base("base", "build", *AMD64, "-t", "one", "-o", "type=oci,dest=out,tar=false")
    with tarfile.open(fileobj=io.BytesIO(top_layer(base.folder / "out"))) as tar:
        names = {each.name: each for each in tar}
        bundle = tar.extractfile("etc/ssl/certs/ca-certificates.crt").read()
    assert bundle.startswith(first)
    assert bundle.count(b"BEGIN CERTIFICATE") == 3  # the file of both is added, as the second is new
    links = [each for each in names.values() if each.issym() and each.linkname == "ca-certificates.crt"]
    assert len(links) == 2
    assert {"opt/.wh.old", "etc/.wh.motd", "opt/new", "usr/share/linked"} <= names.keys()
    # `/lib` is a directory of its own there, and stays one; what is the same is not written again.
    assert "lib/x86_64-linux-gnu/libnew.so.1" in names
    assert "etc/nsswitch.conf" not in names
    assert not {"lib", "etc/os-release"} & {one for one, each in names.items() if not each.isdir()}
    base("build", *AMD64, "-o", "type=local,dest=whole", "-f", str(base.write("D", "FROM one\n")), ".")
    whole = base.folder / "whole"
    assert not (whole / "etc/motd").exists()
    assert not (whole / "opt/old").exists()
    assert (whole / "lib/x86_64-linux-gnu/libold.so.1").read_bytes() == b"old\n"
    base.write("base.yaml", declared("store:below", "paths: [{remove: /opt/odl}]\n"))
    base("base", "build", *AMD64, status=2)
    assert "error: there is nothing at `/opt/odl` to remove" in base.said


def test_folders_of_the_image_that_are_links(base: Base, archive: Archive) -> None:
    """What lies behind them counts as there: certificates stay trusted, libraries in the loader's file stay in it."""
    first, second = certificate("First"), certificate("Second")
    old = ldcache.Library(b"libold.so.1", b"/opt/tool/lib/libold.so.1", 0x303, big_endian=False)
    gone = old._replace(path=b"/opt/tool/lib/libgone.so.1")
    files = {
        "etc/os-release": OS_RELEASE,
        "etc/ld.so.cache": ldcache.write_cache([old, gone]),
        "etc/passwd": "root:x:0:0::/root:/bin/sh\nodd:x:²:0::/:/bin/sh\nwide:x:{}:0::/:/bin/sh\n".format(
            "9" * 5000
        ).encode(),
        "etc/group": "root:x:0:\nodd:x:²:\n".encode(),
        "opt/ssl/certs/ca-certificates.crt": first,
        "opt/tool-1/lib/libold.so.1": b"old\n",
        "opt/tool-1/lib/deep/a": b"a\n",
        "srv/\udcff/a": b"a\n",
        "var/lib/dpkg/status": STATUS,
    }
    links = {"etc/ssl": b"../opt/tool/lib/deep/../../../ssl", "opt/tool": b"tool-1", "data": b"srv/\xff"}
    image(base, "linked", files, links=links)
    base.write("corp.pem", second)
    library = shared_library(wide=True, order="<", machine=62)
    archive.put("new", entries=(("./usr/lib/x86_64-linux-gnu/libx.so.1", library),))
    archive.publish()
    text = "packages: [new]\ncertificates: {additional: [corp.pem]}\npaths: [{file: /data/b, text: b}]\n"
    base.write("base.yaml", declared("store:linked", text))
    base("base", "build", *AMD64, "-t", "one", "-o", "type=oci,dest=out,tar=false")
    with tarfile.open(fileobj=io.BytesIO(top_layer(base.folder / "out"))) as tar:
        found = {each.name: tar.extractfile(each).read() for each in tar if each.isfile()}
    assert found["opt/ssl/certs/ca-certificates.crt"] == first + second
    paths = {one.path for one in ldcache.read_cache(found["etc/ld.so.cache"])}
    assert paths == {b"/opt/tool/lib/libold.so.1", b"/usr/lib/x86_64-linux-gnu/libx.so.1"}
    assert found["srv/\udcff/b"] == b"b"


def top_layer(folder: Path) -> bytes:
    """The plain tar of the last layer of the only image of an OCI layout."""
    blobs = folder / "blobs/sha256"
    index = json.loads((folder / "index.json").read_bytes())
    found = json.loads((blobs / index["manifests"][0]["digest"].removeprefix("sha256:")).read_bytes())
    if "manifests" in found:
        found = json.loads((blobs / found["manifests"][0]["digest"].removeprefix("sha256:")).read_bytes())
    return gzip.decompress((blobs / found["layers"][-1]["digest"].removeprefix("sha256:")).read_bytes())
