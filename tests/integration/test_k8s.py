"""`aerogel k8s`: objects that fit an image, and that a cluster with the standard `restricted` takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from process import Aerogel

DOCKERFILE = """\
FROM scratch
COPY passwd /etc/passwd
USER web
EXPOSE 8080 80/tcp 53/udp
VOLUME /var/lib/app
HEALTHCHECK --interval=10s --timeout=2s --start-period=21s --retries=5 CMD ["/app", "--check"]
CMD ["/app"]
"""


def objects(aerogel: Aerogel, folder: Path, text: str, *words: str) -> dict[str, Any]:
    (folder / "passwd").write_text("root:x:0:0::/:/no\nweb:x:1234:4321::/:/no\n")
    (folder / "Dockerfile").write_text(text)
    aerogel("build", "-q", "-t", "registry.example/team/My.app:1".lower(), str(folder))
    printed = aerogel("k8s", *words, "registry.example/team/my.app:1").stdout
    assert "&id" not in printed
    return {each["kind"]: each for each in yaml.safe_load_all(printed)}


def test_what_the_image_says_is_there(tmp_path: Path) -> None:
    aerogel = Aerogel(tmp_path / "state")
    found = objects(aerogel, tmp_path, DOCKERFILE, "--memory=1Gi", "--cpu=2", "--replicas=3")
    assert list(found) == ["Deployment", "Service", "NetworkPolicy"]
    deployment = found["Deployment"]
    assert deployment["metadata"]["name"] == "my-app"
    assert deployment["spec"]["replicas"] == 3
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    digest = aerogel.json("images")["images"][0]["digest"]
    assert container["image"] == f"registry.example/team/my.app:1@{digest}"
    security = pod["securityContext"]
    assert (security["runAsNonRoot"], security["runAsUser"], security["runAsGroup"]) == (True, 1234, 4321)
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert security["sysctls"] == [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "53"}]
    assert pod["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]},
    }
    assert container["resources"]["limits"] == {"cpu": "2", "memory": "1Gi"}
    assert [(each["containerPort"], each["protocol"]) for each in container["ports"]] == [
        (53, "UDP"), (80, "TCP"), (8080, "TCP"),
    ]  # fmt: skip
    assert [each["mountPath"] for each in container["volumeMounts"]] == ["/tmp", "/var/lib/app"]
    live, start = container["livenessProbe"], container["startupProbe"]
    assert live["exec"]["command"] == ["/app", "--check"]
    assert (live["periodSeconds"], live["timeoutSeconds"], live["failureThreshold"]) == (10, 2, 5)
    assert start["periodSeconds"] * start["failureThreshold"] >= 21
    policy = found["NetworkPolicy"]["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert {each["port"] for each in policy["ingress"][0]["ports"]} == {53, 80, 8080}
    assert {each["targetPort"] for each in found["Service"]["spec"]["ports"]} == {
        each["name"] for each in container["ports"]
    }


def test_an_image_that_says_little(tmp_path: Path) -> None:
    aerogel = Aerogel(tmp_path / "state")
    found = objects(aerogel, tmp_path, 'FROM scratch\nUSER 65532\nCOPY passwd /p\nCMD ["/p"]\n')
    assert list(found) == ["Deployment", "NetworkPolicy"]
    pod = found["Deployment"]["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsUser"] == 65532
    assert "capabilities" in pod["containers"][0]["securityContext"]
    assert "add" not in pod["containers"][0]["securityContext"]["capabilities"]
    assert not {"ports", "livenessProbe"} & pod["containers"][0].keys()
    assert found["NetworkPolicy"]["spec"]["ingress"] == []
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY passwd /p\nHEALTHCHECK CMD check it\n")
    aerogel("build", "-q", "-t", "root", str(tmp_path))
    told = aerogel("k8s", "--progress=plain", "root")
    assert "warning: the image runs as root" in told.stderr
    pod = next(yaml.safe_load_all(told.stdout))["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is False
    assert pod["containers"][0]["livenessProbe"]["exec"]["command"] == ["/bin/sh", "-c", "check it"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--memory", "much", "app"), "`--memory much` is no quantity"),
        (("--replicas", "-1", "app"), "less than no pods"),
        (("app",), "there is no image `app`"),
    ],
)
def test_what_cannot_be(tmp_path: Path, words: tuple[str, ...], told: str) -> None:
    done = Aerogel(tmp_path / "state")("k8s", *words, check=False)
    assert told in done.stderr
    assert "Traceback" not in done.stderr


PROFILES = {
    "all of it": DOCKERFILE,
    "a little": 'FROM scratch\nUSER 65532\nCOPY passwd /p\nCMD ["/p"]\n',
    "a shell check as root": "FROM scratch\nCOPY passwd /p\nHEALTHCHECK CMD check it\n",
    "no check": "FROM scratch\nUSER 7:8\nEXPOSE 9/sctp\nVOLUME /a /b\nCOPY passwd /p\nHEALTHCHECK NONE\n",
}


@pytest.mark.parametrize("name", PROFILES)
def test_the_schemas_of_kubernetes_take_it(tmp_path: Path, name: str) -> None:
    """Strictly: a key that the API does not have is an error too. Schemas: kubernetes-validate."""
    found = objects(Aerogel(tmp_path / "state"), tmp_path, PROFILES[name])
    for version in ("1.30", kubernetes_validate.latest_version()):
        for each in found.values():
            kubernetes_validate.validate(each, version, strict=True)
    broken = found["Deployment"]
    broken["spec"]["template"]["spec"]["containers"][0]["securityContext"]["runAsNobody"] = True
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, "1.30", strict=True)
    pod = found["Deployment"]["spec"]["template"]["spec"]
    assert_restricted(pod, is_root=name == "a shell check as root")


def assert_restricted(pod: dict[str, Any], *, is_root: bool) -> None:
    """Pod Security Standards, "restricted", word by word."""
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
    assert all(volume.keys() <= {"name", "emptyDir"} for volume in pod["volumes"])
    whole = pod["securityContext"]
    assert (whole["runAsNonRoot"], whole["runAsUser"] != 0) == (not is_root, not is_root)
    assert whole["seccompProfile"]["type"] in ("RuntimeDefault", "Localhost")
    for container in pod["containers"]:
        own = container["securityContext"]
        assert own["allowPrivilegeEscalation"] is False
        assert own["readOnlyRootFilesystem"] is True
        assert "privileged" not in own
        assert own["capabilities"]["drop"] == ["ALL"]
        assert set(own["capabilities"].get("add", ())) <= {"NET_BIND_SERVICE"}
        assert {"cpu", "memory"} <= container["resources"]["limits"].keys()
        mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
        assert "/tmp" in mounts
        assert len(mounts) == len(set(mounts))
