"""How the HTTP library is imported."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[3] / "src"
HOOK = """
class Hook:
    def find_spec(self, name, path=None, target=None):
        if name == "urllib3.http2.probe":
            {ask}
sys.meta_path.insert(0, Hook())
"""


def run(program: str) -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(SOURCE)!r})\n{program}"],
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(json.loads(done.stdout))


def test_versions_of_packages_are_not_looked_up() -> None:
    found = run(
        "import json; from aerogel.net.library import load\n"
        "library = load(); was = 'importlib.metadata' in sys.modules\n"
        "from urllib3 import http2\n"
        "print(json.dumps({'metadata': was, 'same': load() is library, 'zip': 'zipfile' in sys.modules,"
        " 'version': http2.version('urllib3') == library.__version__,"
        " 'real': sys.modules['importlib.metadata'].__file__.endswith('__init__.py')}))"
    )
    assert found == {"metadata": False, "same": True, "zip": False, "version": True, "real": True}


@pytest.mark.parametrize(
    "ask",
    [
        "import importlib.metadata as it; it.distribution('urllib3')",
        "from importlib.metadata import version; version('urllib3')",
    ],
)
def test_who_asks_meanwhile_gets_the_real_thing(ask: str) -> None:
    found = run(
        f"{HOOK.format(ask=ask)}\n"
        "import json; from aerogel.net.library import load; load()\n"
        "import importlib.metadata as it; print(json.dumps({'real': it.__file__.endswith('__init__.py')}))"
    )
    assert found == {"real": True}


def test_what_is_loaded_already_stays() -> None:
    found = run(
        "import json, importlib.metadata as it; from aerogel.net.library import load; load()\n"
        "print(json.dumps({'same': sys.modules['importlib.metadata'] is it}))"
    )
    assert found == {"same": True}
