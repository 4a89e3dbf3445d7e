"""The examples of the rules' pages (`docs/lint/`), built: the bad ones are told and build all the same where that is
possible, the good ones build without a word of the rule. The page of the rule that needs an image of another
platform is in `test_registry.py`.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from process import ROOT, Aerogel

pytestmark = [pytest.mark.host("newuidmap"), pytest.mark.network]

PAGES = sorted(page for page in (ROOT / "docs/lint").glob("*.md") if page.stem != "InvalidBaseImagePlatform")

FAILS = {
    "CopyIgnoredFile": "`secret.txt` is not in the build context",
    "InvalidDefaultArgInFrom": "`debian:` is not an image name: the tag is empty",
    "UndefinedArgInFrom": "`debian:` is not an image name: the tag is empty",
}
"""Bad examples that cannot be built, and what the build says."""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_page(aerogel: Aerogel, tmp_path: Path, page: Path) -> None:
    rule = page.stem
    bad, good = re.findall(r"```dockerfile\n(.*?)```", page.read_text(), re.DOTALL)
    for name in ("app", "app-", "app-1", "secret.txt", "key"):
        (tmp_path / name).write_text(name)
    (tmp_path / ".dockerignore").write_text("secret.txt\n")
    dockerfile = tmp_path / "Dockerfile"
    dockerfile.write_text(bad)
    told = json.loads(aerogel("lint", "--format=json", str(dockerfile), check=False).stdout)
    assert rule in {each["ruleName"] for each in told["warnings"]}
    words = ("build", "--progress=plain", "--secret", f"id=aws,src={tmp_path}/key", str(tmp_path))
    done = aerogel(*words, check=False)
    assert (done.returncode != 0) == (rule in FAILS), done.stderr
    assert FAILS.get(rule, f"warning: {rule}: ") in done.stderr
    dockerfile.write_text(good)
    assert f"warning: {rule}" not in aerogel(*words).stderr
