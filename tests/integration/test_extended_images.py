"""Declarations that extend real images: an ordinary Debian root, and a distroless one of a registry; programs run on them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from loop_registry import serve_registry
from process import Aerogel

pytestmark = [pytest.mark.network, pytest.mark.host]

BASE = """\
apiVersion: aerogel/v1
kind: Base
name: extended
extends: {extends}
packages: [libpq5, libpython3.13-stdlib, python3.13-minimal]
accounts: {{users: [{{name: app, uid: 10001}}], run-as: app}}
image: {{entrypoint: [/usr/bin/python3.13, -c], cmd: ["{program}"]}}
"""
PROGRAM = (
    "import ctypes, json, os, pwd, ssl; pq = ctypes.CDLL('libpq.so.5');"
    "print(json.dumps([pq.PQlibVersion() > 0, pwd.getpwuid(os.getuid()).pw_name, ssl.OPENSSL_VERSION.split()[0]]))"
)


@pytest.mark.parametrize("ground", ["debian", "gcr.io/distroless/cc:nonroot"])
def test_programs_on_an_image_of_another(aerogel: Aerogel, tmp_path: Path, ground: str) -> None:
    (tmp_path / "Dockerfile").write_text(f"FROM {ground}\nLABEL kept=yes\n")
    with serve_registry() as registry:
        name = f"{registry.host}/team/ground:1"
        below = aerogel.json("build", "--push", "-t", name, str(tmp_path))
        (tmp_path / "base.yaml").write_text(BASE.format(extends=f"docker://{name}", program=PROGRAM))
        made = aerogel.json("base", "build", "-t", "extended", str(tmp_path / "base.yaml"))
        shown = aerogel.json("base", "show", "--packages", str(tmp_path / "base.yaml"))["packages"]
    assert json.loads(aerogel("run", "--rm", "extended").stdout) == [True, "app", "OpenSSL"]
    assert [each["digest"] for each in made["layers"][:-1]] == [each["digest"] for each in below["layers"]]
    there = {one["name"]: one["version"] for one in aerogel.json("sbom", name)["packages"] if one["kind"] == "deb"}
    whole = [one for one in aerogel.json("sbom", "extended")["packages"] if one["kind"] == "deb"]
    versions = {one["name"]: one["version"] for one in whole}
    assert len(versions) == len(whole), "no package is there twice"
    assert there.items() < versions.items(), "what the image had keeps its version"
    assert {one["name"]: one["version"] for one in shown} == versions
    assert {"libpq5", "python3.13-minimal"} <= versions.keys() - there.keys()
    config = json.loads(aerogel("inspect", "extended").stdout)[0]["Config"]
    assert config["Labels"] == {"kept": "yes"}
    if ground == "debian":
        run = ("run", "--rm", "--user", "0", "--entrypoint", "/bin/sh", "extended", "-c")
        assert "libpq.so.5" in aerogel(*run, "/sbin/ldconfig -p; dpkg --audit").stdout
    else:
        assert config["Env"][-1] == "SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt"
