"""What is to run and in which root file system, as plain values that can be printed, compared and sent.

Not how it is done: that is `helper` (inside) and `launch` (the main process's side). Names and meanings follow the
OCI runtime specification v1.2 where it has the thing.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import msgspec

from aerogel.errors import AerogelError, Diagnostic

__all__ = [
    "DEFAULT_CAPABILITIES",
    "DEFAULT_HOSTNAME",
    "DEFAULT_PATH",
    "Exit",
    "Finding",
    "Forward",
    "Isolation",
    "Limit",
    "Mount",
    "MountKind",
    "Network",
    "Rootfs",
    "Rung",
    "Sandbox",
    "unheld",
]

Isolation = Literal["auto", "root", "ident", "subid", "single", "chroot", "proot"]
"""Which rung is asked for; `auto` takes the best one that works."""

Network = Literal["host", "none", "sandbox"]
"""The host's, none but loopback, or one of its own that reaches the world (`sandbox.tap`)."""

MountKind = Literal["bind", "overlay", "tmpfs", "file", "socket"]

DEFAULT_CAPABILITIES = (
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
)
"""What Docker and BuildKit leave to the root of a container."""

DEFAULT_HOSTNAME = "aerogel"
"""Fixed, so that no step can depend on the host's name."""

_SHM_SIZE_BYTES = 64 << 20
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""The search path when the image sets none, as Docker's."""


class Mount(msgspec.Struct, frozen=True, kw_only=True):
    """Something of elsewhere that is seen at `target` while the sandbox lives; it leaves nothing in the upper layer.

    - `bind`: the host's file or directory `source`, with what is mounted below it;
    - `tmpfs`: an empty directory in memory, `size_bytes` at most (0: the kernel's default, half of the memory);
    - `overlay`: the path `source` inside the directories `lowers` (overlay form, the lowest first; never written to);
      unless `readonly`, what is written is thrown away when the sandbox ends;
    - `file`: a file with the content `data`, in memory only; where nothing can be mounted it is one of the root's own
      copy, but `is_secret`: then it is on no disk anywhere;
    - `socket`: a listening Unix socket, which the main process serves: `Process.listeners` has it.
    `mode`, `uid` and `gid` are those of a tmpfs's root, a file and a socket; -1 as mode means 01777, 0644 and 0600.
    `nodev` is always set. A missing target is made; one that leads outside by symbolic links stays inside the root.
    """

    kind: MountKind
    target: str
    source: str = ""
    lowers: tuple[str, ...] = ()
    is_directory: bool = True
    """Of an `overlay`: what `source` is."""
    readonly: bool = False
    noexec: bool = False
    """Of a `tmpfs`: nothing in it can be executed."""
    mode: int = -1
    uid: int = 0
    gid: int = 0
    data: bytes = b""
    is_secret: bool = False
    size_bytes: int = 0


class Rootfs(msgspec.Struct, frozen=True, kw_only=True):
    """The root file system: directories in overlay form, the lowest layer first.

    `upper` and `work` (same file system, `work` empty) receive what is written; without them what is written is
    thrown away when the sandbox ends. `readonly` makes the root unwritable.
    """

    lowers: tuple[str, ...] = ()
    upper: str | None = None
    work: str | None = None
    readonly: bool = False


class Limit(msgspec.Struct, frozen=True):
    """A resource limit: `name` as in setrlimit(2) without `RLIMIT_`, lower case; -1 is unlimited."""

    name: str
    soft: int
    hard: int


class Forward(msgspec.Struct, frozen=True, kw_only=True):
    """A port of the host (`address` may be empty: all of them) that leads to one of the sandbox's own network."""

    address: str = ""
    host: int
    inside: int
    protocol: Literal["tcp", "udp"] = "tcp"

    def text(self) -> str:
        return f"{self.address or '0.0.0.0'}:{self.host}->{self.inside}/{self.protocol}"


class Sandbox(msgspec.Struct, frozen=True, kw_only=True):
    """One command to run.

    `argv[0]` is looked up in the PATH of `env` inside the root. `user` is Docker's form: `name`, `uid`, `name:group`,
    `uid:gid`, or empty for root; names are looked up in the root's own passwd and group files. HOME is set from
    there unless `env` has it. `cwd` is made when it is missing and `create_cwd` is set. `hosts` are (name, address)
    pairs for /etc/hosts. `window` is (rows, columns) of the terminal. `insecure` gives all capabilities of the rung,
    no system call filter and no masked paths. `emulated` is for a command of another machine (`emulator` says when).
    `joinable` keeps what `Helper.join` needs to start more commands beside this one.
    """

    argv: tuple[str, ...]
    root: Rootfs
    env: tuple[tuple[str, str], ...] = ()
    cwd: str = "/"
    user: str = ""
    mounts: tuple[Mount, ...] = ()
    network: Network = "host"
    ports: tuple[Forward, ...] = ()
    """For the network `sandbox`."""
    hostname: str = DEFAULT_HOSTNAME
    hosts: tuple[tuple[str, str], ...] = ()
    tty: bool = False
    window: tuple[int, int] = (24, 80)
    insecure: bool = False
    no_new_privileges: bool = False
    capabilities: tuple[str, ...] = DEFAULT_CAPABILITIES
    limits: tuple[Limit, ...] = ()
    shm_size_bytes: int = _SHM_SIZE_BYTES
    create_cwd: bool = False
    emulated: bool = False
    joinable: bool = False
    more_groups: tuple[str, ...] = ()
    """Supplementary groups beside those of the user, by name or number."""


class Exit(NamedTuple):
    """How the command ended.

    `code` is what a shell would give: 0 to 255, 128+n after signal n (`signal`, else 0), 126 and 127 when it could
    not be started; then `fault` says why. `oom` says that the kernel ran out of memory meanwhile and killed it.
    """

    code: int
    signal: int = 0
    oom: bool = False
    fault: AerogelError | None = None


class Rung(NamedTuple):
    """The kind of isolation that was found to work.

    `name` is `root` (real root, namespaces), `ident` (root of a container that may make user namespaces but nothing
    else: one with all ids mapped to themselves), `subid` (user namespace with subordinate ids) or `single` (user
    namespace with the user's own id alone; owners are recorded beside the files), `chroot` (root of a container
    that may make no namespace at all) or `proot` (who may do neither: the program of that name). `map_id` names the
    mapping of owners on disk: trees written under one cannot be used under another. `overlay` is the extended
    attribute name space of overlay directories. `copies` says that none can be mounted on the state directory: then
    roots are copied together, and whiteouts are sockets (`sandbox.copied`).
    """

    name: str
    map_id: str
    overlay: Literal["trusted", "user"] | None
    copies: bool = False


class Finding(NamedTuple):
    """How the attempt at one rung went: `problem` is a stable word, `message` a sentence, `fixes` what to do."""

    rung: str
    works: bool
    problem: str = ""
    message: str = ""
    fixes: tuple[str, ...] = ()
    overlay: str | None = None


def unheld(sandbox: Sandbox, rung: Rung, hostname: str = DEFAULT_HOSTNAME) -> Diagnostic | None:
    """A warning of what is asked for and does not hold on a rung without namespaces; None on the others.

    `hostname` is the one that nobody asked for.
    """
    if rung.name not in ("chroot", "proot"):
        return None
    sizes = [mount.target for mount in sandbox.mounts if mount.kind == "tmpfs" and mount.size_bytes]
    if sandbox.shm_size_bytes != _SHM_SIZE_BYTES:
        sizes.append("/dev/shm")
    found = [f"the size of `{target}`" for target in sizes]
    if sandbox.hostname != hostname:
        found.append(f"the host name `{sandbox.hostname}`")
    if sandbox.root.readonly:
        found.append("the read-only root")
    if not found:
        return None
    message = f"not held on the rung `{rung.name}`, where nothing can be mounted: {', '.join(found)}"
    return Diagnostic(message, code="sandbox.not-held", hints=["`aerogel doctor` tells what a better rung needs"])
