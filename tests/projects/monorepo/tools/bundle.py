"""Puts the style sheet into the page."""

import sys
from pathlib import Path

folder = Path(sys.argv[1])
print((folder / "index.html").read_text().replace("STYLE", (folder / "site.css").read_text().strip()))
