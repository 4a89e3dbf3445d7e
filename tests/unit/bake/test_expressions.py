"""Values of HCL expressions, and of every function that bake documents."""

from __future__ import annotations

from typing import Any

import pytest

from aerogel.bake.expressions import Scope, fault
from aerogel.bake.files import define
from aerogel.bake.functions import functions
from aerogel.bake.hcl_file import parse_hcl
from aerogel.errors import AerogelError, Source, Span

STOCK = functions()


def _no_file(name: str) -> Source:
    raise AssertionError(f"`{name}` is asked for")


def value(text: str, **names: Any) -> Any:
    def unknown(name: str, span: Span) -> Any:
        raise fault(f"`{name}` is unknown", span)

    def function(name: str, span: Span) -> Any:
        return STOCK[name] if name in STOCK else unknown(name, span)

    body = parse_hcl(Source("x.hcl", f"x = {text}\n".encode()))
    return body.attributes["x"].expression.value(Scope(unknown, function, names))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1 + 2 * 3 - 4 / 2", "5"),
        ("(1 + 2) * 3", "9"),
        ("-A + 1", "0"),
        ("0.1 + 0.2", "0.3"),
        ("7 % 4", "3"),
        ("1e3", "1000"),
        ("!true || A == 1 && A != 2", "true"),
        ('A == "1" ? "same" : "other"', "other"),
        ('A >= 1 ? "${A}-${B}" : null', "1-é"),
        ('"a\\tb \\"q\\" \\u00e9 $${x} %%{y}"', 'a\tb "q" é ${x} %{y}'),
        ('"%{ if A == 1 }one%{ else }many%{ endif }"', "one"),
        ('"%{ for i, x in ["a", "b"] }${i}${x} %{ endfor }"', "0a 1b "),
        ('"<%{ if true ~}  x  %{~ endif }>"', "<x>"),
        ('join(",", [for x in [3, 1, 2] : x * 2 if x > 1])', "6,4"),
        ("jsonencode({for k, v in {b = 1, a = 2} : upper(k) => v})", '{"A":2,"B":1}'),
        ('jsonencode({for x in ["ab", "ac", "b"] : substr(x, 0, 1) => x...})', '{"a":["ab","ac"],"b":["b"]}'),
        ('join(",", [{n = 1}, {n = 2}].*.n)', "1,2"),
        ('join(",", [{n = [5]}][*].n[0])', "5"),
        ('{a = {"b c" = [1, 2]}}.a["b c"][1]', "2"),
        ('jsonencode({ in = 1, "k k" = 2, (upper("x")) = 3, for = 4 })', '{"X":3,"for":4,"in":1,"k k":2}'),
        ("max([1, 5, 3]...)", "5"),
        ("try(MISSING, A.b, 7)", "7"),
        ('"${can(MISSING)} ${can(A)}"', "false true"),
        ('convert("5", number) + 1', "6"),
        ('jsonencode(convert({a = "1"}, map(number)))', '{"a":1}'),
        ('<<EOT\n  a "${B}" \\n\n$${x}\nEOT', '  a "é" \\n\n${x}\n'),
        ("<<-EOT\n    a\n      b\n\n    EOT", "a\n  b\n\n"),
        ('upper(\n  "x",\n)', "X"),
    ],
)
def test_expressions(text: str, expected: str) -> None:
    from aerogel.bake.values import to_text

    assert to_text(value(text, A=1, B="é")) == expected


FUNCTIONS = {
    "absolute(-42)": "42", "add(123, 1)": "124", "and(true, false)": "false", 'base64decode("ZG9ja2Vy")': "docker",
    'base64encode("docker")': "ZG9ja2Vy", 'basename("/usr/bin/docker")': "docker", 'byteslen("Docker")': "6",
    'bytesslice("Docker", 0, 3)': "Doc", "ceil(3.14)": "4", 'chomp("x\\n\\n")': "x",
    "jsonencode(chunklist([1, 2, 3], 2))": "[[1,2],[3]]", 'cidrhost("10.0.0.0/16", 5)': "10.0.0.5",
    'cidrnetmask("10.0.0.0/16")': "255.255.0.0", 'cidrsubnet("10.0.0.0/16", 4, 2)': "10.0.32.0/20",
    'join(" ", cidrsubnets("10.0.0.0/16", 4, 4, 8))': "10.0.0.0/20 10.0.16.0/20 10.0.32.0/24",
    'coalesce(null, "", "docker")': "", "jsonencode(coalescelist([], [1]))": "[1]",
    'jsonencode(compact(["a", "", "b"]))': '["a","b"]', "jsonencode(concat([1], [2, 3]))": "[1,2,3]",
    'contains(["a"], "a")': "true", 'jsonencode(csvdecode("n,a\\nx,1\\n"))': '[{"a":"1","n":"x"}]',
    'dirname("/usr/bin/docker")': "/usr/bin", "jsonencode(distinct([1, 2, 1]))": "[1,2]", "divide(10, 4)": "2.5",
    'element(["a", "b"], 3)': "b", 'equal(1, "1")': "false", "jsonencode(flatten([[1], [[2]], 3]))": "[1,2,3]",
    "floor(-3.5)": "-4", 'format("%s:%03d|%-4s|%5.2f|%t|%q|%x|%v", "a", 7, "b", 3.14159, true, "c", 255, [1])':
    'a:007|b   | 3.14|true|"c"|ff|[1]', 'join(",", formatlist("%s-%s", ["a", "b"], "x"))': "a-x,b-x",
    'formatdate("YYYY-MM-DD", "2025-09-16T12:00:00Z")': "2025-09-16",
    "formattimestamp(\"EEE, DD MMM YYYY hh:mm:ss ZZZ 'at' HAA\", \"2015-10-21T13:05:00Z\")":
    "Wed, 21 Oct 2015 13:05:00 UTC at 1PM", 'formattimestamp("X", "2015-10-21T00:00:00Z")': "1445385600",
    "greaterthan(2, 5)": "false", "greaterthanorequalto(5, 5)": "true", "hasindex([1], 1)": "false",
    'indent(2, "a\\nb")': "a\n  b", 'index({a = 5}, "a")': "5", 'indexof(["a", "b"], "b")': "1", "int(-3.7)": "-3",
    'join("-", ["a"], ["b", "c"])': "a-b-c", 'jsondecode("{\\"a\\": [1, 2.5]}").a[1]': "2.5",
    'join(",", keys({foo = 1, bar = 2}))': "bar,foo", "length({a = 1})": "1", "lessthan(2, 5)": "true",
    "lessthanorequalto(5, 4)": "false", "log(100, 10)": "2", 'lookup({a = 1}, "b", 9)': "9", 'lower("ABC")': "abc",
    "max(1, 5)": "5", 'md5("docker")': "05b6053c41a2130afd6fc3b158bda4e6",
    "jsonencode(merge({a = 1, b = 1}, {b = 2}))": '{"a":1,"b":2}', "min(1, 5)": "1", "modulo(10, 3)": "1",
    "multiply(3, 4)": "12", "negate(7)": "-7", "not(true)": "false", "notequal(4, 5)": "true", "or(true, false)": "true",
    'parseint("ff", 16)': "255", "pow(3, 2)": "9", "jsonencode(range(3))": "[0,1,2]",
    "jsonencode(range(3, 0, -2))": "[3,1]", 'regex("h(.)llo", "hello")[0]': "e",
    'jsonencode(regex("(?P<a>l+)o", "hello"))': '{"a":"ll"}', 'jsonencode(regexall("[a-z]+", "ab12c"))': '["ab","c"]',
    'regex_replace("abc123", "([0-9]+)", "<$1>")': "abc<123>", 'replace("banana", "na", "--")': "ba----",
    'reverse("docker")': "rekcod", "jsonencode(reverselist([1, 2]))": "[2,1]", 'sanitize("My App! v1.0")': "My_App__v1_0",
    'semvercmp("1.2.3", ">= 1.2, < 2")': "true", 'semvercmp("2.0.0-rc.1", "~1.4 || >=2.0.0")': "false",
    'semvercmp("0.2.9", "^0.2.3")': "true", 'semvercmp("1.5.0", "1.2 - 1.4.5")': "false", "sethaselement([1], 1)": "true",
    "jsonencode(setintersection([1, 2], [2, 3]))": "[2]", 'jsonencode(setproduct(["a"], [1, 2]))': '[["a",1],["a",2]]',
    "jsonencode(setsubtract([1, 2], [2]))": "[1]", "jsonencode(setsymmetricdifference([1, 2], [2, 3]))": "[1,3]",
    "jsonencode(setunion([2], [1]))": "[1,2]", 'sha1("hello")': "aaf4c61ddcc5e8a2dabede0f3b482cd9aea9434d",
    'substr(sha256("hello"), 0, 8)': "2cf24dba", 'substr(sha512("hello"), 0, 8)': "9b71d224", "signum(-7)": "-1",
    "jsonencode(slice([1, 2, 3], 1, 3))": "[2,3]", 'join("", sort(["b", "a"]))': "ab", 'join("|", split(",", "a,b"))': "a|b",
    'strlen("dé")': "2", 'substr("docker", -3, -1)': "ker", "subtract(7, 10)": "-3",
    'timeadd("2025-01-01T00:00:00Z", "1h30m")': "2025-01-01T01:30:00Z", "strlen(timestamp())": "20",
    'title("hello world")': "Hello World", 'trim("--x--", "-")': "x", 'trimprefix("v1", "v")': "1",
    'trimspace(" x\\n")': "x", 'trimsuffix("a.txt", ".txt")': "a", "unixtimestampparse(1690328596).rfc3339":
    "2023-07-25T23:43:16Z", 'upper("é")': "É", 'urlencode("a b&c")': "a+b%26c", "strlen(uuidv4())": "36",
    'uuidv5("dns", "example.com")': "cfbff0d1-9375-5685-968c-48ce8b15ae17", "jsonencode(values({b = 2, a = 1}))": "[1,2]",
    'jsonencode(zipmap(["a"], [1]))': '{"a":1}', "substr(homedir(), 0, 1)": "/",
}  # fmt: skip


@pytest.mark.parametrize("text", FUNCTIONS)
def test_functions(text: str) -> None:
    from aerogel.bake.values import to_text

    assert to_text(value(text)) == FUNCTIONS[text]


def test_every_documented_function_is_there() -> None:
    tried = {text.partition("(")[0] for text in FUNCTIONS} | {
        word for text in FUNCTIONS for word in STOCK if f"{word}(" in text
    }
    assert set(STOCK) - tried == {"bcrypt", "rsadecrypt"}
    assert len(STOCK) + len(("try", "can", "convert")) == 106


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 / 0", "a number is divided by zero"),
        ('1 + "x"', "`x` is not a number"),
        ('"${[1]}x"', "this cannot be put into a string: a string is needed, not a list"),
        ("[1][3]", "there is no element 3: the list has 1"),
        ("{a = 1}.b", "there is no attribute `b`"),
        ('upper("a", "b")', "upper: it does not take 2 arguments"),
        ('bcrypt("x")', "bcrypt: `bcrypt` is not supported: it would need a library for one function"),
        ('regex("(", "x")', "regex: `(` is no regular expression: missing ), unterminated subpattern at position 0"),
        ("range(5000)", "range: a range of 5000 numbers is more than 1024"),
        ('"%{ if true }x"', "a template has no end: `%{endif}` or `%{endfor}` is missing"),
        ("true ? 1", "something is missing at the end of this line"),
        ('"\\q"', "`\\q` is no escape"),
        ("[" * 3000 + "]" * 3000, "the expression is nested too deeply"),
    ],
)
def test_faults(text: str, message: str) -> None:
    with pytest.raises(AerogelError) as caught:
        value(text)
    assert caught.value.message == message
    assert caught.value.span is not None


@pytest.mark.parametrize(
    ("text", "message", "line", "column", "marked"),
    [
        ('target "a" { tags = ["x" }\n', "`}` is not expected here", 1, 26, "}"),
        ('target "a" {\n  tgas = ["x"]\n}\n', "a target has no attribute `tgas`", 2, 3, "tgas"),
        ('targte "a" {}\n', "there is no block `targte`", 1, 1, "targte"),
        ('target "a" { tags = [nope] }\n', "there is no variable `nope`", 1, 22, "nope"),
        ('target "a" { tags = ["${upper(1, 2)}"] }\n', "upper: it does not take 2 arguments", 1, 25, "upper(1, 2)"),
        (
            'target "a" {\n  dockerfile = <<EOT\nx\n}\n',
            "the here-document has no line `EOT` that ends it",
            2,
            16,
            "<<EOT",
        ),
        ('target "ä" {}\ntarget "b c" {}\n', "`ä` cannot be the name of a target", 1, 8, '"ä"'),
    ],
)
def test_places(text: str, message: str, line: int, column: int, marked: str) -> None:
    """The line, the column and the caret of what an error is about."""
    with pytest.raises(AerogelError) as caught:
        define([Source("docker-bake.hcl", text.encode())], lambda _: None, lambda _: None, {}, _no_file)
    assert caught.value.message == message
    assert caught.value.span is not None
    assert (caught.value.span.line, caught.value.span.column, caught.value.span.text) == (line, column, marked)


def test_a_function_that_calls_itself_ends() -> None:
    text = 'function "f" {\n params = [x]\n result = f(x)\n}\ntarget "a" { tags = [f(1)] }\n'
    with pytest.raises(AerogelError, match="without end"):
        define([Source("docker-bake.hcl", text.encode())], lambda _: None, lambda _: None, {}, _no_file)


def test_random_text_gives_values_or_faults_with_places() -> None:
    from random import Random

    pieces = [
        "${",
        "}",
        "%{",
        '"',
        "a",
        "1",
        "+",
        "[",
        "]",
        "(",
        ")",
        "{",
        "=",
        ":",
        "?",
        "for",
        " in ",
        "<<E\n",
        "E\n",
        ".",
        "é",
        "\\",
    ]
    random = Random(8)
    for _ in range(400):
        text = "".join(random.choice(pieces) for _ in range(random.randint(1, 12)))
        source = Source("docker-bake.hcl", f'target "a" {{\n tags = [{text}]\n}}\n'.encode())
        error = None
        try:
            define([source], lambda _: None, lambda _: None, {}, _no_file)
        except AerogelError as caught:
            error = caught
        assert error is None or (error.code.startswith("bake.") and error.span is not None), text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 / 0", "divided by zero"),
        ("7 % 0", "divided by zero"),
        ("1e99999999999", "a number is too large"),
        ("1e999999999 * 10", "a number is too large"),
        ("1e900 * 1e900", "a number is too large"),
        ("1e-900 * 1e-900", "too many digits"),
        ('"1e999999999" + 1', "a number is too large"),
        ('jsondecode("1e99999999")', "a number is too large"),
        ('indent(1e12, "a\\nb")', "the text is too long"),
        ('format("%1000000000d", 1)', "more characters than a text may have"),
        ('format("%.1000000000f", 1)', "more characters than a text may have"),
        ('replace(format("%900000s", "a"), " ", format("%900000s", "a"))', "the text is too long"),
        ('timeadd("9999-12-31T23:59:59Z", "1000h")', "this has no value"),
    ],
)
def test_what_is_beyond_all_measure_is_an_error_at_once(text: str, message: str) -> None:
    with pytest.raises(AerogelError, match=message) as caught:
        value(text)
    assert caught.value.span is not None


def test_texts_that_double_end() -> None:
    lines = ['variable "a0" { default = "aaaaaaaaaaaaaaaa" }']
    lines += [f'variable "a{n + 1}" {{ default = "${{a{n}}}${{a{n}}}" }}' for n in range(40)]
    lines.append('target "default" { tags = [a40] }')
    source = Source("x.hcl", "\n".join(lines).encode())
    with pytest.raises(AerogelError, match="the text is too long"):
        define([source], lambda _: None, lambda _: None, {}, _no_file)


def test_numbers_of_json_files_are_measured_too() -> None:
    source = Source("docker-bake.json", b'{"target": {"t": {"args": {"v": 1e99999}}}}')
    with pytest.raises(AerogelError, match="a number is too large") as caught:
        define([source], lambda _: None, lambda _: None, {}, _no_file)
    assert caught.value.code == "bake.value"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("docker-bake.json", '{"target":' + '{"a":' * 100_000, "nested too deeply"),
        ("compose.yaml", "a: " + "[" * 5_000 + "]" * 5_000, "nested too deeply"),
        (
            "compose.yaml",
            "a: &a0 [x]\n"
            + "".join(f"k{n}: &a{n + 1} [{', '.join([f'*a{n}'] * 9)}]\n" for n in range(12))
            + "services:\n  x:\n    build: .\n",
            "more than 1000000 values",
        ),
    ],
    ids=["json", "yaml", "aliases"],
)
def test_files_that_are_too_deep_or_too_large_inside(name: str, text: str, message: str) -> None:
    with pytest.raises(AerogelError, match=message) as caught:
        define([Source(name, text.encode())], lambda _: None, lambda _: None, {}, _no_file)
    assert caught.value.code == "bake.syntax"
