"""A network of the sandbox's own that reaches the world, made by pasta or slirp4netns, without rights on the host.

Both are programs of the host that hand the sandbox's packets to sockets of their own. They run below the helper, in its
user namespace, and end with the sandbox. The host's loopback addresses cannot be reached from inside; ports of the host
lead in when they were asked for. The helper's part is `packets`.
Spec: pasta(1), slirp4netns(1).
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import socket
import tempfile
from typing import NamedTuple, Protocol

from aerogel.errors import EXIT_HOST, AerogelError
from aerogel.sandbox import wire
from aerogel.sandbox.packets import RESOLVERS
from aerogel.sandbox.spec import Forward

__all__ = ["JOBS", "Link", "Opener", "Tool", "choose"]

JOBS = "aerogel.sandbox.packets"
"""The module that runs the program."""
_TIMEOUT_S = 20.0
_TUN = "/dev/net/tun"
_GUEST = "10.0.2.100"
"""slirp4netns gives it to the sandbox."""


class Tool(NamedTuple):
    """A program that makes the network; `resolver` is where names are asked for inside."""

    name: str
    path: str

    @property
    def resolver(self) -> str:
        return RESOLVERS[self.name]


class Opener(Protocol):
    """What this module needs of `launch.Helper`."""

    def open_job(self) -> socket.socket: ...


def choose(rung: str) -> Tool:
    """The program to take on a rung. Raises `sandbox.no-network-tool`, `sandbox.no-tun`, `sandbox.no-network`."""
    if rung in ("chroot", "proot"):
        raise AerogelError(
            "a network of its own needs namespaces, which this host does not give",
            code="sandbox.no-network",
            hints=[
                "nothing else makes one: take `--network host`, where ports are the host's, or `--network none`",
                "`aerogel doctor` tells what is missing",
            ],
            exit_status=EXIT_HOST,
        )
    # With root's real ids pasta becomes another user, who may not enter the sandbox's network.
    names = ("slirp4netns",) if rung in ("root", "ident") else ("pasta", "slirp4netns")
    found = [Tool(name, path) for name in names if (path := shutil.which(name))]
    if not found:
        packages = "`apt-get install slirp4netns`" if len(names) == 1 else "`apt-get install passt` or `slirp4netns`"
        raise AerogelError(
            f"`--network sandbox` needs {' or '.join(f'`{name}`' for name in names)}, which is not installed",
            code="sandbox.no-network-tool",
            hints=[packages, "or take `--network host`"],
            exit_status=EXIT_HOST,
        )
    if not os.path.exists(_TUN):
        raise AerogelError(
            f"`--network sandbox` needs the device `{_TUN}`, which is not there",
            code="sandbox.no-tun",
            hints=["as root: `modprobe tun`; start an outer container with `--device /dev/net/tun`"],
            exit_status=EXIT_HOST,
        )
    if not os.access(_TUN, os.R_OK | os.W_OK):
        raise AerogelError(
            f"`--network sandbox` needs the device `{_TUN}`, which this user may not open",
            code="sandbox.no-tun",
            hints=[f"as root: `chmod 666 {_TUN}`, which is what it has on most hosts", "or take `--network host`"],
            exit_status=EXIT_HOST,
        )
    return found[0]


class Link:
    """A network that is up. To be closed, which ends the program."""

    def __init__(self, helper: Opener, tool: Tool, namespace: int, ports: tuple[Forward, ...], scratch: str) -> None:
        """Joins the network namespace with the world. Raises `sandbox.network`, `sandbox.port`."""
        self._folder = tempfile.mkdtemp(prefix="net-", dir=scratch)
        self._sock = helper.open_job()
        try:
            ready, ready_write = os.pipe()
            try:
                args = {"tool": tool.name, "path": tool.path, "folder": self._folder, "ports": _pasta_ports(ports)}
                wire.send(self._sock, {"job": f"{JOBS}:serve", "args": args}, (ready_write, namespace))
                os.close(ready_write)
                ready_write = -1
                self._await(ready, tool, ports)
            finally:
                os.close(ready)
                if ready_write >= 0:
                    os.close(ready_write)
            if tool.name == "slirp4netns":
                for port in ports:
                    self._forward(port)
        except BaseException:
            self.close()
            raise

    def _await(self, ready: int, tool: Tool, ports: tuple[Forward, ...]) -> None:
        poll = select.poll()
        poll.register(ready, select.POLLIN)
        if poll.poll(_TIMEOUT_S * 1000) and os.read(ready, 1):
            return
        said = ""
        self._sock.settimeout(_TIMEOUT_S)
        with contextlib.suppress(TimeoutError):
            received = wire.receive(self._sock)
            said = (
                "" if received is None else str(received[0].get("result", received[0].get("error", {})).get("said", ""))
            )
        if ports and ("bind" in said or "in use" in said or "port" in said):
            raise _port_error(ports, said)
        raise AerogelError(
            f"`{tool.name}` could not make the network of the sandbox",
            code="sandbox.network",
            detail=said,
            hints=["take `--network host`, or see what it says"],
            exit_status=EXIT_HOST,
        )

    def _forward(self, port: Forward) -> None:
        """Tells slirp4netns of one port."""
        arguments = {"proto": port.protocol, "host_addr": port.address or "0.0.0.0", "host_port": port.host}
        request = {
            "execute": "add_hostfwd",
            "arguments": {**arguments, "guest_addr": _GUEST, "guest_port": port.inside},
        }
        folder = os.open(self._folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as api:
                api.settimeout(_TIMEOUT_S)
                api.connect(f"/proc/self/fd/{folder}/api")
                api.sendall(json.dumps(request).encode("ascii"))
                api.shutdown(socket.SHUT_WR)
                said = b""
                while part := api.recv(4096):
                    said += part
        finally:
            os.close(folder)
        answer = json.loads(said or b"{}")
        if "error" in answer or not answer:
            raise _port_error((port,), str(answer.get("error", {}).get("desc", "")))

    def close(self) -> None:
        self._sock.close()  # then the helper ends the worker, and with it the program
        shutil.rmtree(self._folder, ignore_errors=True)


def _port_error(ports: tuple[Forward, ...], said: str) -> AerogelError:
    names = ", ".join(f"`{port.host}/{port.protocol}`" for port in ports)
    return AerogelError(
        f"the host's port {names} cannot be used",
        code="sandbox.port",
        detail=said,
        hints=["another program may have it: choose another one, or see `ss -ltnp`"],
        exit_status=EXIT_HOST,
    )


def _pasta_ports(ports: tuple[Forward, ...]) -> list[list[str]]:
    return [
        [
            "-t" if port.protocol == "tcp" else "-u",
            f"{port.address + '/' if port.address else ''}{port.host}:{port.inside}",
        ]
        for port in ports
    ]
