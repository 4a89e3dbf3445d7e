"""Lexing as builds see it: continuations, escapes, comments, line ends, directives, JSON."""

from __future__ import annotations

from cases import Case

__all__ = ["CASES"]


def _case(name: str, text: str, **more: object) -> Case:
    return Case(f"syntax-{name}", text, **more)  # type: ignore[arg-type]  # the fields of Case


CASES = [
    _case("crlf", "FROM scratch\r\nENV a=1 \\\r\n  b=2\r\nLABEL c=d\r\n"),
    _case("bom", "\ufeffFROM scratch\nENV a=1\n"),
    _case("no-line-end", "FROM scratch\nENV a=1"),
    _case("tabs-and-blanks", "\n\n  FROM\tscratch  \n\tENV\ta=1\t\n   LABEL  x=y   z=w  \n"),
    _case("case", "from scratch as X\nenv A=1\nFrOm x\nLaBeL a=b\n"),
    _case("comments", "# c\nFROM scratch\n  # indented\nENV a=1 \\\n# inside\n  # inside too\n  b=2\n#end\n"),
    _case("hash-is-no-comment-inside", "FROM scratch\nENV a=1 #x=2\n"),
    _case("hash-in-cmd", "FROM scratch\nCMD echo # not a comment\n"),
    _case("continuation-blank-lines", "FROM scratch\nENV a=1 \\\n\n\n  b=2\nENV c=3\n"),
    _case("continuation-trailing-blanks", "FROM scratch\nENV a=1 \\  \n  b=2\nENV c=3\n"),
    _case("continuation-keeps-leading", "FROM scratch\nCMD a\\\n  b \\\n\tc\n"),
    _case("continuation-at-end", "FROM scratch\nCMD a \\\n"),
    _case("double-backslash", "FROM scratch\nCMD a \\\\\nENV b=1\n"),
    _case("continuation-in-word", "FROM scra\\\ntch\nENV ab\\\nc=d\\\ne\n"),
    _case("continuation-of-instruction", "FROM scratch\nLA\\\nBEL a=b\n"),
    _case("escape-backtick", "# escape=`\nFROM scratch\nENV a=C:\\x b=`$a `\n  c=y\\\nCMD a `\n b\n"),
    _case("escape-backslash", "#escape = \\\nFROM scratch\nENV a=x\\ y\n"),
    _case("escape-too-late", "# comment\n# escape=`\nFROM scratch\nENV a=x\\ y\n"),
    _case("escape-bad", "# escape=x\nFROM scratch\n", fails=True),
    _case("escape-twice", "# escape=`\n# escape=`\nFROM scratch\n", fails=True),
    _case("json-blanks", 'FROM scratch\nCMD   [  "a" ,"b"  ]  \n'),
    _case("json-over-lines", 'FROM scratch\nCMD ["a", \\\n  "b", \\\n  # comment\n  "c"]\n'),
    _case("json-then-text", 'FROM scratch\nCMD ["a"] b\n'),
    _case("json-nested", 'FROM scratch\nCMD [["a"]]\n', fails=True),
    _case("json-escapes", 'FROM scratch\nCMD ["\\t\\u00e9\\"", "a\\\\b"]\n'),
    _case("json-label-like", 'FROM scratch\nVOLUME ["/a"]\nSHELL ["/x", "-c"]\nCMD y\n'),
    _case("json-empty-string", 'FROM scratch\nCMD ["", "a"]\n'),
    _case("json-null", "FROM scratch\nCMD [null]\n", fails=True),
    _case("json-in-env", 'FROM scratch\nENV a=["x"] b=\'["x"]\'\n'),
    _case("empty-cmd", "FROM scratch\nCMD\n"),
    _case("empty-run", "FROM scratch\nRUN\n", fails=True),
    _case("flag-on-cmd", "FROM scratch\nCMD --x y\n", fails=True),
    _case("flag-bare-dashes", "FROM scratch\nCOPY -- f /x\n", context={"f": "f\n"}),
    _case("flag-twice", "FROM scratch\nCOPY --chown=1 --chown=2 f /x\n", context={"f": "f\n"}, fails=True),
    _case("flag-empty", "FROM scratch\nCOPY --chown= f /x\n", context={"f": "f\n"}),
    _case("flag-without-value", "FROM scratch\nCOPY --chown f /x\n", context={"f": "f\n"}, fails=True),
    _case("flag-after-words", "FROM scratch\nCOPY f --chown=1 /x\n", context={"f": "f\n"}, fails=True),
    _case("from-as-missing-name", "FROM scratch AS\n", fails=True),
    _case("from-quoted", 'FROM "scratch"\nENV a=1\n'),
    _case("unicode-blanks", "FROM scratch\nENV a=x\u00a0b=\u3000c=y\n"),
    _case("long-line", f"FROM scratch\nENV a={'x' * 60000}\n"),
]
