"""The formatter keeps tree and comments, and has nothing left to do the second time."""

from __future__ import annotations

from aerogel.dockerfile.format import format_dockerfile, shape
from aerogel.dockerfile.parse import parse
from aerogel.errors import Source

UNTIDY = """\
\ufeff# escape=`\r


  from   a`\r
 as b  \r



# c  \x20
run  x `
  # inside \x20

  y
copy a`
# x
b  `
        c d/
\tenv\ta=b `  \x20

 c="d `
 e" `
 f=g
run <<EOF
  a \x20

EOF
cmd [ "a", `
"b"]
onbuild  run  x


"""

TIDY = """\
# escape=`

FROM a`
    AS b

# c
RUN x `
  # inside
  y
COPY a`
# x
b  `
    c d/
ENV a=b `
    c="d `
 e" `
    f=g
RUN <<EOF
  a \x20

EOF
CMD [ "a", `
    "b"]
ONBUILD run  x
"""


def test_format() -> None:
    dockerfile = parse(Source("Dockerfile", UNTIDY.encode()))
    text = format_dockerfile(dockerfile)
    assert text.decode() == TIDY
    again = parse(Source("Dockerfile", text))
    assert shape(again) == shape(dockerfile)
    assert format_dockerfile(again) == text
