"""`.dockerignore`: the pattern language as builds see it."""

from __future__ import annotations

from cases import Case, Context, Dir, Link

__all__ = ["CASES"]

TREE: Context = {
    "a.txt": "a\n",
    "b.md": "b\n",
    "README.md": "r\n",
    ".env": "e\n",
    "src/main.c": "m\n",
    "src/main.o": "o\n",
    "src/lib/x.c": "x\n",
    "src/lib/x.o": "o\n",
    "src/lib/deep/y.o": "y\n",
    "src/lib/deep/keep.o": "k\n",
    "node_modules/p/index.js": "p\n",
    "pkg/node_modules/q/index.js": "q\n",
    "pkg/index.js": "i\n",
    "void": Dir(),
    "link": Link("src"),
    "b[1]": "bracket\n",
    "a b": "blank\n",
    "Upper": "u\n",
}

_RULES = {
    "none": "",
    "plain": "a.txt\nsrc/main.o\n",
    "dir": "src\n",
    "dir-slash": "src/\n",
    "leading-slash": "/a.txt\n/src/lib\n",
    "dot-slash": "./a.txt\nsrc/./lib/../main.c\n",
    "glob": "*.md\n",
    "glob-is-not-deep": "*.o\n",
    "double-star": "**/*.o\n",
    "double-star-dir": "**/node_modules\n",
    "double-star-end": "src/**\n",
    "double-star-middle": "src/**/x.c\n",
    "double-star-alone": "**\n!a.txt\n",
    "one-star-dir": "*/node_modules\n",
    "negation": "*.md\n!README.md\n",
    "negation-last-wins": "*.md\n!README.md\nREADME.*\n",
    "negation-below": "src\n!src/lib/x.c\n",
    "negation-deep": "**/*.o\n!**/keep.o\n",
    "negation-of-dir": "src/*\n!src/lib\n",
    "all-but": "*\n!src\n!pkg/index.js\n",
    "all-but-star": "*\n!*.txt\n",
    "all-but-deep": "*\n!**/*.c\n",
    "question": "?.txt\n???\n",
    "class": "[ab].*\n",
    "class-negated": "[^a].*\n",
    "escape": "b\\[1\\]\n",
    "comments": "# a.txt\n  # b.md\n\n  README.md  \n",
    "bom": "\ufeffa.txt\n",
    "crlf": "a.txt\r\nb.md\r\n",
    "dot": ".\n",
    "dot-star": ".*\n",
    "blank-name": "a b\n",
    "case": "upper\nREADME.MD\n",
    "itself": ".dockerignore\n",
    "parents": "../a.txt\n/../b.md\n",
    "link": "link\n",
    "below-link": "link/main.c\n",
    "void": "void\n",
    "everything": "*\n",
    "negated-first": "!a.txt\n*.txt\n",
    "blank-after-bang": "*.md\n! README.md\n",
}

CASES = [
    Case(f"ignore-{name}", "FROM scratch\nCOPY . /x/\n", {**TREE, ".dockerignore": text})
    for name, text in _RULES.items()
]
CASES += [
    Case(
        "ignore-named-source", "FROM scratch\nCOPY src/main.o /x\n", {**TREE, ".dockerignore": "**/*.o\n"}, fails=True
    ),
    Case("ignore-glob-source", "FROM scratch\nCOPY src/* /x/\n", {**TREE, ".dockerignore": "**/*.o\nsrc/lib\n"}),
    Case("ignore-dir-source", "FROM scratch\nCOPY src /x/\n", {**TREE, ".dockerignore": "src/lib\n!src/lib/x.c\n"}),
    Case("ignore-bad-pattern", "FROM scratch\nCOPY . /x/\n", {**TREE, ".dockerignore": "[\n"}, fails=True),
    Case("ignore-bang-alone", "FROM scratch\nCOPY . /x/\n", {**TREE, ".dockerignore": "!\n"}, fails=True),
    Case("ignore-link-target", "FROM scratch\nCOPY link /x/\n", {**TREE, ".dockerignore": "src\n"}, fails=True),
]
