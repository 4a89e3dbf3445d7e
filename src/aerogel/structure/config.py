"""The configuration of structure tests: container-structure-test's schema 2.0.0, YAML or JSON.

Unknown keys are faults, as there. One thing is not as there: in a JSON file, what is left out has the defaults that a
YAML file gives it. Spec: GoogleContainerTools/container-structure-test, README and pkg/types/v2.
"""

from __future__ import annotations

import re

from msgspec import Struct

from aerogel.errors import Source
from aerogel.structure.document import Value, fault, parse
from aerogel.structure.goregex import RegexFault, translate

__all__ = [
    "CommandTest",
    "Config",
    "ContentTest",
    "ExistenceTest",
    "LicenseTest",
    "MetadataTest",
    "RunOptions",
    "Variable",
    "read_config",
]

VERSION = "2.0.0"


class Variable(Struct, frozen=True):
    """A variable or a label."""

    key: str
    value: str = ""
    is_regex: bool = False


class CommandTest(Struct, frozen=True, kw_only=True):
    """Runs a command. Texts of `expected_*` and `excluded_*` are expressions of Go that match anywhere."""

    name: str
    command: str
    args: tuple[str, ...] = ()
    setup: tuple[tuple[str, ...], ...] = ()
    teardown: tuple[tuple[str, ...], ...] = ()
    env: tuple[Variable, ...] = ()
    exit_code: int = 0
    expected_output: tuple[str, ...] = ()
    excluded_output: tuple[str, ...] = ()
    expected_error: tuple[str, ...] = ()
    excluded_error: tuple[str, ...] = ()


class ExistenceTest(Struct, frozen=True, kw_only=True):
    """A path that is there, or not. `permissions` as Go shows a mode; owners of -1 are not asked for."""

    name: str
    path: str
    should_exist: bool = True
    permissions: str = ""
    uid: int = -1
    gid: int = -1
    is_executable_by: str = ""


class ContentTest(Struct, frozen=True, kw_only=True):
    """What is in a file."""

    name: str
    path: str
    expected: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()


class MetadataTest(Struct, frozen=True, kw_only=True):
    """What the image's config says; None is not asked for."""

    env: tuple[Variable, ...] = ()
    unbound_env: tuple[str, ...] = ()
    labels: tuple[Variable, ...] = ()
    exposed_ports: tuple[str, ...] = ()
    unexposed_ports: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] | None = None
    cmd: tuple[str, ...] | None = None
    workdir: str = ""
    user: str = ""
    volumes: tuple[str, ...] = ()
    unmounted_volumes: tuple[str, ...] = ()


class LicenseTest(Struct, frozen=True, kw_only=True):
    """Licences of Debian's packages, and of files."""

    debian: bool = False
    files: tuple[str, ...] = ()


class RunOptions(Struct, frozen=True, kw_only=True):
    """How commands are run; as docker's words of the same names."""

    user: str = ""
    privileged: bool = False
    tty: bool = False
    env_file: str = ""
    env: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ()
    bind_mounts: tuple[str, ...] = ()


class Config(Struct, frozen=True, kw_only=True):
    """One file. `name` is what the user called it."""

    name: str
    global_env: tuple[Variable, ...] = ()
    run_options: RunOptions = RunOptions()
    commands: tuple[CommandTest, ...] = ()
    contents: tuple[ContentTest, ...] = ()
    existences: tuple[ExistenceTest, ...] = ()
    licenses: tuple[LicenseTest, ...] = ()
    metadata: MetadataTest | None = None

    @property
    def size(self) -> int:
        """How many tests it has."""
        lists = (self.commands, self.contents, self.existences, self.licenses)
        return sum(map(len, lists)) + (self.metadata is not None)


_KEYS = (
    "schemaVersion",
    "globalEnvVars",
    "containerRunOptions",
    "commandTests",
    "fileContentTests",
    "fileExistenceTests",
    "licenseTests",
    "metadataTest",
)


def read_config(source: Source) -> Config:
    """Reads a file. Raises AerogelError `test.config` with the place of the fault."""
    whole = parse(source)
    if isinstance(whole.data, dict) and "schemaVersion" in whole.data:
        version = whole.data["schemaVersion"]
        if version.data != VERSION:
            hint = f"version {VERSION} says the same: there, `command` is a text and `args` a list"
            raise version.fault(f"is `{version.data}`, and only {VERSION} is read", hint)
    found = whole.fields(_KEYS)
    if "schemaVersion" not in found:
        raise fault("the file does not say its `schemaVersion`", whole.span, f"write `schemaVersion: {VERSION}`")
    metadata = _metadata(found["metadataTest"]) if "metadataTest" in found else MetadataTest()
    return Config(
        name=source.name,
        global_env=_variables(found.get("globalEnvVars")),
        run_options=_run_options(found["containerRunOptions"]) if "containerRunOptions" in found else RunOptions(),
        commands=tuple(_command(one) for one in _items(found, "commandTests")),
        contents=tuple(_content(one) for one in _items(found, "fileContentTests")),
        existences=tuple(_existence(one) for one in _items(found, "fileExistenceTests")),
        licenses=tuple(_license(one) for one in _items(found, "licenseTests")),
        metadata=metadata if metadata != MetadataTest() else None,
    )


def _items(found: dict[str, Value], key: str) -> list[Value]:
    return list(found[key].items()) if key in found else []


def _text(found: dict[str, Value], key: str, owner: Value | None = None) -> str:
    """A text; with `owner` one that has to be there."""
    text = found[key].text() if key in found else ""
    if owner is not None and not text:
        raise owner.fault(f"has no `{key}`")
    return text


def _texts(found: dict[str, Value], key: str) -> tuple[str, ...]:
    return found[key].texts() if key in found else ()


def _patterns(found: dict[str, Value], key: str) -> tuple[str, ...]:
    if key not in found:
        return ()
    return tuple(_pattern(each) for each in found[key].items())


def _pattern(value: Value) -> str:
    text = value.text()
    try:
        translate(text)
    except RegexFault as error:
        hint = "expressions are those of Go (RE2): no look-ahead, no references to groups"
        raise value.fault(f"is no expression that can be matched: {error}", hint) from None
    return text


def _number(found: dict[str, Value], key: str, default: int) -> int:
    return found[key].number() if key in found else default


def _boolean(found: dict[str, Value], key: str, *, default: bool = False) -> bool:
    return found[key].boolean() if key in found else default


def _variables(value: Value | None, *, with_values: bool = False) -> tuple[Variable, ...]:
    made = []
    for one in value.items() if value is not None else ():
        found = one.fields(("key", "value", "isRegex"))
        key = _text(found, "key", one)
        is_regex = _boolean(found, "isRegex")
        text = _text(found, "value", one if with_values else None)
        if is_regex:
            _pattern(found["value"]) if "value" in found else ""
        made.append(Variable(key, text, is_regex))
    return tuple(made)


def _command(value: Value) -> CommandTest:
    found = value.fields(
        (
            "name",
            "setup",
            "teardown",
            "envVars",
            "exitCode",
            "command",
            "args",
            "expectedOutput",
            "excludedOutput",
            "expectedError",
            "excludedError",
        )
    )
    return CommandTest(
        name=_text(found, "name", value),
        command=_text(found, "command", value),
        args=_texts(found, "args"),
        setup=_lines(found, "setup"),
        teardown=_lines(found, "teardown"),
        env=_variables(found.get("envVars"), with_values=True),
        exit_code=_number(found, "exitCode", 0),
        expected_output=_patterns(found, "expectedOutput"),
        excluded_output=_patterns(found, "excludedOutput"),
        expected_error=_patterns(found, "expectedError"),
        excluded_error=_patterns(found, "excludedError"),
    )


def _lines(found: dict[str, Value], key: str) -> tuple[tuple[str, ...], ...]:
    made = []
    for each in _items(found, key):
        words = each.texts()
        if not words:
            raise each.fault("is an empty command")
        made.append(words)
    return tuple(made)


def _content(value: Value) -> ContentTest:
    found = value.fields(("name", "path", "expectedContents", "excludedContents"))
    return ContentTest(
        name=_text(found, "name", value),
        path=_text(found, "path", value),
        expected=_patterns(found, "expectedContents"),
        excluded=_patterns(found, "excludedContents"),
    )


def _existence(value: Value) -> ExistenceTest:
    found = value.fields(("name", "path", "shouldExist", "permissions", "uid", "gid", "isExecutableBy"))
    by = _text(found, "isExecutableBy")
    if by not in ("", "owner", "group", "other", "any"):
        raise found["isExecutableBy"].fault("is to be `owner`, `group`, `other` or `any`")
    permissions = _text(found, "permissions")
    if permissions and not re.fullmatch(r"(?:-|[dalTLDpSugct?]+)[-rwx]{9}", permissions):
        hint = "it is written as Go shows a mode: `-rw-r--r--`, `drwxr-xr-x`, `Lrwxrwxrwx`, `urwxr-xr-x`, `dtrwxrwxrwx`"
        raise found["permissions"].fault("can never be what a file has", hint)
    return ExistenceTest(
        name=_text(found, "name", value),
        path=_text(found, "path", value),
        should_exist=_boolean(found, "shouldExist", default=True),
        permissions=permissions,
        uid=_number(found, "uid", -1),
        gid=_number(found, "gid", -1),
        is_executable_by=by,
    )


def _license(value: Value) -> LicenseTest:
    found = value.fields(("debian", "files"))
    return LicenseTest(debian=_boolean(found, "debian"), files=_texts(found, "files"))


def _metadata(value: Value) -> MetadataTest:
    found = value.fields(
        (
            "envVars",
            "unboundEnvVars",
            "exposedPorts",
            "unexposedPorts",
            "entrypoint",
            "cmd",
            "workdir",
            "volumes",
            "unmountedVolumes",
            "labels",
            "user",
        )
    )
    for key in ("exposedPorts", "volumes"):
        for each in _items(found, key):
            if not each.text():
                raise each.fault("is empty")
    return MetadataTest(
        env=_variables(found.get("envVars")),
        unbound_env=tuple(one.key for one in _variables(found.get("unboundEnvVars"))),
        labels=_variables(found.get("labels")),
        exposed_ports=_texts(found, "exposedPorts"),
        unexposed_ports=_texts(found, "unexposedPorts"),
        entrypoint=_texts(found, "entrypoint") if "entrypoint" in found else None,
        cmd=_texts(found, "cmd") if "cmd" in found else None,
        workdir=_text(found, "workdir"),
        user=_text(found, "user"),
        volumes=_texts(found, "volumes"),
        unmounted_volumes=_texts(found, "unmountedVolumes"),
    )


def _run_options(value: Value) -> RunOptions:
    found = value.fields(("user", "privileged", "allocateTty", "envVars", "envFile", "capabilities", "bindMounts"))
    return RunOptions(
        user=_text(found, "user"),
        privileged=_boolean(found, "privileged"),
        tty=_boolean(found, "allocateTty"),
        env_file=_text(found, "envFile"),
        env=_texts(found, "envVars"),
        capabilities=_texts(found, "capabilities"),
        bind_mounts=_texts(found, "bindMounts"),
    )
