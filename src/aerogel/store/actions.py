"""Results of steps by key: the action cache. One JSON file for each key; no record is ever changed.

::

    <cache>/actions-v1/<2 hex>/<62 hex>.json     {"facts": {...}, "key": "sha256:...", "result": {...}}

A record that cannot be read counts as absent. It is a claim about what a step gave, not about what is still here:
whoever uses it asks `layers` and `snapshots` for what it names. Standard library only, since a build that has
nothing to do reads these and little else.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from typing import Any

from aerogel.decoding import parse_json
from aerogel.oci.digest import Digest
from aerogel.store.disk import disk_errors, read_file, unlink
from aerogel.store.scratch import Scratch

__all__ = ["Actions"]

_TOUCH_AFTER_S = 6 * 3600.0


class Actions:
    """The action cache of one store."""

    def __init__(self, cache: str, scratch: Scratch) -> None:
        self._root = f"{cache}/actions-v1"
        self._scratch = scratch

    def path(self, key: Digest) -> str:
        encoded = key.partition(":")[2]
        return f"{self._root}/{encoded[:2]}/{encoded[2:]}.json"

    def get(self, key: Digest) -> dict[str, Any] | None:
        """What the step gave (`put`'s `result`); None when this key was never done."""
        record = self.record(key)
        if record is None:
            return None
        result: dict[str, Any] = record["result"]
        return result

    def record(self, key: Digest) -> dict[str, Any] | None:
        """The whole record: `key`, `facts` and `result`."""
        path = self.path(key)
        data = read_file(path)
        if data is None:
            return None
        try:
            record = parse_json(data)
        except ValueError:
            record = None
        if not isinstance(record, dict) or record.get("key") != key or not isinstance(record.get("result"), dict):
            # Torn by a power cut, or copied to a wrong name.
            unlink(path)
            return None
        self._touch(path)
        return record

    def put(self, key: Digest, facts: dict[str, Any], result: dict[str, Any]) -> None:
        """Records what the step of `key` gave and the facts that the key was made of. Raises `store.*`.

        Write what `result` names (layers, snapshots) before.
        """
        record = {"facts": facts, "key": key, "result": result}
        data = json.dumps(record, ensure_ascii=True, sort_keys=True, separators=(",", ":")).encode()
        path = self.path(key)
        if read_file(path) == data:  # to replace a file makes some file systems write at once
            self._touch(path)
        else:
            self._scratch.write_file(path, data)

    def remove(self, key: Digest) -> bool:
        return unlink(self.path(key))

    def all(self) -> Iterator[tuple[Digest, os.stat_result]]:
        """Every key with the state of its file; the modification time tells the last use, to six hours."""
        try:
            folders = os.listdir(self._root)
        except FileNotFoundError:
            return
        for folder in folders:
            with disk_errors(self._root), os.scandir(f"{self._root}/{folder}") as entries:
                for entry in entries:
                    yield Digest(f"sha256:{folder}{entry.name.removesuffix('.json')}"), entry.stat()

    @staticmethod
    def _touch(path: str) -> None:
        now = time.time()
        try:
            if now - os.stat(path).st_mtime > _TOUCH_AFTER_S:
                os.utime(path)
        except OSError:
            return  # a read-only store, or removed meanwhile: only the order of pruning suffers
