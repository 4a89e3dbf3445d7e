"""Layers and builds that attack: names that climb, whiteouts of what is outside, attributes of overlays, links, races."""

from __future__ import annotations

import io
import os
import resource
import shutil
import subprocess
import tarfile
import threading

import pytest
from process import Aerogel
from small_image import HEAD

from aerogel.errors import AerogelError
from aerogel.sandbox.spec import Rootfs

pytestmark = pytest.mark.host("busybox")

FILE, LINK, HARD, FOLDER, CHAR, BLOCK, PIPE = (
    tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE,
)  # fmt: skip
OUT = "CANARY"
"""Stands for the canary's path."""
LAYERS = {
    "a name with dots": [("../../canary/new", FILE, "")],
    "a name with dots inside": [("a/../../../canary/new", FILE, "")],
    "an absolute name": [(f"{OUT}/new", FILE, "")],
    "through an absolute link": [("out", LINK, OUT), ("out/new", FILE, "")],
    "through a link with dots": [("out", LINK, "../../canary"), ("out/new", FILE, "")],
    "a folder over a link": [("out", LINK, OUT), ("out", FOLDER, ""), ("out/secret", FILE, "")],
    "a link in a link": [("a", LINK, "b"), ("b", LINK, OUT), ("a/new", FILE, "")],
    "a hard link outside": [("stolen", HARD, f"{OUT}/secret")],
    "a hard link with dots": [("stolen", HARD, "../../canary/secret")],
    "a hard link through a link": [("out", LINK, OUT), ("stolen", HARD, "out/secret"), ("stolen", FILE, "")],
    "a hard link to itself": [("x", HARD, "x")],
    "a whiteout of the parent": [(".wh...", FILE, "")],
    "a whiteout of dots": [("a", FOLDER, ""), ("a/.wh...", FILE, "")],
    "a whiteout without a name": [(".wh.", FILE, "")],
    "a whiteout through a link": [("out", LINK, OUT), ("out/.wh.secret", FILE, "")],
    "an opaque link": [("out", LINK, OUT), ("out/.wh..wh..opq", FILE, "")],
    "a whiteout that is a folder": [(".wh.etc", FOLDER, ""), (".wh.etc/x", FILE, "")],
    "a whiteout as a device": [("etc", CHAR, "")],
    "a disk": [("disk", BLOCK, "")],
    "a pipe in the way": [("p", PIPE, ""), ("p/x", FILE, "")],
    "a file in the way": [("f", FILE, ""), ("f/x", FILE, "")],
    "an empty name": [("", FILE, "")],
    "a null in a name": [("a\0b", FILE, "")],
    "the root as a link": [("./", LINK, OUT), ("new", FILE, "")],
}
ATTRIBUTES = (
    "trusted.overlay.redirect",
    "user.overlay.redirect",
    "trusted.overlay.opaque",
    "user.overlay.opaque",
    "trusted.overlay.metacopy",
    "user.overlay.whiteout",
    "user.aerogel.stat",
)


def layer_of(field, entries):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, kind, link, *attributes in entries:
            member = tarfile.TarInfo(name.replace(OUT, str(field.canary)))
            member.type, member.linkname, member.mode = kind, link.replace(OUT, str(field.canary)), 0o644
            member.pax_headers = {f"SCHILY.xattr.{each}": value for each, value in attributes}
            tar.addfile(member)
    return buffer.getvalue()


def unpacked(field, entries, name, overlay):
    """The directory that a layer is unpacked into, whether that works or not."""
    place = field.folder / "unpacked" / name.replace(" ", "-")
    place.mkdir(parents=True)
    read, write = os.pipe()
    data = layer_of(field, entries)

    def feed():
        with open(write, "wb") as file:
            try:
                file.write(data)
            except BrokenPipeError:
                return

    thread = threading.Thread(target=feed)
    thread.start()
    try:
        field.helper.call("extract", {"path": str(place), "overlay": overlay}, [read])
    except AerogelError as error:
        if error.code.split(".")[0] not in ("extract", "tar", "sandbox"):
            raise
    finally:
        os.close(read)
        thread.join()
    return place


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("kind", ["layer", "stack"])
def test_layer(field, name, kind):
    overlay = field.helper.rung.overlay if kind == "layer" else None
    place = unpacked(field, LAYERS[name], f"{name} {kind}", overlay)
    assert field.changes() == []
    ended, said = field.run(
        "sh", "-c", "cat /stolen /out/secret /new 2>&1; ls /", root=Rootfs(lowers=(field.layer, str(place)))
    )
    assert field.secret not in said
    assert field.changes() == []
    assert ended is not None


@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_attributes_of_an_overlay(field, attribute):
    """A layer cannot rename, hide or own what the kernel or aerogel marks that way."""
    value = f"{field.canary}" if "redirect" in attribute else "y"
    entries = [
        ("etc", FOLDER, "", (attribute, value)),
        ("srv", FOLDER, "", (attribute, value)),
        ("f", FILE, "", (attribute, value)),
    ]
    place = unpacked(field, entries, attribute, field.helper.rung.overlay)
    ended, said = field.run(
        "sh", "-c", "cat /etc/passwd /etc/secret /srv/secret; ls /srv", root=Rootfs(lowers=(field.layer, str(place)))
    )
    assert field.secret not in said
    assert "root:x:0:0" in said, "what the layer does not touch is there"
    assert ended is not None


BUILDS = {
    "a copy of a link out of the context": ("COPY out /got\n", "", False),
    "a copy with dots": ("COPY ../../canary/secret /got\n", "", False),
    "a copy to a link": ("RUN ln -s /CANARY /to\nCOPY f /to/secret\n", "", True),
    "a bind with dots": ("RUN --mount=type=bind,source=../canary,target=/m cat /m/secret\n", "", False),
    "a bind of a link": ("RUN --mount=type=bind,source=out,target=/m cat /m\n", "", False),
    "a bind to a link": ("RUN ln -s /CANARY /to\nRUN --mount=type=bind,target=/to/x,rw echo x >/to/x/new\n", "", True),
    "a cache with a wicked id": ("RUN --mount=type=cache,id=../../../canary,target=/c rm -rf /c/* /c; echo x >/c/new\n", "", True),
    "a cache at a link": ("RUN ln -s /CANARY /to\nRUN --mount=type=cache,target=/to rm -rf /to/secret; echo x >/to/new\n", "", True),
    "a cache that becomes a link": (
        "RUN --mount=type=cache,target=/c ln -sfn /CANARY /c/l\nRUN --mount=type=cache,target=/c cat /c/l/secret\n", "", False,
    ),
    "a secret at a link": ("RUN ln -s /CANARY /to\nRUN --mount=type=secret,id=s,target=/to/new cat /to/new\n", "", True),
    "a mount over /": ("RUN --mount=type=tmpfs,target=/ true\n", "", False),
    "a mount over /proc": ("RUN --mount=type=tmpfs,target=/proc/x true\n", "", False),
    "a folder out of the root": ("WORKDIR /../../../CANARY\nRUN cat secret\n", "", False),
    "an archive with dots": ("ADD evil.tar /\n", "", False),
    "links made in a race": (
        "RUN (while :; do ln -sfn /CANARY /r; rm -rf /r; mkdir /r; done) & sleep 0.2; mkdir -p /d; cp /f /d || true\nCOPY f /r/secret\n",
        "RUN touch /f\n", True,
    ),
    "files that change while the layer is written": (
        "RUN (while :; do for i in 1 2 3 4; do echo $RANDOM >/x$i; rm -f /y$i; ln /x$i /y$i; done; done) & sleep 0.2\nRUN ls /x1\n", "", True,
    ),
    "a device": ("RUN mknod /d b 8 0; ! head -c 1 /d | grep -q .\n", "", True),
    "a whole line of 16 MB": ("RUN head -c 16000000 /dev/zero | tr '\\0' x\n", "", True),
    "codes for the terminal": ("RUN printf '\\033]0;pwned\\007\\033[2J\\033c'; echo; false\n", "", False),
}  # fmt: skip
"""Name: instructions, some before them, and whether the build may end well."""


@pytest.fixture(scope="module", params=["auto", "single"])
def builder(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("builds")
    aerogel = Aerogel(folder / "state")
    aerogel.env["AEROGEL_ISOLATION"] = request.param
    (folder / "canary").mkdir()
    (folder / "canary/secret").write_text("canary of the builds")
    context = folder / "context"
    context.mkdir()
    shutil.copy(shutil.which("busybox") or "", context / "busybox")
    (context / "f").write_text("from the context\n")
    (context / "s").write_text("a secret of sixteen letters\n")
    (context / "out").symlink_to(folder / "canary/secret")
    with tarfile.open(context / "evil.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("../../../canary/new"))
    return aerogel, context, folder / "canary"


@pytest.mark.skipif(os.getuid() != 0, reason="ordinary accounts have no checkout to build with here")
@pytest.mark.parametrize("name", BUILDS)
def test_build(builder, name):
    aerogel, context, canary = builder
    text, before, may_work = BUILDS[name]
    (context / "Dockerfile").write_text(HEAD + before + text.replace("/CANARY", str(canary)))
    words = ["build", "--progress=plain", "--secret", f"id=s,src={context / 's'}", str(context)]
    done = subprocess.run(aerogel.argv(*words), env=aerogel.env, capture_output=True, timeout=120)
    said = done.stdout + done.stderr
    assert b"COPY busybox" in said or b"Dockerfile:6:" in said, "it got to the attack, or was refused there"
    assert b"canary of the builds" not in said
    assert b"\033]0;" not in said
    assert b"\033[2J" not in said
    assert may_work or done.returncode == 1, said[-2000:]
    assert b"Traceback" not in said
    assert os.listdir(canary) == ["secret"]
    assert (canary / "secret").read_text() == "canary of the builds"
    assert len(said) < 20_000_000
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < 400_000
