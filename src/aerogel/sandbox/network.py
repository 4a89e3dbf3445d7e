"""The files that a sandbox needs to find other machines: /etc/resolv.conf, /etc/hosts, /etc/hostname.

They are mounted read-only from memory and never become part of a layer.
"""

from __future__ import annotations

from aerogel.sandbox.spec import Mount, Sandbox

__all__ = ["hosts_file", "network_mounts", "resolver_file"]

_LOCAL = ("localhost", "localhost.localdomain", "ip6-localhost", "ip6-loopback")


def network_mounts(sandbox: Sandbox, resolver: str = "") -> tuple[Mount, ...]:
    """The three files as mounts; what the sandbox itself mounts there wins. `resolver` is that of its own network."""
    taken = {mount.target for mount in sandbox.mounts}
    files = (
        ("/etc/hostname", (sandbox.hostname + "\n").encode()),
        ("/etc/hosts", hosts_file(sandbox, _read("/etc/hosts"))),
        ("/etc/resolv.conf", resolver_file(_read("/etc/resolv.conf"), resolver)),
    )
    return tuple(
        Mount(kind="file", target=target, data=data, readonly=True) for target, data in files if target not in taken
    )


def resolver_file(host: bytes, resolver: str = "") -> bytes:
    """The resolver configuration: in the host's network name space the host's own serves, stub resolvers included."""
    if resolver:
        kept = [line for line in host.split(b"\n") if line.split()[:1] in ([b"search"], [b"domain"], [b"options"])]
        return b"\n".join([*kept, b"nameserver " + resolver.encode("ascii"), b""])
    if host.strip():
        return host
    return b"nameserver 127.0.0.1\n"  # what the C library takes when there is no file


def hosts_file(sandbox: Sandbox, host: bytes) -> bytes:
    """/etc/hosts: the loopback names, this sandbox's name, what was asked for, and what the host itself knows."""
    lines = [
        f"127.0.0.1\tlocalhost {sandbox.hostname}",
        "::1\tlocalhost ip6-localhost ip6-loopback",
    ]
    lines += [f"{address}\t{name}" for name, address in sandbox.hosts]
    if sandbox.network == "host":
        for line in host.decode("utf-8", "surrogateescape").split("\n"):
            words = line.split("#", 1)[0].split()
            names = [word for word in words[1:] if word not in _LOCAL]
            if names and not words[0].startswith(("127.", "::1", "ff0", "fe0")):
                lines.append(f"{words[0]}\t{' '.join(names)}")
    return ("\n".join(lines) + "\n").encode("utf-8", "surrogateescape")


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""
