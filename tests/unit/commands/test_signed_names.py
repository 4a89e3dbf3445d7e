"""The name that was signed against the one that is asked for: a table of both, for each kind of rule."""

from __future__ import annotations

import pytest

from aerogel.commands.signed_names import ANY, BOTH, TOLD, Identity, is_for
from aerogel.oci.reference import Reference

DIGEST = "sha256:" + "1" * 64
HUB = "docker.io/library/alpine"


@pytest.mark.parametrize(
    ("identity", "signed", "asked", "fits"),
    [
        (Identity(), ["a.example/other"], "a.example/app:1", True),
        (Identity(), [], "a.example/app:1", True),
        (Identity(TOLD), [], "a.example/app:1", True),
        (Identity(TOLD), ["a.example/app"], "a.example/app:1", True),
        (Identity(TOLD), ["a.example/app:2"], f"a.example/app@{DIGEST}", True),
        (Identity(TOLD), ["a.example/dev", "a.example/app"], "a.example/app", True),
        (Identity(TOLD), ["a.example/app/more"], "a.example/app", False),
        (Identity(TOLD), ["a.example/dev"], "a.example/app", False),
        (Identity(TOLD), ["not a name", ""], "a.example/app", False),
        *((Identity(TOLD), [spelt], "alpine", True) for spelt in (HUB, "index.docker.io/library/alpine", "alpine")),
        (Identity(TOLD), ["A.EXAMPLE:443/app"], "a.example/app", True),
        (Identity(TOLD, ("m.example/hub", HUB)), [HUB], "m.example/hub:3", True),
        (Identity(TOLD, ("m.example/hub", "docker.io")), [HUB], "m.example/hub/library/alpine:3", True),
        (Identity(TOLD, ("m.example/hub", "docker.io")), ["m.example/hub/library/alpine"], "m.example/hub/library/alpine", False),
        (Identity(TOLD, ("", "docker.io")), [HUB], "m.example/library/alpine", True),
        (Identity(TOLD, ("m.example/app:1", "a.example/app")), ["a.example/app"], "m.example/app:1", True),
        (Identity("matchRepository"), [], "a.example/app:1", False),
        (Identity("matchRepository"), ["a.example/app:2"], "a.example/app:1", True),
        (Identity("matchRepository"), ["a.example/dev:1"], "a.example/app:1", False),
        (Identity(BOTH), ["a.example/app"], "a.example/app:1", False),
        (Identity(BOTH), ["a.example/app:1"], "a.example/app:1", True),
        (Identity(BOTH), ["a.example/app:2"], "a.example/app:1", False),
        (Identity(BOTH), ["a.example/app:2"], f"a.example/app@{DIGEST}", True),
        (Identity("matchExact"), ["a.example/app:1"], "a.example/app:1", True),
        (Identity("matchExact"), ["a.example/app"], f"a.example/app@{DIGEST}", False),
        (Identity("exactReference", ("b.example/x:7",)), ["b.example/x:7"], "a.example/app:1", True),
        (Identity("exactReference", ("b.example/x:7",)), ["b.example/x:8"], "a.example/app:8", False),
        (Identity("exactReference", ("b.example/x:7",)), ["a.example/app:1"], "a.example/app:1", False),
        (Identity("exactReference", ("b.example/x",)), ["b.example/x"], "a.example/app:1", False),
        (Identity("exactRepository", ("b.example/x",)), ["b.example/x"], "a.example/app:1", True),
        (Identity("exactRepository", ("b.example/x",)), ["a.example/app"], "a.example/app:1", False),
        (Identity("remapIdentity", ("m.example", "a.example")), ["a.example/app:1"], "m.example/app:1", True),
        (Identity("remapIdentity", ("m.example", "a.example")), ["m.example/app:1"], "m.example/app:1", False),
        (Identity("remapIdentity", ("m.example", "a.example")), ["b.example/app:1"], "b.example/app:1", True),
        (Identity("remapIdentity", ("m.exam", "a.exam")), ["a.example/app:1"], "m.example/app:1", False),
        (Identity("remapIdentity", ("m.example", "a.example")), ["a.example/app"], f"m.example/app@{DIGEST}", True),
    ],
)  # fmt: skip
def test_names(identity: Identity, signed: list[str], asked: str, fits: bool):
    assert is_for(signed, Reference.parse(asked), identity) is fits
    assert is_for([], Reference.parse(asked), identity) is (identity.kind in (ANY, TOLD))
