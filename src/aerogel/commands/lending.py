"""What `aerogel build` lends to its steps: secrets, ssh agents, limits, hosts, entitlements; docker's flags for it.

Reads the files that secrets come from; what it read stays in memory.
"""

from __future__ import annotations

import ipaddress
import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

from aerogel.commands.build_model import Build
from aerogel.commands.world import World
from aerogel.errors import EXIT_USAGE, AerogelError, nearest
from aerogel.redact import Redactor
from aerogel.sandbox.cgroup import Resources
from aerogel.sandbox.spec import Limit
from aerogel.solve.ambient import Lent
from aerogel.solve.logs import Logs

__all__ = [
    "lent_of",
    "parse_agents",
    "parse_allow",
    "parse_cpus",
    "parse_hosts",
    "parse_limits",
    "parse_memory",
    "parse_network",
    "parse_secrets",
    "parse_size",
    "parse_timeout",
]

_LEAST_MEMORY = 6 << 20
"""As docker's."""
_LONGEST_SECRET = 500 << 10
"""As BuildKit's."""
_SHORTEST_LINE = 8
_LONGEST_SPELT = 16 << 10
"""A secret that is no longer is also hidden where a program breaks the lines of its encoding."""
_ENTITLEMENTS = ("network.host", "security.insecure")
_NETWORKS = ("default", "host", "none", "sandbox")
_SECRET_KEYS = ("id", "src", "source", "env", "type")
_LIMITS = (
    *("as", "core", "cpu", "data", "fsize", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss", "rtprio"),
    *("rttime", "sigpending", "stack"),
)
_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600}


def lent_of(options: Build, world: World) -> Lent:
    """All that the options of a build lend. Raises `build.*`."""
    settings = world.settings
    return Lent(
        secrets=parse_secrets(options.secret, settings.directory, settings.environment, world.redactor),
        agents=parse_agents(options.ssh, settings.directory, settings.environment),
        limits=parse_limits(options.ulimit),
        shm_size_bytes=parse_size(options.shm_size, "--shm-size"),
        resources=Resources(parse_memory(options.memory), parse_cpus(options.cpus)),
        timeout_s=parse_timeout(options.timeout),
        logs=Logs(str(settings.cache), world.redactor.text, world.clock),
        redactor=world.redactor,
    )


def parse_secrets(
    given: Sequence[str], directory: Path, environment: Mapping[str, str], redactor: Redactor
) -> dict[str, bytes]:
    """The contents of `--secret id=ID[,src=FILE|,env=NAME]` by id; the redactor learns each one.

    Without `src` and `env` the variable ID is taken if there is one, else the file ID. Raises `build.secret`.
    """
    found: dict[str, bytes] = {}
    for text in given:
        fields = _secret_fields(text)
        name = fields.get("id", "")
        if not name:
            raise _fault(f"`--secret {text}` has no `id`", "build.secret", "write `--secret id=NAME,src=FILE`")
        variable, file = fields.get("env", ""), fields.get("src", fields.get("source", ""))
        if fields.get("type") == "env" and not variable:
            variable, file = file or name, ""
        if not variable and not file:
            variable, file = (name, "") if name in environment else ("", name)
        content = _variable(name, variable, environment) if variable else _file(name, directory / file)
        redactor.add(*_spellings(content))
        found[name] = content
    return found


def _secret_fields(text: str) -> dict[str, str]:
    fields: dict[str, str] = {}
    for field in text.split(","):
        key, equals, value = field.partition("=")
        key = key.strip().lower()
        if key not in _SECRET_KEYS or not equals:
            near = nearest(key, _SECRET_KEYS)
            hint = (
                f"did you mean `{near}=`?"
                if near and equals
                else "write `--secret id=NAME,src=FILE` or `id=NAME,env=NAME`"
            )
            raise _fault(f"`{field}` is no part of a secret", "build.secret", hint)
        if key == "type" and value not in ("file", "env"):
            raise _fault(
                f"a secret is of type `file` or `env`, not `{value}`", "build.secret", "without `type` both work"
            )
        fields[key] = value
    return fields


def _variable(name: str, variable: str, environment: Mapping[str, str]) -> bytes:
    if variable not in environment:
        message = f"secret `{name}`: the environment has no variable `{variable}`"
        raise _fault(message, "build.secret", f"set it, or take a file: `--secret id={name},src=FILE`")
    return environment[variable].encode("utf-8", "surrogateescape")


def _file(name: str, path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            content = file.read(_LONGEST_SECRET + 1)
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise _fault(
            f"secret `{name}`: `{path}` cannot be read: {why}", "build.secret", "name a file that this user may read"
        ) from None
    if len(content) > _LONGEST_SECRET:
        raise _fault(
            f"secret `{name}`: `{path}` is larger than {_LONGEST_SECRET >> 10} KiB",
            "build.secret",
            "lend the key to it, not the data",
        )
    return content


def _spellings(content: bytes) -> list[str]:
    """How the secret may be printed: as it is, in base64 and hexadecimal with their line breaks, in a URL."""
    from base64 import b64encode
    from urllib.parse import quote, quote_plus

    found: list[str] = []
    for form in dict.fromkeys((content, content.strip())):
        found.append(form.decode("utf-8", "surrogateescape"))
        for shift in range(3):
            # Characters that also depend on what stands before or after the secret are left out.
            inner = b64encode(bytes(shift) + form).decode()[(0, 2, 3)[shift] : (shift + len(form)) * 8 // 6]
            found += [inner, inner.translate(str.maketrans("+/", "-_"))]
        if len(form) > _LONGEST_SPELT:
            continue
        for text, widths in ((b64encode(form).decode(), (64, 76)), (form.hex(), (60,)), (form.hex().upper(), (60,))):
            lines = [text[at : at + width] for width in widths for at in range(0, len(text), width)]
            found += [text, *(line for line in lines if len(line) >= _SHORTEST_LINE)]
        found += [quote(form, safe=""), quote(form), quote_plus(form)]
    return found


def parse_agents(given: Sequence[str], directory: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """The sockets of `--ssh default|ID=SOCKET` by id. Raises `build.ssh`."""
    found: dict[str, str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not value:
            value = environment.get("SSH_AUTH_SOCK", "")
            if not value:
                hint = "start one with `eval $(ssh-agent)` and `ssh-add`, or name its socket: `--ssh default=SOCKET`"
                raise _fault(
                    f"`--ssh {text}`: no ssh agent is running here (`SSH_AUTH_SOCK` is not set)", "build.ssh", hint
                )
        path = os.path.abspath(directory / value)
        try:
            mode = os.stat(path).st_mode
        except OSError as error:
            why = (error.strerror or str(error)).lower()
            raise _fault(
                f"`--ssh {text}`: the agent's socket `{value}`: {why}", "build.ssh", "see `echo $SSH_AUTH_SOCK`"
            ) from None
        if not stat.S_ISSOCK(mode):
            hint = "keys are lent by an agent: add the key with `ssh-add KEY`, then `--ssh default`"
            raise _fault(f"`--ssh {text}`: `{value}` is not the socket of an agent", "build.ssh", hint)
        found[name or "default"] = path
    return found


def parse_allow(given: Sequence[str]) -> frozenset[str]:
    """The entitlements. Raises `build.allow`."""
    return frozenset(_one_of(name, _ENTITLEMENTS, "an entitlement", "build.allow") for name in given)


def parse_network(given: str) -> str:
    """`default`, `host` or `none`. Raises `build.network`."""
    return _one_of(given, _NETWORKS, "a network", "build.network")


def parse_hosts(given: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """(name, address) of `NAME:ADDRESS` or `NAME=ADDRESS`; `host-gateway` is this host. Raises `build.add-host`."""
    found = []
    for text in given:
        sign = "=" if "=" in text else ":"
        name, _, address = text.partition(sign)
        if address == "host-gateway":
            address = "127.0.0.1"  # steps share the host's network
        try:
            if not name or any(c.isspace() for c in name):
                raise ValueError(name)
            found.append((name, str(ipaddress.ip_address(address.strip("[]")))))
        except ValueError:
            message = f"`--add-host {text}` is not a name and an address"
            raise _fault(message, "build.add-host", "write `--add-host NAME:ADDRESS`") from None
    return tuple(found)


def parse_limits(given: Sequence[str]) -> tuple[Limit, ...]:
    """The limits of `NAME=SOFT[:HARD]`, -1 for none. Raises `build.ulimit`."""
    found = []
    for text in given:
        name, _, values = text.partition("=")
        _one_of(name.lower(), _LIMITS, "a limit", "build.ulimit")
        soft, _, hard = values.partition(":")
        try:
            limit = Limit(name.lower(), int(soft), int(hard or soft))
        except ValueError:
            limit = Limit(name, 1, 0)
        if -1 != limit.hard < limit.soft:
            hint = "write `NAME=SOFT` or `NAME=SOFT:HARD`, for example `nofile=1024:2048`"
            raise _fault(f"`--ulimit {text}` is not a limit", "build.ulimit", hint)
        found.append(limit)
    return tuple(found)


def parse_size(given: str, flag: str) -> int:
    """Bytes of `64m`, `1g`, `1024`. Raises `build.size`."""
    text = given.strip().lower().removesuffix("ib")
    text = text[:-1] if text[-2:-1] in ("k", "m", "g", "t") and text.endswith("b") else text
    digits = text.rstrip("bkmgt")
    if not (digits.isascii() and digits.isdecimal()) or text[len(digits) :] not in _UNITS:
        raise _fault(
            f"`{flag} {given}` is not a size", "build.size", "write a number and `k`, `m` or `g`, such as `64m`"
        )
    return int(digits) * _UNITS[text[len(digits) :]]


def parse_memory(given: str) -> int:
    """Bytes of `--memory`, 0 without it: at least what docker asks for, since less does not start a program.

    Raises `build.size`.
    """
    size = parse_size(given or "0", "--memory")
    if 0 < size < _LEAST_MEMORY:
        raise _fault(f"`--memory {given}` is too little for any command", "build.size", "write `6m` or more")
    return size


def parse_cpus(given: str) -> float:
    """A number of processors such as `1.5`; 0 without one. Raises `build.cpus`."""
    if not given:
        return 0.0
    if not given.isascii() or not given.replace(".", "", 1).isdecimal() or not 0.01 <= float(given) <= 10_000:
        raise _fault(
            f"`--cpus {given}` is not a number of processors", "build.cpus", "write a number such as `2` or `0.5`"
        )
    return float(given)


def parse_timeout(given: str) -> float | None:
    """Seconds of `90`, `90s`, `10m`, `2h`; None without one. Raises `build.timeout`."""
    if not given:
        return None
    digits = given.rstrip("smh")
    unit = given[len(digits) :]
    if not (digits.isascii() and digits.replace(".", "", 1).isdecimal()) or unit not in _SECONDS or not float(digits):
        raise _fault(f"`--timeout {given}` is not a time", "build.timeout", "write seconds, or `90s`, `10m`, `2h`")
    return float(digits) * _SECONDS[unit]


def _one_of(given: str, known: Sequence[str], what: str, code: str) -> str:
    if given in known:
        return given
    near = nearest(given, known)
    hint = f"did you mean `{near}`?" if near else "one of " + ", ".join(f"`{each}`" for each in known)
    raise _fault(f"`{given}` is not {what}", code, hint)


def _fault(message: str, code: str, *hints: str) -> AerogelError:
    return AerogelError(message, code=code, hints=hints, exit_status=EXIT_USAGE)
