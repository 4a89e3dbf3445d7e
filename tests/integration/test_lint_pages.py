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

from aerogel.lint.image import IMAGE_RULES

pytestmark = [pytest.mark.host("newuidmap"), pytest.mark.network]

OF_IMAGES = [rule.name for rule in IMAGE_RULES]
FOLDER = ROOT / "docs/lint"
PAGES = sorted(page for page in FOLDER.glob("*.md") if page.stem not in ("InvalidBaseImagePlatform", *OF_IMAGES))

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


@pytest.mark.parametrize("rule", OF_IMAGES)
def test_page_of_a_rule_for_images(aerogel: Aerogel, tmp_path: Path, rule: str) -> None:
    """The bad example gives the output of the page, by the build; switched off, it says nothing; as an error, no image."""
    text = (FOLDER / f"{rule}.md").read_text()
    (output,) = re.findall(r"```text\n(.*?)```", text, re.DOTALL)
    bad, good = re.findall(r"```dockerfile\n(.*?)```", text, re.DOTALL)
    (tmp_path / "app").write_text("app")
    dockerfile = tmp_path / "Dockerfile"
    words = ("build", "--progress=plain", "-t", f"page-{rule.lower()}", ".")
    dockerfile.write_text(bad)
    for _ in range(2):  # the second time from what was kept
        assert output in aerogel(*words, cwd=tmp_path).stderr
    dockerfile.write_text(f"# check=error=true\n{bad}")
    failed = aerogel("build", "--progress=plain", "-t", "never", ".", cwd=tmp_path, check=False)
    assert failed.returncode == 1
    assert re.search(rf"error: the image breaks the rules? .*`{rule}`", failed.stderr)
    assert "never" not in aerogel("images").stdout
    for quiet in (f"# check=skip={rule}\n{bad}", good):
        dockerfile.write_text(quiet)
        said = aerogel(*words, cwd=tmp_path).stderr
        assert output.splitlines()[0] not in said
        assert f"warning: {rule}" not in said
