"""`aerogel k8s`: a Deployment, a Service and a NetworkPolicy that fit an image, hardened as far as it allows.

Everything is read from the image: user, ports, volumes, health check. Nothing is sent anywhere.
Spec: Kubernetes API apps/v1, v1, networking.k8s.io/v1; Pod Security Standards "restricted".
"""

from __future__ import annotations

import json
import re
from typing import Annotated, Any

from msgspec import Struct

from aerogel.commands.lookup import find_image
from aerogel.commands.result import Result
from aerogel.commands.world import World
from aerogel.errors import EXIT_USAGE, AerogelError, Diagnostic
from aerogel.events import Warned
from aerogel.files.owner import parse_owner
from aerogel.files.tree import LayerTree
from aerogel.flag import Flag
from aerogel.oci.digest import is_digest
from aerogel.oci.image import Image, load
from aerogel.oci.platform import Platform
from aerogel.oci.reference import Reference
from aerogel.oci.types import Healthcheck
from aerogel.store.load import record_layers, record_present

__all__ = ["EXAMPLES", "K8s", "K8sResult", "run"]

EXAMPLES = (
    ("what a cluster needs to run an image", "aerogel k8s registry.example/team/app:1.2 > app.yaml"),
    ("with more memory", "aerogel k8s --memory 1Gi --cpu 2 app"),
)

_QUANTITY = re.compile(r"[0-9]+(\.[0-9]+)?(m|k|M|G|Ki|Mi|Gi)?")
_NAME = re.compile(r"[^a-z0-9-]+")
_LONGEST_NAME = 63
_PRIVILEGED = 1024
"""Ports below this one need a capability."""
_SECOND = 1_000_000_000


class K8s(Struct, frozen=True, kw_only=True):
    """Print a Deployment that fits an image of the local store."""

    name: Annotated[str, Flag("Name of an image", positional=True, metavar="IMAGE")]
    app: Annotated[str, Flag("Name of the objects; default: that of the repository", metavar="NAME")] = ""
    replicas: Annotated[int, Flag("Pods")] = 1
    memory: Annotated[str, Flag("Most memory of a pod", metavar="QUANTITY")] = "256Mi"
    cpu: Annotated[str, Flag("Most processors of a pod", metavar="QUANTITY")] = "500m"
    platform: Annotated[
        str | None, Flag("Platform to take from a multi-platform image", metavar="OS/ARCH", setting="platform")
    ] = None


class K8sResult(Result, frozen=True, kw_only=True):
    objects: tuple[dict[str, Any], ...]

    def text(self) -> str:
        import yaml

        # Copies of what stands in several places, or YAML would write anchors.
        plain = json.loads(json.dumps(self.objects))
        return "---\n".join(yaml.safe_dump(each, sort_keys=False, width=100) for each in plain).rstrip()


def run(options: K8s, world: World) -> K8sResult:
    """Raises `image.not-found`, `k8s.quantity`, `k8s.replicas`, `oci.*` (`oci.diff-id`)."""
    for flag, text in (("--memory", options.memory), ("--cpu", options.cpu)):
        if not _QUANTITY.fullmatch(text):
            raise AerogelError(
                f"`{flag} {text}` is no quantity",
                code="k8s.quantity",
                exit_status=EXIT_USAGE,
                hints=["write `512Mi`, `2Gi`, `500m` or `2`"],
            )
    if options.replicas < 0:
        raise AerogelError(
            "there cannot be less than no pods",
            code="k8s.replicas",
            exit_status=EXIT_USAGE,
            hints=["write `--replicas 2`"],
        )
    record = find_image(world.store, options.name)
    platform = Platform.parse(world.settings.platform or str(Platform.host()))
    image = load(record.descriptor, world.store.blobs, platform)
    # What is printed comes from the config: it has to be that of these layers.
    record_present(image, world.store)
    name = Reference.parse(options.name) if not is_digest(options.name) else None
    named = next((each for each in record.references if name is None or each.name == name.name), None)
    told = f"{named.familiar()}@{record.descriptor.digest}" if named is not None else options.name
    app = options.app or (named.repository.rpartition("/")[2] if named is not None else "app")
    app = _NAME.sub("-", app.lower()).strip("-")[:_LONGEST_NAME].rstrip("-") or "app"
    ports = _ports(image)
    objects = [_deployment(app, told, image, options, world, ports)]
    if ports:
        objects.append(_service(app, ports))
    objects.append(_policy(app, ports))
    return K8sResult(objects=tuple(objects))


def _deployment(
    app: str, told: str, image: Image, options: K8s, world: World, ports: list[tuple[int, str]]
) -> dict[str, Any]:
    labels = {"app.kubernetes.io/name": app}
    folders = ["/tmp", *sorted(set(image.config.config.volumes) - {"/tmp"})]
    volumes = [(f"writable-{number}", folder) for number, folder in enumerate(folders)]
    container: dict[str, Any] = {"name": app, "image": told, "imagePullPolicy": "IfNotPresent"}
    if ports:
        container["ports"] = [
            {"name": _port_name(port, kind), "containerPort": port, "protocol": kind} for port, kind in ports
        ]
    container |= _probes(image.config.config.healthcheck, image.config.config.shell)
    container["resources"] = {
        "requests": {"cpu": "50m" if options.cpu != "0" else "0", "memory": options.memory},
        "limits": {"cpu": options.cpu, "memory": options.memory},
    }
    added = ["NET_BIND_SERVICE"] if any(port < _PRIVILEGED for port, _ in ports) else []
    container["securityContext"] = {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"], **({"add": added} if added else {})},
    }
    container["volumeMounts"] = [{"name": name, "mountPath": folder} for name, folder in volumes]
    pod = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {**_user(image, world), "seccompProfile": {"type": "RuntimeDefault"}, **_low_ports(ports)},
        "containers": [container],
        "volumes": [{"name": name, "emptyDir": {"sizeLimit": "256Mi"}} for name, _ in volumes],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": app, "labels": labels},
        "spec": {
            "replicas": options.replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }


def _user(image: Image, world: World) -> dict[str, Any]:
    """Who the image says it is, as numbers: only of these the kubelet can tell that they are not root."""
    text = image.config.config.user
    user, group = 0, 0
    if text:
        # Numbers need no look into the layers.
        layers = () if text.replace(":", "").isdecimal() else image.layers()
        if layers:
            record_layers(image, world.store)
        tree = LayerTree([world.store.layers.index(layer.diff_id) for layer in layers])
        user, group = parse_owner(text, tree)
    if user == 0:
        world.sink.emit(
            Warned(
                Diagnostic(
                    "the image runs as root, which clusters with the standard `restricted` refuse",
                    code="k8s.root",
                    hints=("write `USER 65532` into the Dockerfile",),
                )
            )
        )
        return {"runAsNonRoot": False, "runAsUser": 0, "runAsGroup": group}
    return {"runAsNonRoot": True, "runAsUser": user, "runAsGroup": group, "fsGroup": group}


def _low_ports(ports: list[tuple[int, str]]) -> dict[str, Any]:
    """A capability alone does not reach a process that is not root (there are no ambient ones): this safe sysctl does."""
    lowest = min((port for port, _ in ports), default=_PRIVILEGED)
    if lowest >= _PRIVILEGED:
        return {}
    return {"sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": str(lowest)}]}


def _ports(image: Image) -> list[tuple[int, str]]:
    found = []
    for text in image.config.config.exposed_ports:
        number, _, kind = text.partition("/")
        first = number.partition("-")[0]
        if first.isascii() and first.isdecimal() and kind.upper() in ("", "TCP", "UDP", "SCTP"):
            found.append((int(first), kind.upper() or "TCP"))
    return sorted(set(found))


def _port_name(port: int, kind: str) -> str:
    return f"{kind.lower()}-{port}"


def _probes(check: Healthcheck | None, shell: tuple[str, ...]) -> dict[str, Any]:
    """HEALTHCHECK as liveness and readiness; its start period as a startup probe, which holds the others back."""
    if check is None or not check.test or check.test[0] == "NONE":
        return {}
    words = list(check.test[1:])
    command = words if check.test[0] == "CMD" else [*(shell or ("/bin/sh", "-c")), *words]
    probe = {
        "exec": {"command": command},
        "periodSeconds": max(1, (check.interval or 30 * _SECOND) // _SECOND),
        "timeoutSeconds": max(1, (check.timeout or 30 * _SECOND) // _SECOND),
        "failureThreshold": check.retries or 3,
    }
    found: dict[str, Any] = {"livenessProbe": probe, "readinessProbe": {**probe, "failureThreshold": 1}}
    if check.start_period:
        every = max(1, (check.start_interval or 5 * _SECOND) // _SECOND)
        tries = max(1, -(-check.start_period // (every * _SECOND)))
        found = {"startupProbe": {**probe, "periodSeconds": every, "failureThreshold": tries}, **found}
    return found


def _service(app: str, ports: list[tuple[int, str]]) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": app, "labels": {"app.kubernetes.io/name": app}},
        "spec": {
            "selector": {"app.kubernetes.io/name": app},
            "ports": [
                {"name": _port_name(port, kind), "port": port, "targetPort": _port_name(port, kind), "protocol": kind}
                for port, kind in ports
            ],
        },
    }


def _policy(app: str, ports: list[tuple[int, str]]) -> dict[str, Any]:
    """Only the exposed ports from outside, only names towards outside: what else the program asks for is to be added."""
    names = [{"protocol": kind, "port": 53} for kind in ("UDP", "TCP")]
    ingress = [{"ports": [{"protocol": kind, "port": port} for port, kind in ports]}] if ports else []
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": app, "labels": {"app.kubernetes.io/name": app}},
        "spec": {
            "podSelector": {"matchLabels": {"app.kubernetes.io/name": app}},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": ingress,
            "egress": [{"ports": names}],
        },
    }
