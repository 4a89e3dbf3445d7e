"""`--network sandbox`: a network of the container's own that reaches the world, and ports of the host that lead into it.

Debian packages: slirp4netns, passt, busybox-static.
"""

from __future__ import annotations

import http.server
import os
import shutil
import socket
import threading
import time
import urllib.request

import pytest
from process import Aerogel
from small_image import build_small_image

TOOLS = {"auto": "slirp4netns", "single": "pasta"}
pytestmark = [
    pytest.mark.host("busybox", "slirp4netns", "pasta"),
    pytest.mark.skipif(not os.path.exists("/dev/net/tun"), reason="this host has no /dev/net/tun"),
]


@pytest.fixture(scope="module", params=TOOLS)
def small(request, tmp_path_factory):
    """With the program that is taken on a rung: slirp4netns for real root, else pasta."""
    folder = tmp_path_factory.mktemp("network")
    aerogel = Aerogel(folder / "state")
    aerogel.env["AEROGEL_ISOLATION"] = request.param
    build_small_image(aerogel, folder / "image", "small")
    yield aerogel
    left = aerogel("ps", "-aq").stdout.split()
    if left:
        aerogel("rm", "-f", *left)


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def fetched(port, timeout_s=60.0):
    """What a web server says at a port of this host, when it is there."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    end = time.monotonic() + timeout_s
    while True:
        try:
            with opener.open(f"http://127.0.0.1:{port}/", timeout=2) as answer:
                return answer.read()
        except OSError:
            assert time.monotonic() < end
            time.sleep(0.05)


def test_a_port_leads_in(small):
    port = free_port()
    serve = "mkdir /www; echo inside >/www/index.html; exec httpd -f -p 80 -h /www"
    small("run", "-d", "--name", "web", "-p", f"127.0.0.1:{port}:80", "small", "sh", "-c", serve)
    assert fetched(port) == b"inside\n"
    assert small("ps", "--format", "{{.Ports}}").stdout == f"127.0.0.1:{port}->80/tcp\n"
    assert small("exec", "web", "wget", "-q", "-O", "-", "http://127.0.0.1/").stdout == "inside\n"
    small("rm", "-f", "web")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=2).close()


def test_a_port_that_is_taken(small):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = small("run", "-p", f"127.0.0.1:{port}:80", "small", "true", check=False)
    assert done.returncode == 3
    assert done.stderr.startswith(f"error: the host's port `{port}/tcp` cannot be used\n")


def test_a_look_into_one_whose_network_keeps_it_from_starting(small, tmp_path):
    """Its ports are left alone, and where there is no program for the network there is none."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = small("run", "-d", "--name", "held", "-p", f"127.0.0.1:{port}:80", "small", "true", check=False)
        assert done.returncode == 3
        done = small("debug", "held", "sh", "-c", "echo inside; ls /sys/class/net")
    assert done.stdout.split()[:2] in (["inside", "lo"], ["inside", "eth0"]), done.stdout
    assert len(done.stdout.split()) >= 3, done.stdout
    (tmp_path / "busybox").symlink_to(shutil.which("busybox"))
    done = small("debug", "held", "sh", "-c", "echo inside; ls /sys/class/net", env={"PATH": str(tmp_path)})
    assert done.stdout.split() == ["inside", "lo"]
    assert "its network cannot be made, so there is none: `--network sandbox` needs" in done.stderr
    small("rm", "held")


def test_the_host_cannot_be_reached(small):
    """Its loopback addresses are not the container's, and neither by the gateway."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            """Says nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        port = server.server_address[1]
        script = f"for a in 127.0.0.1 $(ip route | grep default | cut -d' ' -f3); do wget -q -T 2 -O - http://$a:{port}/ && echo REACHED; done; echo tried"
        said = small("run", "--network", "sandbox", "small", "sh", "-c", script).stdout
        server.shutdown()
    assert said == "tried\n"


def test_its_own_interfaces(small):
    script = "ip -o -4 addr | wc -l; grep -c nameserver /etc/resolv.conf"
    assert small("run", "--network", "bridge", "small", "sh", "-c", script).stdout == "2\n1\n"


def test_a_build(small, tmp_path):
    (tmp_path / "Dockerfile").write_text("FROM small\nRUN ip -o -4 addr | grep -cv ' lo ' >/count\n")
    small("build", "-q", "--network", "sandbox", "-t", "counted", str(tmp_path))
    assert small("run", "counted", "cat", "/count").stdout == "1\n"


def test_a_step_that_asks_for_it(small, tmp_path):
    """The word is part of what a step is: the same command without it is another step."""
    command = "ip -o -4 addr | grep -v ' lo ' | grep -c 'inet 10.0.2.100/\\|tap0\\|host0' >/count || true"
    (tmp_path / "Dockerfile").write_text(
        f"FROM small\nRUN --network=sandbox {command}; ls /sys/class/net | wc -l >/all\n"
    )
    assert "CACHED" not in small("build", "--progress=plain", "-t", "asked", str(tmp_path)).stderr
    assert small("run", "asked", "cat", "/all").stdout == "2\n"
    assert "CACHED" in small("build", "--progress=plain", "-t", "asked", str(tmp_path)).stderr
    (tmp_path / "Dockerfile").write_text(f"FROM small\nRUN {command}; ls /sys/class/net | wc -l >/all\n")
    assert "CACHED" not in small("build", "--progress=plain", "-t", "asked", str(tmp_path)).stderr


@pytest.mark.skipif(os.getuid() != 0, reason="rights are taken away from root")
def test_where_there_are_no_namespaces(small, tmp_path, monkeypatch):
    monkeypatch.setitem(small.env, "AEROGEL_ISOLATION", "chroot")
    (tmp_path / "Dockerfile").write_text("FROM small\nRUN --network=sandbox true\n")
    done = small("build", "--no-cache", str(tmp_path), check=False)
    assert done.returncode == 3
    assert "error: a network of its own needs namespaces, which this host does not give\n" in done.stderr
    assert " 2 | RUN --network=sandbox true\n" in done.stderr
    assert "hint: nothing else makes one: take `--network host`" in done.stderr


def test_ports_without_a_network_of_its_own(small):
    done = small("run", "--network", "host", "-p", "8080:80", "small", "echo", "on")
    assert (done.stdout, done.stderr) == (
        "on\n", "warning: with `--network host` no port is published: its ports are the host's\n"
    )  # fmt: skip


def test_no_program_for_it(small, tmp_path, monkeypatch):
    for name in ("newuidmap", "newgidmap"):
        (tmp_path / name).symlink_to(shutil.which(name) or "/nowhere")
    monkeypatch.setitem(small.env, "PATH", str(tmp_path))
    done = small("run", "--network", "sandbox", "small", "true", check=False)
    assert done.returncode == 3
    assert done.stderr.startswith("error: `--network sandbox` needs ")
    assert "hint: `apt-get install " in done.stderr


def test_nothing_is_left(small):
    assert [name for name in os.listdir(small.state / "cache/sandbox") if name.startswith("session")] == []
