"""The harness of `bench/` works: every workload but the one that needs a mirror, tiny, with aerogel alone.

Times are not looked at. Debian packages: docker-registry, busybox-static, skopeo.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.host("docker-registry", "busybox", "skopeo")

ROOT = Path(__file__).resolve().parents[2]


def test_the_harness_runs(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    words = ["--scale=0.003", "--peers=none", "--rounds=1", "--disk=2", f"--folder={tmp_path}", f"--json={rows}"]
    environ = {**os.environ, "AEROGEL_PYTHON": sys.executable}
    done = subprocess.run(
        [ROOT / "bench/run", *words, "--workloads=w1,w2,w3,w4,w6,w7"], env=environ, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = [json.loads(line) for line in rows.read_text().splitlines()]
    assert {(row["workload"], row["variant"]) for row in found} == {
        ("w1", "again"),
        ("w2", "steps"),
        *(("w3", variant) for variant in ("cold", "again", "touched")),
        *(("w4", variant) for variant in ("cold", "again")),
        ("w6", "steps"),
        ("w7", "cold"),
    }
    assert all(row["wall_s"] > 0 and row["cpu_s"] > 0 and row["memory_mb"] > 0 for row in found)
    assert "| **W7** " in done.stdout
    assert list(tmp_path.iterdir()) == [rows], "something was left behind"


def test_the_harness_of_registries_runs(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    words = ["--size=4", "--layers=2", "--peers=none", "--rounds=1", f"--folder={tmp_path}", f"--json={rows}"]
    words = [str(ROOT / "bench/registry_bench.py"), f"--python={sys.executable}", *words]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    found = [json.loads(line) for line in rows.read_text().splitlines()]
    assert [(row["peer"], row["action"]) for row in found] == [("aerogel", each) for each in ("pull", "push", "again")]
    assert list(tmp_path.iterdir()) == [rows], "something was left behind"


def test_published_table_and_picture(tmp_path: Path) -> None:
    sys.path.insert(0, str(ROOT / "bench"))
    try:
        import report
    finally:
        sys.path.remove(str(ROOT / "bench"))
    rows = [
        {
            "workload": "w1",
            "variant": "again",
            "peer": peer,
            "round": number,
            "wall_s": wall,
            "cpu_s": 1,
            "memory_mb": 9,
        }
        for number in range(3)
        for peer, wall in (("aerogel", 0.02), ("docker", 0.1 + number / 100), ("buildah", 2.0))
    ]
    facts = {"processors": 2, "model": "m", "kernel": "k", "sha256_mb_s": 1, "create_us": 1, "scale": 1, "versions": {}}
    report.write(tmp_path, rows, facts)
    assert "| 0.18 (18%) | 1.00 | 0.45, 0.05 s |" in (tmp_path / "RESULTS.md").read_text()
    assert "docker: 0.110 s, 5.50x" in (tmp_path / "results.svg").read_text()
