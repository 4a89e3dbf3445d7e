"""The flags of `docker run` as options of a container: mounts, limits, names, signals; and what else to use for those that are not there.

Values mean what docker means by them. Nothing is taken and then ignored: a part of a value that cannot be done is
refused. Raises AerogelError `run.*` and `build.*` with exit status 2.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

import msgspec

from aerogel.commands.lending import parse_size
from aerogel.errors import EXIT_USAGE, AerogelError, nearest
from aerogel.sandbox.spec import Mount

__all__ = [
    "ABSENT",
    "Wish",
    "check_hostname",
    "check_name",
    "fault",
    "parse_labels",
    "parse_mount",
    "parse_tmpfs",
    "read_env_files",
    "resolver_mount",
]

ABSENT = {
    ("--memory-swap", "--memory-reservation", "--cpu-shares"): (
        "`--memory`, `--cpus` and `--pids-limit` hold the command; for more, `systemd-run --user --scope -p MemorySwapMax=0 aerogel run ...`"
    ),
    ("--cpuset-cpus",): "start it with `taskset -c 0,1 aerogel run ...`",
    ("--privileged",): "add the capability that it needs with `--cap-add NAME`, and files of the host with `-v`",
    ("--device", "--gpus"): "devices of the host are not lent to a command; `-v` lends files and folders",
    ("--net",): "write `--network`",
    ("--annotation",): "give labels: `--label KEY=VALUE`",
    (
        "-a",
        "--attach",
        "--sig-proxy",
    ): "output and signals are always passed on, `-i` passes the input; with `-d`, `aerogel attach` has these flags",
    ("--volume-driver", "--storage-opt"): "volumes are folders of this host: `-v NAME:/path`",
    (
        "--log-driver",
        "--log-opt",
    ): "with `-d` the output is kept for `aerogel logs`, else send it where it should go with `>`",
    ("--link", "--network-alias", "--ip"): "all commands share the host's network: use `localhost` and the port",
    ("--pid", "--ipc", "--uts", "--userns", "--cgroupns"): "each command has name spaces of its own; leave it out",
    ("--sysctl",): "the kernel's settings are the host's: set them there",
    ("--domainname",): "give the whole name with `--hostname`",
    ("--runtime", "--isolation", "--cgroup-parent", "--cpu-period", "--cpu-quota", "-c"): (
        "there is no runtime beside; `AEROGEL_ISOLATION` chooses how commands are isolated, see `aerogel doctor`"
    ),
    ("--oom-kill-disable", "--oom-score-adj"): "set it for all that it starts: `choom -n 500 -- aerogel run ...`",
    ("--mac-address", "--ip6", "--link-local-ip"): "the network of a command is made by pasta or slirp4netns",
    ("--disable-content-trust",): "leave it out; `aerogel verify` checks signatures",
    ("--device-cgroup-rule", "--device-read-bps", "--device-write-bps", "--blkio-weight"): (
        "devices of the host are not lent to a command"
    ),
}
"""What to use instead of docker's flags that `aerogel run` does not have."""

_BIND, _TMPFS, _VOLUME = "bind", "tmpfs", "volume"
_KEYS_OF = {
    _BIND: {"source", "target", "readonly"},
    _VOLUME: {"source", "target", "readonly", "nocopy"},
    _TMPFS: {"target", "size", "mode"},
}
_MOUNT_KEYS = {
    "type": "type",
    "src": "source",
    "source": "source",
    "dst": "target",
    "destination": "target",
    "target": "target",
    "readonly": "readonly",
    "ro": "readonly",
    "volume-nocopy": "nocopy",
    "tmpfs-size": "size",
    "tmpfs-mode": "mode",
}
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
_HOSTNAME = re.compile(
    r"(?=.{1,64}\Z)[a-zA-Z0-9_]([a-zA-Z0-9_-]*[a-zA-Z0-9_])?(\.[a-zA-Z0-9_]([a-zA-Z0-9_-]*[a-zA-Z0-9_])?)*"
)
"""What resolvers take, and no more than the kernel keeps."""


def fault(message: str, code: str, *hints: str) -> AerogelError:
    return AerogelError(message, code=code, hints=hints, exit_status=EXIT_USAGE)


def check_name(name: str) -> None:
    """Refuses what docker refuses as the name of a container. Raises `run.name`."""
    if name and not _NAME.fullmatch(name):
        raise fault(
            f"`{name}` is not a name for a container",
            "run.name",
            "two or more letters, digits, `_`, `.` and `-`, a letter or digit first",
        )


def check_hostname(name: str) -> None:
    """Refuses what is no name of a machine: it becomes a word of /etc/hosts. Raises `run.hostname`."""
    if not _HOSTNAME.fullmatch(name):
        raise fault(
            f"`--hostname {name}`: this is not a name for a host",
            "run.hostname",
            "at most 64 letters, digits, `-`, `_` and `.`, such as `db-1.example`",
        )


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """A volume that is asked for at `target`; without a name it is made for this container."""

    name: str = ""
    target: str
    readonly: bool = False
    is_filled: bool = True
    """Whether it gets what the image has there, when it is empty."""


def parse_mount(text: str, directory: Path) -> Mount | Wish:
    """`type=bind,src=/host,dst=/path[,readonly]`, `type=volume,src=NAME,dst=/path` or `type=tmpfs,dst=/path[,tmpfs-size=64m]`."""
    fields: dict[str, str] = {}
    for part in text.split(","):
        key, sign, value = part.strip().partition("=")
        name = _MOUNT_KEYS.get(key.lower())
        if name is None or not (sign or name in ("readonly", "nocopy")):
            near = nearest(key.lower(), _MOUNT_KEYS)
            raise _mount_fault(text, f"it does not know `{key}`", f"did you mean `{near}`?" if near else "")
        fields[name] = value if sign else "true"
    kind = fields.pop("type", "volume")
    if kind not in _KEYS_OF:
        raise _mount_fault(text, f"there is no type `{kind}`", "types are `bind`, `volume` and `tmpfs`")
    target = fields.get("target", "")
    if not target.startswith("/"):
        raise _mount_fault(text, f"`{target}` is not an absolute path" if target else "it names no `dst`")
    foreign = fields.keys() - _KEYS_OF[kind]
    if foreign:
        raise _mount_fault(text, f"a mount of type `{kind}` has no `{min(foreign)}`")
    if kind == _TMPFS:
        size = parse_size(fields["size"], "tmpfs-size") if "size" in fields else 0
        return Mount(kind="tmpfs", target=target, mode=_octal(text, fields.get("mode", "1777")), size_bytes=size)
    readonly = _flag(text, "readonly", fields)
    if kind == _VOLUME:
        return Wish(
            name=fields.get("source", ""), target=target, readonly=readonly, is_filled=not _flag(text, "nocopy", fields)
        )
    source = os.path.join(directory, fields.get("source", "")) if fields.get("source") else ""
    if not source or not os.path.lexists(source):
        raise _mount_fault(text, f"`{source}` does not exist" if source else "it names no `src`")
    return Mount(kind="bind", source=source, target=target, readonly=readonly)


def _flag(text: str, name: str, fields: dict[str, str]) -> bool:
    value = fields.get(name, "false").lower()
    if value not in ("true", "1", "false", "0"):
        raise _mount_fault(text, f"`{name}` is `true` or `false`, not `{value}`")
    return value in ("true", "1")


def _mount_fault(text: str, why: str, hint: str = "") -> AerogelError:
    usual = "write `type=bind,src=/host,dst=/path,readonly`, `type=volume,src=name,dst=/path` or `type=tmpfs,dst=/path`"
    return fault(f"`--mount {text}`: {why}", "run.mount", hint or usual)


def parse_labels(given: Sequence[str], files: Sequence[str], directory: Path) -> dict[str, str]:
    """The labels of `--label` and of the lines of `--label-file`, as docker reads them. Raises `run.label`."""
    lines: list[str] = []
    for name in files:
        try:
            text = (directory / name).read_text("utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise fault(f"`{name}` cannot be read: {str(why).lower()}", "run.label") from None
        lines += [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    found: dict[str, str] = {}
    for label in (*lines, *given):
        key, _, value = label.partition("=")
        if not key or any(each.isspace() for each in key):
            raise fault(f"label `{label}` has no key", "run.label", "write `--label KEY=VALUE`")
        found[key] = value
    return found


def _octal(text: str, mode: str) -> int:
    if re.fullmatch(r"[0-7]{1,5}", mode) is None:
        raise fault(f"`{text}`: `{mode}` is not a mode", "run.mount", "a mode is octal, for example `1777`")
    return int(mode, 8) & 0o7777


def parse_tmpfs(text: str) -> Mount:
    """`/path[:size=64m,mode=1777,uid=1000,gid=1000,ro]`, as mount(8) has it; nosuid and nodev hold always."""
    target, _, words = text.partition(":")
    if not target.startswith("/"):
        raise fault(f"`--tmpfs {text}`: `{target}` is not an absolute path", "run.tmpfs", "write `--tmpfs /path`")
    found: dict[str, int] = {}
    readonly, noexec = False, True
    for word in filter(None, words.split(",")):
        key, sign, value = word.partition("=")
        if word in ("ro", "rw"):
            readonly = word == "ro"
        elif word in ("exec", "noexec"):
            noexec = word == "noexec"
        elif key == "size" and sign:
            found["size_bytes"] = parse_size(value, "size")
        elif key == "mode" and sign:
            found["mode"] = _octal(text, value)
        elif key in ("uid", "gid") and value.isascii() and value.isdecimal():
            found[key] = int(value)
        elif word not in ("nosuid", "nodev", "noatime", "relatime"):
            near = nearest(key, ("size", "mode", "uid", "gid", "ro", "exec", "noexec"))
            hint = f"did you mean `{near}`?" if near else "options are size, mode, uid, gid, ro, rw, exec and noexec"
            raise fault(f"`--tmpfs {text}`: there is no option `{word}`", "run.tmpfs", hint)
    return Mount(kind="tmpfs", target=target, readonly=readonly, noexec=noexec, **found)  # type: ignore[arg-type] # ints


def resolver_mount(
    servers: Sequence[str], search: Sequence[str], options: Sequence[str], host: bytes
) -> tuple[Mount, ...]:
    """/etc/resolv.conf with what `--dns`, `--dns-search` and `--dns-option` say in place of the host's lines."""
    from ipaddress import ip_address

    if not (servers or search or options):
        return ()
    for server in servers:
        try:
            ip_address(server)
        except ValueError:
            raise fault(
                f"`--dns {server}` is not an address", "run.dns", "give an IP address: `--dns 192.0.2.1`"
            ) from None
    given = {
        "nameserver": [f"nameserver {each}" for each in servers],
        "search": [f"search {' '.join(each for each in search if each != '.')}"] if search else [],
        "options": [f"options {' '.join(options)}"] if options else [],
    }
    lines = []
    for line in host.decode("utf-8", "surrogateescape").splitlines():
        key = (line.split() or [""])[0].replace("domain", "search")
        if key and not line.startswith(("#", ";")) and not given.get(key):
            lines.append(line)
    lines += [line for found in given.values() for line in found if line != "search "]
    data = ("\n".join(lines) + "\n").encode("utf-8", "surrogateescape")
    return (Mount(kind="file", target="/etc/resolv.conf", data=data, readonly=True),)


def read_env_files(names: Sequence[str], directory: Path) -> list[str]:
    """The lines of `--env-file`: `NAME=value` as it is, or `NAME`; comments begin with `#`. Raises `run.env-file`."""
    found: list[str] = []
    for name in names:
        try:
            text = (directory / name).read_text("utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise fault(f"`{name}` cannot be read: {str(why).lower()}", "run.env-file") from None
        for number, line in enumerate((each.removesuffix("\r").lstrip() for each in text.split("\n")), 1):
            if not line or line.startswith("#"):
                continue
            variable = line.partition("=")[0]
            if not variable or any(each.isspace() for each in variable):
                hint = "write `NAME=value`, without blanks before the `=` and without `export`"
                raise fault(f"`{name}`, line {number}: `{variable}` is not a variable", "run.env-file", hint)
            found.append(line)
    return found
