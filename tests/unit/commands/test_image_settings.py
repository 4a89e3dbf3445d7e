"""What a declaration says of the image that it extends: its names, its words, whom it trusts."""

from __future__ import annotations

import base64
import hashlib
import shutil
import struct

import pytest
from loop_registry import LoopRegistry
from own_bases import AMD64, Base, layers
from own_images import OS_RELEASE, STATUS, certificate, config, declared, image

from aerogel.distroless.keystore import read_keystore


def test_words_of_the_image_and_of_the_declaration(base: Base, ground: str) -> None:
    """A CMD was meant for the ENTRYPOINT that it came with, as in a Dockerfile."""
    for words, entrypoint, cmd in (
        ("entrypoint: [/new]", ["/new"], None),
        ("entrypoint: [/new], cmd: [b]", ["/new"], ["b"]),
        ("cmd: [b]", ["/usr/bin/first"], ["b"]),
        ("labels: {x: y}", ["/usr/bin/first"], ["a"]),
    ):
        base.write("base.yaml", declared(f"docker://{ground}", f"packages: [tool]\nimage: {{{words}}}\n"))
        base("base", "build", *AMD64, "-t", "one")
        made = config(base, "one")
        assert (made["Entrypoint"], made.get("Cmd")) == (entrypoint, cmd)


def test_names_of_images_are_those_of_from(base: Base, ground: str, monkeypatch: pytest.MonkeyPatch) -> None:
    base.write("base.yaml", declared(f"docker://{ground}"))
    base("base", "build", *AMD64, "-t", "one")
    expected = layers(base, "one")
    base.on_another_machine("second")
    base.write("aerogel.toml", f'[aliases]\n"corp.example/ground:1" = "{ground}"\n')
    base.write("base.yaml", declared("corp.example/ground:1"))
    base("base", "lock", "--platform", "all")
    assert base.lock["platforms"].keys() == {"linux/amd64", "linux/arm64"}
    for words in (("--locked",), ("--pull",)):
        base.on_another_machine(words[0])
        base("base", "build", *AMD64, *words, "-t", "one")
        assert layers(base, "one") == expected
    (base.folder / "base.lock.json").unlink()
    for value, said in (("builtin", "the setting `bases` allows built-in bases only"), ("auto", "")):
        monkeypatch.setenv("AEROGEL_BASES", value)
        base("base", "build", *AMD64, status=bool(said))
        assert said in base.said
        assert bool(said) == (
            f"error: the declaration extends the image `corp.example/ground:1`, and {said}" in base.said
        )


def test_a_signature_of_an_index_holds_for_its_images(
    base: Base, registry: LoopRegistry, ground: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a lock too: it has the digest of the index, which is what was signed."""
    monkeypatch.setenv("COSIGN_PASSWORD", "")
    for name in ("right", "wrong"):
        base("key", "generate", "-o", name)
    base("sign", "--key", "right.key", ground)
    base.write("base.yaml", declared(f"docker://{ground}"))
    base.write("aerogel.toml", f'[signatures]\n"{registry.host}" = "right.pub"\n')
    base("base", "lock", *AMD64)
    assert base.lock["platforms"]["linux/amd64"]["image"]["index"] == manifest_digest(registry)
    base.on_another_machine("second")
    base("base", "build", *AMD64, "--locked", "-t", "one")
    base.write("aerogel.toml", f'[signatures]\n"{registry.host}" = "wrong.pub"\n')
    base.on_another_machine("third")
    for words in (("build", *AMD64, "--locked"), ("build", *AMD64), ("lock", *AMD64)):
        base("base", *words, status=1)
        assert f"{registry.host}/team/ground" in base.said
        assert "sign" in base.said
    assert base("images", "-q") == ""


def manifest_digest(registry: LoopRegistry) -> str:
    """That of the index."""
    return "sha256:" + hashlib.sha256(registry.manifests["team/ground"]["1"][1]).hexdigest()


def truststore(*ders: bytes, password: str = "changeit") -> bytes:
    """A JKS file as Java writes it, aliases `old0`, `old1`, ..."""
    body = struct.pack(">III", 0xFEEDFEED, 2, len(ders))
    for number, der in enumerate(ders):
        body += struct.pack(">IH4sQH5sI", 2, 4, b"old%d" % number, 7000, 5, b"X.509", len(der)) + der
    return body + hashlib.sha1(password.encode("utf-16-be") + b"Mighty Aphrodite" + body).digest()


def der_of(pem: bytes) -> bytes:
    return base64.b64decode(b"".join(pem.split(b"\n")[1:-2]))


def test_the_truststore_of_the_image_is_added_to(base: Base) -> None:
    first, second, private = (certificate(name) for name in ("First", "Second", "Private"))
    path = "etc/ssl/certs/java/cacerts"
    files = {"etc/os-release": OS_RELEASE, "etc/ssl/certs/ca-certificates.crt": first, "var/lib/dpkg/status": STATUS}
    base.write("corp.pem", second)
    text = "packages: []\ncertificates: {additional: [corp.pem]}\n"
    told = "warning: the truststore `/etc/ssl/certs/java/cacerts` of the image {}: it is made anew from the bundle"
    for store, more, expected, said in (
        (truststore(der_of(private)), "", [der_of(private), der_of(second)], ""),
        (truststore(der_of(private), der_of(second)), "", [der_of(private), der_of(second)], ""),
        (
            truststore(der_of(private), password="secret"),
            "",
            [der_of(first), der_of(second)],
            "is damaged, or its password",
        ),
        (b"\x30\x82" + bytes(100), "", [der_of(first), der_of(second)], "is not of the form JKS"),
        (b"\x30\x82" + bytes(100), "  java-keystore: never\n", None, ""),
        (None, "", None, ""),
        (None, "  java-keystore: always\n", [der_of(first), der_of(second)], ""),
    ):
        image(base, "below", files | ({} if store is None else {path: store}))
        base.write("base.yaml", declared("store:below", text.replace("}\n", f", {more.strip()}}}\n") if more else text))
        shutil.rmtree(base.folder / "out", ignore_errors=True)
        base("base", "build", *AMD64, "-t", "one")
        assert ("truststore" in base.said) == bool(said)
        assert not said or told.format(said)[:90] in base.said
        base("build", *AMD64, "-o", "type=local,dest=out", "-f", str(base.write("D", "FROM one\n")), ".")
        made = base.folder / "out" / path
        if expected is None:
            assert (made.read_bytes() if made.exists() else None) == store
        else:
            kept = [each.der for each in read_keystore(made.read_bytes()).values()]
            assert sorted(kept) == sorted(expected)
