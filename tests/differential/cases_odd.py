"""Odd but possible: what people write by accident, or to see what happens."""

from __future__ import annotations

from cases import Case, Context, Dir, File, Link

__all__ = ["CASES"]

TREE: Context = {
    "a": "a\n",
    "b c": "b c\n",
    "d/e/f": "f\n",
    "d/g": File("g\n", 0o4711),
    "-dash": "dash\n",
    "$dollar": "dollar\n",
    "empty": Dir(0o2775),
    "loop": Link("."),
    "up": Link("../../../d/g"),
    "a'b\"c": "quotes\n",
    "\\back": "slash\n",
}

CASES = [
    Case(f"odd-{name}", f"FROM differential\n{text}", TREE, args)
    for name, text, args in (
        ("copy-everything-twice", "COPY . /x\nCOPY . /x\n", ()),
        ("copy-through-own-loop", "COPY loop/loop/d/e /x/\n", ()),
        ("copy-link-that-leaves", "COPY up /x\n", ()),
        ("copy-dash", "COPY ./-dash -dash /x/\n", ()),
        ("copy-dollar", "COPY \\$dollar '$dollar' /x/\n", ()),
        ("copy-json-blanks", 'COPY [ "b c" , "a" , "/x y/" ]\n', ()),
        ("copy-dots", "WORKDIR /real/deep\nCOPY a ../../../../tmp/./../x/\n", ()),
        ("copy-onto-base-link", "COPY d /todir\nCOPY a /todir/../new\n", ()),
        ("copy-empty-over-full", "COPY d /x\nCOPY empty /x\n", ()),
        ("copy-slash-slash", "COPY //d//e// //x//y//\n", ()),
        ("env-of-itself", "ENV A=$A:1\nENV A=$A:2 B=$A\nENV C ${A} and ${B:-none} # no comment\n", ()),
        ("env-quotes", 'ENV A=\'a b\' B="c d" C=e\\ f D=g\'h\'"i"j E=\nENV F "quoted" text\n', ()),
        ("env-escapes", 'ENV A=\\$B B="\\$C" C=\'\\$D\' D=\\\\ E="\\"" F=\\\'\n', ()),
        ("arg-over-env-over-arg", "ARG A=1\nENV A=2\nARG A=3\nENV B=$A\nLABEL c=$A\n", ("--build-arg", "A=4")),
        ("arg-many", "ARG A=1 B=$A C\nARG D=${C:-x}${B}\nLABEL d=$D\n", ("--build-arg", "C=9")),
        ("label-keys", 'LABEL "a b"="c d" e.f-g_h=i \'j\'=k "multi\\\nline"="x\\\ny"\n', ()),
        ("label-equals", 'LABEL a==b c="d=e" f=\n', ()),
        ("cmd-then-entrypoint", 'CMD echo hi\nENTRYPOINT ["x"]\nSHELL ["/bin/sh", "-ec"]\nCMD late\n', ()),
        ("workdir-variables", "ENV A=/q\nWORKDIR $A/${A#/}/${UNSET}\nWORKDIR ..\nWORKDIR ./r s\nCOPY a .\n", ()),
        ("case-of-everything", 'copy a /x\nenv A=b\nWoRkDiR /w\nCmD ["a"]\nlabel x=y\nexpose 80/TCP 90/udp\n', ()),
        ("comments-everywhere", "# a\nCOPY \\\n# b\n a \\\n   # c\n\\\n /x\n#\n ENV A=b\n\t# d\n", ()),
        ("tabs", "\tCOPY\ta\t/x\n\tENV\tA=b\tC=d\n\tUSER\tapp\n", ()),
        ("user-and-owner", "USER app:staff\nWORKDIR /w/x\nCOPY a .\nUSER 7\nWORKDIR y\nUSER root\nWORKDIR z\n", ()),
        ("volume-forms", 'VOLUME /a /b\nVOLUME ["/c d", "/e"]\nVOLUME /a\nENV V=/v\nVOLUME $V/x ${V}y\n', ()),
        ("onbuild-of-stages", "ONBUILD COPY a /got\nONBUILD ENV X=$Y\nENV Y=y\n", ()),
        ("arg-names", "ARG A=x\nARG B$A=1\nENV C=$Bx D=$B\n", ()),
        ("stages-shadow", "FROM scratch AS differential\nCOPY a /x\nFROM differential\nCOPY d /y\n", ()),
        (
            "stage-number-names",
            "FROM differential AS one\nCOPY a /1\nFROM scratch\nCOPY --from=0 /data /z\nCOPY --from=one /1 /\n",
            (),
        ),
        ("healthcheck-twice", 'HEALTHCHECK --interval=1m CMD a\nHEALTHCHECK --retries=3 CMD ["b", "c"]\n', ()),
        ("stopsignal", "ARG S=TERM\nSTOPSIGNAL SIG$S\nSTOPSIGNAL 9\n", ()),
        ("last-line-without-end", "COPY a /x\nENV A=b", ()),
        ("continuation-at-the-end", "COPY a /x\nENV A=b \\\n", ()),
        ("trailing-blanks", "COPY a /x   \nENV A=b  \nWORKDIR /w  \nUSER app \t\nSTOPSIGNAL 9 \n", ()),
    )
] + [
    Case(f"odd-bad-{name}", f"FROM differential\n{text}", TREE, fails=True)
    for name, text in (
        ("copy-quotes", 'COPY ["a\'b\\"c", "/x"]\n'),
        ("from-number", "ONBUILD COPY a /got\nFROM 0\n"),
        ("copy-one-word", "COPY a\n"),
        ("copy-nothing", "COPY\n"),
        ("copy-outside-json", 'COPY ["a"]\n'),
        ("env-no-value", "ENV A\n"),
        ("env-half", "ENV A=b C\n"),
        ("label-half", "LABEL A=b C\n"),
        ("quote-open", "ENV A='b\n"),
        ("brace-open", "ENV A=${B\n"),
        ("modifier", "ENV A=${B:x}\n"),
        ("no-such-stage-number", "COPY --from=7 /a /b\n"),
        ("flag-unknown", "COPY --form=a /a /b\n"),
        ("expose-word", "EXPOSE http\n"),
        ("stopsignal-word", "STOPSIGNAL NOPE\n"),
        ("health-interval", "HEALTHCHECK --interval=soon CMD a\n"),
        ("onbuild-onbuild", "ONBUILD ONBUILD RUN a\n"),
        ("shell-text", "SHELL /bin/sh -c\n"),
        ("user-nothing", "USER\n"),
        ("two-froms", "FROM a b\n"),
        ("cmd-numbers", "WORKDIR\n"),
        ("maintainer", "MAINTAINER\n"),
    )
]
