"""Reading configurations, replacing variables, and asking trees and configs; verdicts against the real program are in
`integration/test_structure.py`."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from aerogel.errors import AerogelError, Source
from aerogel.files.entry import CHR, DIR, REG, SYM, Entry
from aerogel.files.index import LayerIndex
from aerogel.files.tree import LayerTree
from aerogel.oci.types import ContainerConfig
from aerogel.structure import checks, report
from aerogel.structure.config import CommandTest, ExistenceTest, LicenseTest, MetadataTest, Variable, read_config
from aerogel.structure.expand import expand


def read(text: str, name: str = "a.yaml"):
    return read_config(Source(name, text.encode()))


def test_every_key_is_read():
    config = read("""schemaVersion: "2.0.0"
globalEnvVars: [{key: A, value: b}]
containerRunOptions:
  {user: "1:2", privileged: yes, allocateTty: on, envFile: e, envVars: [X], capabilities: [ALL], bindMounts: ["/a:/b"]}
commandTests:
- &one {name: n, command: c, args: [1, yes, 0x10], setup: [[s]], teardown: [[t, u]], envVars: [{key: k, value: v}],
   exitCode: -3, expectedOutput: [a], excludedOutput: [b], expectedError: [c], excludedError: [d]}
- {<<: *one, name: m}
fileExistenceTests: [{name: n, path: p, shouldExist: no, permissions: -rw-r--r--, uid: 1, gid: 2, isExecutableBy: any}]
fileContentTests: [{name: n, path: p, expectedContents: [a], excludedContents: [b]}]
licenseTests: [{debian: true, files: [f]}]
metadataTest: {envVars: [{key: k, value: v, isRegex: true}], unboundEnvVars: [{key: u}], exposedPorts: [80],
  unexposedPorts: ['1'], entrypoint: [], cmd: null, workdir: /w, user: u, volumes: [/v], unmountedVolumes: [/x],
  labels: [{key: l, value: ''}]}
""")
    assert config.size == 6
    assert config.run_options.privileged
    assert config.run_options.tty
    first, second = config.commands
    assert first.args == ("1", "yes", "0x10")
    assert (second.name, second.exit_code, second.teardown) == ("m", -3, (("t", "u"),))
    assert config.existences[0] == ExistenceTest(
        name="n", path="p", should_exist=False, permissions="-rw-r--r--", uid=1, gid=2, is_executable_by="any"
    )
    assert config.metadata == MetadataTest(
        env=(Variable("k", "v", is_regex=True),), unbound_env=("u",), labels=(Variable("l"),), exposed_ports=("80",),
        unexposed_ports=("1",), entrypoint=(), cmd=None, workdir="/w", user="u", volumes=("/v",), unmounted_volumes=("/x",),
    )  # fmt: skip


def test_json_has_the_same_defaults():
    config = read('{"schemaVersion": "2.0.0", "fileExistenceTests": [{"name": "a", "path": "/b"}]}', "a.json")
    assert config.existences == (ExistenceTest(name="a", path="/b"),)


@pytest.mark.parametrize(
    ("text", "message", "line"),
    [
        ("", "the file is empty", 0),
        ("a: [", "the file is no YAML", 1),
        ("schemaVersion: 1.0.0", "only 2.0.0 is read", 1),
        ("commandTests: []", "does not say its `schemaVersion`", 1),
        ("schemaVersion: 2.0.0\ncomandTests: []", "`comandTests` is no key", 2),
        ("schemaVersion: 2.0.0\ncomandTests:\n- {name: a}", "`comandTests` is no key", 2),
        ("schemaVersion: 2.0.0\nschemaVersion: 2.0.0", "`schemaVersion` is there twice", 2),
        ("schemaVersion: 2.0.0\ncommandTests:\n- {name: a}", "`commandTests[0]` has no `command`", 3),
        ("schemaVersion: 2.0.0\ncommandTests:\n- {name: a, command: b, args: c}", "is to be a list", 3),
        ("schemaVersion: 2.0.0\ncommandTests:\n- {name: a, command: b, exitCode: x}", "is to be a number", 3),
        ("schemaVersion: 2.0.0\ncommandTests:\n- {name: a, command: b, setup: [[]]}", "is an empty command", 3),
        ("schemaVersion: 2.0.0\nfileContentTests:\n- name: a\n  path: b\n  expectedContents: ['(']", "no expression", 5),
        ("schemaVersion: 2.0.0\nfileExistenceTests:\n- {name: a, path: b, permissions: 0644}", "can never be", 3),
        ("schemaVersion: 2.0.0\nfileExistenceTests:\n- {name: a, path: b, isExecutableBy: me}", "`owner`, `group`", 3),
        ("schemaVersion: 2.0.0\nmetadataTest: {envVars: [{value: b}]}", "has no `key`", 2),
        ("schemaVersion: 2.0.0\na: &a [x]\nb: &b [*a,*a]\n" + "".join(
            f"c{n}: &c{n} [{','.join([f'*c{n - 1}' if n else '*b'] * 9)}]\n" for n in range(9)), "too large", 0),
    ],
)  # fmt: skip
def test_faults_have_a_place(text: str, message: str, line: int):
    with pytest.raises(AerogelError) as caught:
        read(text)
    assert message in caught.value.message
    assert caught.value.code == "test.config"
    assert not line or (caught.value.span is not None and caught.value.span.line == line)


@pytest.mark.parametrize(
    ("text", "message", "line", "shown"),
    [
        ('{"schemaVersion": "2.0.0",\n "comandTests": []}', "`comandTests` is no key", 2, '"comandTests"'),
        ('{"schemaVersion": "2.0.0",\n\t"é": "\\"}", "commandTests": [\n{"name": "a"}]}', "`é` is no key", 2, '"é"'),
        ('{"schemaVersion": "2.0.0", "commandTests": [\n {"name": "a"}]}', "has no `command`", 2, '{"name": "a"}'),
        ('{"schemaVersion": "2.0.0", "commandTests": [{"name": "é",\n"command": "b", "args": "c"}]}', "is to be a list", 2, '"c"'),
        ('{"schemaVersion": "2.0.0", "commandTests": [{"name": "a", "command": "b",\n "exitCode": 1.5}]}', "is to be a number", 2, "1.5"),
        ('{"schemaVersion": "2.0.0",\n "schemaVersion": "2.0.0"}', "`schemaVersion` is there twice", 2, '"schemaVersion"'),
        ('{"schemaVersion": "2.0.0",\n "commandTests": [' + "[" * 30 + "]" * 30 + "]}", "nested too deep", 2, None),
        ('{"schemaVersion": "1.0.0"}', "only 2.0.0 is read", 1, '"1.0.0"'),
        ('{"schemaVersion": }', "the file is no JSON", 1, None),
    ],
)  # fmt: skip
def test_faults_in_json_have_a_place(text: str, message: str, line: int, shown: str | None):
    with pytest.raises(AerogelError) as caught:
        read(text, "a.json")
    span = caught.value.span
    assert message in caught.value.message
    assert span is not None
    assert span.line == line
    assert shown is None or span.source.data[span.start : span.end].decode() == shown


@pytest.mark.parametrize(
    ("text", "made"),
    [("$A", "1"), ("${A}b", "1b"), ("$Ab", ""), ("$", "$"), ("a$", "a$"), ("$ a", "$ a"), ("${", ""), ("${}", ""),
     ("$$A", "A"), ("$1", ""), ("${A", "A"), ("a$A$B.", "a12."), ("é$A", "é1"), ("$*x", "x"), ("${A:-b}", "")],
)  # fmt: skip
def test_variables_as_go_replaces_them(text: str, made: str):
    assert expand(text, {"A": "1", "B": "2"}) == made


def entry(path: str, kind: int = REG, mode: int = 0o644, *, link: str = "", size: int = 0) -> Entry:
    return Entry(path.encode(), kind, mode, 1, 2, size, 0, link.encode(), (0, 0), ())


def subject(*entries: Entry, contents: dict[bytes, bytes] | None = None, **config) -> checks.Subject:
    tree = LayerTree([LayerIndex(list(entries), [0] * len(entries))])
    return checks.Subject(tree, ContainerConfig(**config), dict(contents or {}))


@pytest.mark.parametrize(
    ("one", "shown"),
    [
        (entry("a"), "-rw-r--r--"),
        (entry("a", DIR, 0o1777), "dtrwxrwxrwx"),
        (entry("a", REG, 0o4755), "urwxr-xr-x"),
        (entry("a", REG, 0o2755), "grwxr-xr-x"),
        (entry("a", SYM, 0, link="b"), "Lrwxrwxrwx"),
        (entry("a", CHR, 0o666), "Dcrw-rw-rw-"),
    ],
)
def test_modes_as_go_shows_them(one: Entry, shown: str):
    assert checks.mode_text(one) == shown


def test_links_lead_nowhere_outside():
    asked = subject(
        entry("etc", DIR, 0o755),
        entry("etc/hostname", SYM, link="../../../../../../../etc/hostname"),
        entry("loop", SYM, link="loop"),
        entry("out", SYM, link="/etc"),
    )
    assert asked.read("/etc/hostname") == (
        "path `/etc/hostname` goes through more than 40 symbolic links; "
        "`/etc/hostname` points to `../../../../../../../etc/hostname`"
    )
    assert isinstance(asked.read("/loop"), str)
    assert asked.read("/out/passwd") == "`/out/passwd` is not in the image"
    assert checks.check_existence(ExistenceTest(name="a", path="/loop", permissions="Lrwxrwxrwx"), asked) == []
    (fault,) = checks.check_existence(ExistenceTest(name="a", path="/../../etc/passwd"), asked)
    assert "is not in the image" in fault


def test_owners_and_rights():
    asked = subject(entry("a", REG, 0o710), env=("P=/a",))
    assert (
        checks.check_existence(ExistenceTest(name="a", path="$P", uid=1, gid=2, is_executable_by="group"), asked) == []
    )
    faults = checks.check_existence(ExistenceTest(name="a", path="/a", uid=0, gid=0, is_executable_by="other"), asked)
    assert [fault.partition("\n")[0] for fault in faults] == [
        "`/a` is not executable by other: it is -rwx--x---",
        "owner of `/a`",
        "group of `/a`",
    ]


def test_what_is_there_and_should_not_be():
    asked = subject(entry("a"), entry("folder", DIR, 0o755), entry("l", SYM, link="nowhere"))
    for path in ("/a", "/folder", "/l"):
        (fault,) = checks.check_existence(ExistenceTest(name="x", path=path, should_exist=False), asked)
        assert fault == f"`{path}` is in the image, and should not be"
    assert checks.check_existence(ExistenceTest(name="x", path="/b", should_exist=False), asked) == []
    (fault,) = checks.check_existence(ExistenceTest(name="x", path="/a", permissions="-rwxr-xr-x"), asked)
    assert fault == "permissions of `/a`\n- -rwxr-xr-x\n+ -rw-r--r--"


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ({}, None),
        ({"exit_code": 1}, "exit status\n- 1\n+ 0"),
        ({"expected_output": ("one", "two")}, None),
        ({"expected_output": ("three",)}, "standard output has nothing that matches\n- three"),
        ({"excluded_output": ("tw.",)}, "standard output has what it should not, in line 2\n- not: tw.\n+ two"),
        ({"expected_error": ("bad",)}, None),
        ({"expected_error": ("one",)}, "standard error has nothing that matches\n- one"),
        ({"excluded_error": ("bad",)}, "standard error has what it should not, in line 1\n- not: bad"),
    ],
)
def test_how_a_command_went(given: dict[str, object], fault: str | None):
    test = CommandTest(name="x", command="x", **given)  # type: ignore[arg-type]  # fields by name
    faults = checks.check_output(test, "one\ntwo\n", "bad\n", 0)
    assert [each[: len(fault or "")] for each in faults] == ([fault] if fault else [])


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ({"env": (Variable("A", "1.3"),)}, "variable `A`\n- 1.3\n+ 123"),
        ({"env": (Variable("A", "1.3", is_regex=True),)}, None),
        ({"env": (Variable("B", ""),)}, "variable `B` is not set"),
        ({"labels": (Variable("l", "n"),)}, "label `l`\n- n\n+ m"),
        ({"unbound_env": ("A",)}, "variable `A` is set to `123`, and should not be"),
        ({"entrypoint": ("a",)}, 'entrypoint\n- ["a"]\n+ ["e", "f"]'),
        ({"cmd": ()}, 'cmd\n- []\n+ ["c"]'),
        ({"workdir": "/x"}, "workdir\n- /x\n+ /w"),
        ({"user": "0"}, "user\n- 0\n+ u"),
        ({"exposed_ports": ("80",)}, "port `80` is not in the config, which has `81`"),
        ({"unexposed_ports": ("81",)}, "port `81` is in the config, and should not be"),
        ({"volumes": ("/y",)}, "volume `/y` is not in the config, which has `/v`"),
        ({"unmounted_volumes": ("/v",)}, "volume `/v` is in the config, and should not be"),
        ({"entrypoint": ("e", "f"), "cmd": ("c",), "workdir": "/w", "user": "u", "volumes": ("/v",)}, None),
    ],
)
def test_what_a_config_says(given: dict[str, object], fault: str | None):
    config = ContainerConfig(
        env=("A=123",), labels={"l": "m"}, entrypoint=("e", "f"), cmd=("c",), working_dir="/w", user="u",
        exposed_ports={"81/tcp": {}}, volumes={"/v": {}},
    )  # fmt: skip
    test = MetadataTest(**given)  # type: ignore[arg-type]  # fields by name
    assert checks.check_metadata(test, config) == ([fault] if fault else [])


def test_licences():
    doc = "usr/share/doc"
    names = ("libgnutls30", "good", "bad", "none")
    entries = [entry(f"{doc}/{name}", DIR, 0o755) for name in names]
    entries += [entry(f"{doc}/{name}/copyright") for name in names[:3]]
    contents = {f"{doc}/{name}/copyright".encode(): b"agpl-3" if name != "good" else b"MIT" for name in names[:3]}
    found = checks.check_licenses(LicenseTest(debian=True, files=("/nowhere",)), subject(*entries, contents=contents))
    assert found == [
        "`/usr/share/doc/bad/copyright` names the licence AGPL",
        "`/usr/share/doc/none/copyright` is not in the image",
        "`/nowhere` is not in the image",
    ]


def test_reports():
    verdicts = [
        report.Verdict(file="a.yaml", kind="command", name="one", passed=True, stdout="\x1b[0m<&", duration_s=0.25),
        report.Verdict(file="b.yaml", kind="content", name='t"wo', passed=False, faults=("wrong\n- a\n+ b",)),
    ]
    assert report.text(verdicts, "app", quiet=True) == (
        'FAILED  content    t"wo\n        wrong\n        - a\n        + b\napp: 1 passed, 1 failed (0.25 s)'
    )
    root = ET.fromstring(report.junit(verdicts, "app"))
    assert root.attrib == {"name": "app", "tests": "2", "failures": "1", "time": "0.250"}
    assert [suite.get("name") for suite in root] == ["a.yaml", "b.yaml"]
    failure = root.find("testsuite/testcase/failure")
    assert failure is not None
    assert (failure.get("message"), failure.text) == ("wrong", "wrong\n- a\n+ b")
    assert root.findtext("testsuite/testcase/system-out") == "\ufffd[0m<&"
