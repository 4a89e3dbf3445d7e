"""Tells the role that the image was built for."""

import sys
from pathlib import Path

print(Path("role").read_text().strip(), *sys.argv[1:])
