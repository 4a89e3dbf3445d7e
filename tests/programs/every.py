"""Imports every module that this Python's standard library has or ought to have; prints those that fail, as JSON.

A module that is there as a file counts as well as one of `sys.stdlib_module_names`. With a word: those of machine code.
"""

import importlib
import io
import json
import os
import sys
import sysconfig
import warnings
from contextlib import redirect_stdout

warnings.simplefilter("ignore")
top = sysconfig.get_path("stdlib")
names = set() if sys.argv[1:] else set(sys.stdlib_module_names)
for folder in (f"{top}/lib-dynload",) if sys.argv[1:] else (top, f"{top}/lib-dynload"):
    for root, folders, files in os.walk(folder):
        folders[:] = [each for each in folders if each.isidentifier() and each not in ("__pycache__", "test", "tests")]
        prefix = "" if root == folder else os.path.relpath(root, folder).replace("/", ".") + "."
        stems = {each.split(".")[0] for each in files if each.endswith((".py", ".so"))}
        names |= {prefix + stem for stem in stems if stem.isidentifier() and stem not in ("__init__", "__main__")}
        names |= {prefix[:-1]} if "__init__" in stems and prefix else set()
failed, done = [], 0
for name in sorted(names):
    try:
        with redirect_stdout(io.StringIO()):
            importlib.import_module(name)
        done += 1
    except ImportError:
        failed.append(name)
print(json.dumps({"imported": done, "failed": failed}))
