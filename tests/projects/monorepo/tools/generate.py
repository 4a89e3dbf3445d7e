"""Writes Python classes for the messages of a JSON file."""

import json
import sys
from pathlib import Path

print('"""Generated messages."""\n\nfrom typing import NamedTuple')
for name, fields in json.loads(Path(sys.argv[1]).read_text()).items():
    print(f"\n\nclass {name}(NamedTuple):")
    print("\n".join(f"    {field}: str" for field in fields))
