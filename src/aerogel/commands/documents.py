"""A container as `aerogel inspect` shows it, with docker's keys.

Spec: Docker Engine API v1.43, ContainerInspect.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from aerogel.commands.du import measured
from aerogel.commands.volumes import volumes_of
from aerogel.commands.world import World
from aerogel.runtime.containers import Container, Seen
from aerogel.sandbox.capabilities import NAMES
from aerogel.sandbox.spec import DEFAULT_CAPABILITIES

__all__ = ["container_document"]

_NEVER = "0001-01-01T00:00:00Z"
_NANOSECONDS = 1_000_000_000


def _time(seconds: float) -> str:
    if not seconds:
        return _NEVER
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def container_document(seen: Seen, world: World, *, with_size: bool) -> dict[str, Any]:
    """What is known of a container; `with_size` counts the bytes of what it wrote."""
    container = seen.container
    sandbox = container.sandbox
    document: dict[str, Any] = {
        "Id": container.id,
        "Created": _time(container.created),
        "Path": sandbox.argv[0],
        "Args": list(sandbox.argv[1:]),
        "State": _state(seen),
        "Image": container.image_id or container.image,
        "ResolvConfPath": "",
        "HostnamePath": "",
        "HostsPath": "",
        "LogPath": f"{seen.folder}/log" if container.is_detached else "",
        "Name": f"/{container.name}",
        "RestartCount": seen.state.restarted,
        "Driver": "aerogel",
        "Platform": container.platform.partition("/")[0] or "linux",
        "HostConfig": _host(container),
        "GraphDriver": {
            "Name": "aerogel",
            "Data": {
                "LowerDir": ":".join(reversed(sandbox.root.lowers)),
                "UpperDir": sandbox.root.upper,
                "WorkDir": sandbox.root.work,
            },
        },
        "Mounts": _mounts(container, world),
        "Config": _config(container),
        "NetworkSettings": {"Ports": _ports(container), "Networks": {_network(container): {}}},
    }
    if with_size:
        document["SizeRw"] = sum(measured(path, world) for path in seen.written())
        document["SizeRootFs"] = document["SizeRw"] + sum(measured(path, world) for path in sandbox.root.lowers)
    return document


def _state(seen: Seen) -> dict[str, Any]:
    state = seen.state
    is_waiting = state.status == "running" and bool(state.finished)
    word = "restarting" if is_waiting else "paused" if state.is_paused else state.status
    found: dict[str, Any] = {
        "Status": word,
        "Running": seen.is_running,
        "Paused": state.is_paused,
        "Restarting": is_waiting,
        "OOMKilled": state.oom,
        "Dead": False,
        "Pid": state.pid if seen.is_running else 0,
        "ExitCode": state.code,
        "Error": state.error,
        "StartedAt": _time(state.started),
        "FinishedAt": _time(state.finished),
    }
    if seen.container.check is not None:
        found["Health"] = {
            "Status": state.health or "none",
            "FailingStreak": state.failing,
            "Log": [
                {"Start": _time(each.started), "End": _time(each.finished), "ExitCode": each.code, "Output": each.said}
                for each in state.checks
            ],
        }
    return found


def _host(container: Container) -> dict[str, Any]:
    sandbox = container.sandbox
    own, usual = set(sandbox.capabilities), set(DEFAULT_CAPABILITIES)
    is_every = own == set(NAMES)
    binds = [mount for mount in sandbox.mounts if mount.kind == "bind"]
    names = {use.target: use.name for use in container.volumes}
    return {
        "Binds": [
            f"{names.get(each.target, each.source)}:{each.target}{':ro' if each.readonly else ''}" for each in binds
        ],
        "NetworkMode": _network(container),
        "PortBindings": _ports(container),
        "RestartPolicy": {"Name": container.restart, "MaximumRetryCount": container.restarts},
        "AutoRemove": container.is_removed,
        "CapAdd": ["ALL"] if is_every else sorted(own - usual) or None,
        "CapDrop": sorted(usual - own) or None,
        "ExtraHosts": [f"{name}:{address}" for name, address in sandbox.hosts] or None,
        "GroupAdd": list(sandbox.more_groups) or None,
        "Privileged": False,
        "ReadonlyRootfs": sandbox.root.readonly,
        "SecurityOpt": ["no-new-privileges"] if sandbox.no_new_privileges else None,
        "ShmSize": sandbox.shm_size_bytes,
        "Tmpfs": {each.target: "" for each in sandbox.mounts if each.kind == "tmpfs"},
        "Ulimits": [{"Name": each.name, "Soft": each.soft, "Hard": each.hard} for each in sandbox.limits],
        "Init": True,
        "Isolation": container.rung,
    }


def _network(container: Container) -> str:
    return "bridge" if container.sandbox.network == "sandbox" else container.sandbox.network


def _mounts(container: Container, world: World) -> list[dict[str, Any]]:
    uses = {use.target: use for use in container.volumes}
    found = []
    for mount in container.sandbox.mounts:
        if mount.kind not in ("bind", "tmpfs"):
            continue
        one: dict[str, Any] = {"Type": mount.kind, "Source": mount.source, "Destination": mount.target}
        use = uses.get(mount.target)
        if use is not None:
            data = volumes_of(world).data_of(use.name)
            one = {"Type": "volume", "Name": use.name, "Source": data, "Destination": mount.target, "Driver": "local"}
        found.append({**one, "Mode": "ro" if mount.readonly else "", "RW": not mount.readonly, "Propagation": ""})
    return found


def _config(container: Container) -> dict[str, Any]:
    sandbox, check = container.sandbox, container.check
    config: dict[str, Any] = {
        "Hostname": sandbox.hostname,
        "Domainname": "",
        "User": sandbox.user,
        "AttachStdin": container.keeps_input and not container.is_detached,
        "AttachStdout": not container.is_detached,
        "AttachStderr": not container.is_detached,
        "Tty": sandbox.tty,
        "OpenStdin": container.keeps_input,
        "StdinOnce": container.keeps_input and (container.is_input_once or not container.is_detached),
        "Env": [f"{name}={value}" for name, value in sandbox.env],
        "Image": container.image,
        "WorkingDir": sandbox.cwd,
        "Labels": container.labels,
        **container.config,
    }
    if check is not None:
        config["Healthcheck"] = {
            "Test": ["CMD", *check.command],
            "Interval": int(check.interval_s * _NANOSECONDS),
            "Timeout": int(check.timeout_s * _NANOSECONDS),
            "StartPeriod": int(check.start_period_s * _NANOSECONDS),
            "StartInterval": int(check.start_interval_s * _NANOSECONDS),
            "Retries": check.retries,
        }
    return config


def _ports(container: Container) -> dict[str, list[dict[str, str]] | None]:
    found: dict[str, list[dict[str, str]] | None] = dict.fromkeys(container.config.get("ExposedPorts") or ())
    for port in container.ports:
        one = {"HostIp": port.address or "0.0.0.0", "HostPort": str(port.host)}
        found[f"{port.inside}/{port.protocol}"] = [*(found.get(f"{port.inside}/{port.protocol}") or []), one]
    return found
