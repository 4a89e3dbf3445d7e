"""A process that uses a store until it is killed: `writer.py DATA CACHE SEED|once|hold|tag|full`."""

from __future__ import annotations

import json
import os
import random
import sys
import time
from pathlib import Path

from aerogel.errors import AerogelError
from aerogel.files.codec import LayerWriter, select
from aerogel.oci.digest import digest_of
from aerogel.oci.reference import Reference
from aerogel.oci.types import OCI_LAYER_GZIP, OCI_MANIFEST
from aerogel.store.images import ImageMeta
from aerogel.store.store import Store


def step(store: Store, number: int) -> None:
    """What a build does for one step, in its order."""
    index = f"index of {number}".encode()
    diff_id = digest_of(index)
    with store.blobs.write() as writer:
        for _ in range(8):
            writer.write(number.to_bytes(8, "big") * 4096)
        digest = writer.commit()
        size = writer.size
    blob = store.blobs.put(number.to_bytes(8, "big") * 4096 * 8, OCI_LAYER_GZIP)
    assert (blob.digest, blob.size) == (digest, size)
    store.layers.save(diff_id, size=size, blobs={"gzip": blob}, index=index)
    key = digest_of(f"key of {number}".encode())
    made = store.snapshots.new("root")
    os.mkdir(f"{made}/fs")
    Path(made, "fs", "file").write_text(diff_id)
    store.snapshots.commit(made, "root", key)
    manifest = store.blobs.put(json.dumps({"layer": digest}).encode(), OCI_MANIFEST)
    store.images.tag(Reference.parse(f"app:{number % 7}"), manifest, ImageMeta(image_id=diff_id))
    store.actions.put(key, {"number": number}, {"layer": diff_id})


def once(store: Store) -> None:
    key = digest_of(b"work")
    with store.once(key):
        if store.actions.get(key) is not None:
            print("found", flush=True)
            return
        time.sleep(0.1)
        store.actions.put(key, {}, {})
        print("worked", flush=True)


def full(store: Store) -> None:
    kept = store.blobs.put(b"kept" * 1000)
    filler = Path(store.data, "..", "filler")
    codes = []
    error = None
    with filler.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            pass

    def compress() -> None:
        with store.blobs.write() as blob, LayerWriter(blob.fd, select("uncompressed")) as layer:
            for _ in range(40):
                layer.write(os.urandom(100_000))
            layer.finish()

    attempts = (
        compress,
        lambda: store.blobs.put(b"x" * 100_000),
        lambda: store.actions.put(digest_of(b""), {}, {"a": "b" * 10_000}),
        lambda: store.layers.save(digest_of(b""), size=1, index=b"i" * 10_000),
        lambda: store.snapshots.commit(store.snapshots.new("root"), "root", "k"),
    )
    for attempt in attempts:
        try:
            attempt()
        except AerogelError as caught:
            codes.append(caught.code)
            error = caught
    assert error is not None
    assert store.layers.record(digest_of(b"")) is None
    assert store.actions.get(digest_of(b"")) is None
    blobs = len(list(store.blobs.all()))
    filler.unlink()
    step(store, 1)
    print(
        json.dumps(
            {
                "codes": codes,
                "exit": error.exit_status,
                "message": error.message,
                "blobs": blobs,
                "after": store.blobs.has(kept.digest) and store.actions.get(digest_of(b"key of 1")) is not None,
            }
        )
    )


def main() -> None:
    data, cache, what = sys.argv[1:]
    with Store.open(data, cache) as store:
        if what == "once":
            once(store)
        elif what == "hold":
            with store.once("sha256:work"):
                print("held", flush=True)
                time.sleep(60)
        elif what == "tag":
            for number in range(20):
                manifest = store.blobs.put(
                    json.dumps({"layer": store.blobs.put(bytes([number])).digest}).encode(), OCI_MANIFEST
                )
                store.images.tag(Reference.parse("same"), manifest, ImageMeta())
        elif what == "full":
            full(store)
        else:
            chance = random.Random(int(what))
            print("begun", flush=True)
            while True:
                step(store, chance.randrange(1 << 40))


if __name__ == "__main__":
    main()
