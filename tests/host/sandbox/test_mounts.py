"""Mounts leave nothing behind, and lead nowhere outside."""

import os
import socket
import stat
import threading

import pytest

from aerogel.errors import AerogelError
from aerogel.sandbox.agent import AgentProxy
from aerogel.sandbox.spec import Mount, Rootfs, Sandbox

pytestmark = pytest.mark.host


def every_kind(tmp_path):
    (tmp_path / "shared/below").mkdir(parents=True)
    (tmp_path / "shared/file").write_text("shared\n")
    return (
        Mount(kind="bind", source=str(tmp_path / "shared"), target="/mnt/deep/dir", readonly=True),
        Mount(kind="bind", source=str(tmp_path / "shared"), target="/srv"),
        Mount(kind="bind", source=str(tmp_path / "shared/file"), target="/mnt/one-file"),
        Mount(kind="bind", source=str(tmp_path / "shared/file"), target="/etc/passwd2"),
        Mount(kind="tmpfs", target="/var/cache/thing", size_bytes=1 << 20),
        Mount(kind="tmpfs", target="/opt"),
        Mount(kind="file", target="/run/secrets/token", data=b"s3cret\xff", mode=0o400),
        Mount(kind="file", target="/opt/inside/of/tmpfs", data=b"nested\n"),
        Mount(kind="file", target="/dev/pipes/EOF", data=b"heredoc\n"),
    )


def test_a_step_that_does_nothing_leaves_nothing(box, tmp_path):
    upper = box.upper()
    said = box.sh(
        "cat /mnt/deep/dir/file /srv/file /mnt/one-file /etc/passwd2 /opt/inside/of/tmpfs /dev/pipes/EOF;"
        "stat -c %a /run/secrets/token /opt; touch /opt/x /var/cache/thing/y; touch /mnt/deep/dir/x 2>/dev/null || echo ro",
        root=upper,
        mounts=every_kind(tmp_path),
    )
    assert said == "shared\nshared\nshared\nshared\nnested\nheredoc\n400\n1777\nro\n"
    assert os.listdir(upper.upper) == []


def test_on_an_empty_root_too(box, tmp_path):
    upper = box.upper()
    root = Rootfs(upper=upper.upper, work=upper.work)
    tool = Mount(kind="bind", source=f"{box.layer}/bin/busybox", target="/tool/busybox")
    ended, said = box.run("/tool/busybox", "ls", "/", root=root, mounts=(tool, *every_kind(tmp_path)))
    assert (ended.code, said.split()) == (0, ["dev", "etc", "mnt", "opt", "proc", "run", "srv", "sys", "tool", "var"])
    assert os.listdir(upper.upper) == []


def test_what_is_written_beside_a_mount_stays(box, tmp_path):
    upper = box.upper()
    box.sh("echo x >/mnt/mine", root=upper, mounts=every_kind(tmp_path))
    assert os.listdir(upper.upper) == ["mnt"]
    assert os.listdir(upper.upper + "/mnt") == ["mine"]


def test_a_place_that_the_image_removed(box, tmp_path):
    first, second = box.upper(), box.upper()
    box.sh("rm -r /srv /etc/passwd; rm -r /root; mkdir /root; chmod 700 /root; chown 5:6 /root", root=first)
    root = Rootfs(lowers=(box.layer, first.upper), upper=second.upper, work=second.work)
    mounts = (
        Mount(kind="tmpfs", target="/srv/data"),
        Mount(kind="file", target="/etc/passwd", data=b"x:x:7:7::/:/\n"),
        Mount(kind="file", target="/root/.token", data=b"t"),
    )
    said = box.sh(
        "cat /etc/passwd /root/.token; stat -c ' %a %u %g' /root; ls -d /srv/data", root=root, mounts=mounts, user="0"
    )
    assert said == "x:x:7:7::/:/\nt 700 5 6\n/srv/data\n"
    assert os.listdir(second.upper) == []


@pytest.mark.parametrize("link", ["/../../../../../../tmp/{name}", "../../../../{name}", "/{name}"])
def test_a_target_that_is_a_link_stays_inside(box, tmp_path, link):
    outside = tmp_path / "outside"
    outside.mkdir()
    evil = tmp_path / "evil"
    (evil / "srv").mkdir(parents=True)
    (evil / "srv/link").symlink_to(link.format(name=f"aim{os.getpid()}"))
    (evil / "srv/host").symlink_to(str(outside))
    upper = box.upper()
    root = Rootfs(lowers=(box.layer, str(evil)), upper=upper.upper, work=upper.work)
    mounts = (
        Mount(kind="file", target="/srv/link/token", data=b"one\n"),
        Mount(kind="file", target="/srv/host/token", data=b"two\n"),
    )
    assert box.sh("cat /srv/link/token /srv/host/token", root=root, mounts=mounts) == "one\ntwo\n"
    assert os.listdir(outside) == []
    assert not os.path.lexists(f"/aim{os.getpid()}")
    assert os.listdir(upper.upper) == []


@pytest.mark.parametrize("name", ["proc", "sys", "dev"])
@pytest.mark.parametrize("link", ["/", "/etc", "../../..", "/nowhere"])
def test_system_directories_that_are_links_are_refused(box, tmp_path, name, link):
    (tmp_path / "evil").mkdir()
    (tmp_path / "evil" / name).symlink_to(link)
    with pytest.raises(AerogelError) as caught:
        box.run("true", root=Rootfs(lowers=(box.layer, str(tmp_path / "evil"))))
    assert caught.value.code in ("sandbox.hostile-root", "sandbox.mount-target")
    assert os.path.isdir("/proc/self")


def test_a_linked_etc(box, tmp_path):
    """resolv.conf as systemd's hosts have it, and an /etc that points out of the image."""
    (tmp_path / "ubuntu/etc").mkdir(parents=True)
    (tmp_path / "ubuntu/etc/resolv.conf").symlink_to("../run/systemd/resolve/stub-resolv.conf")
    upper = box.upper()
    root = Rootfs(lowers=(box.layer, str(tmp_path / "ubuntu")), upper=upper.upper, work=upper.work)
    with open("/etc/resolv.conf") as file:
        assert box.sh("cat /etc/resolv.conf", root=root) == file.read()
    assert os.listdir(upper.upper) == []

    evil = tmp_path / "evil"
    (evil / "bin").mkdir(parents=True)
    os.link(f"{box.layer}/bin/busybox", evil / "bin/busybox")
    (evil / "etc").symlink_to("/../../../../etc")
    with pytest.raises(AerogelError) as caught:
        box.run("/bin/busybox", "true", root=Rootfs(lowers=(str(evil),)))
    assert caught.value.code == "sandbox.mount-target"
    (evil / "etc").unlink()
    (evil / "etc").symlink_to("../../..")
    ended, said = box.run("/bin/busybox", "cat", "/hostname", "/etc/hostname", root=Rootfs(lowers=(str(evil),)))
    assert (ended.code, said) == (0, "aerogel\naerogel\n")


def test_passwd_that_links_to_the_host(box, tmp_path):
    (tmp_path / "evil/etc").mkdir(parents=True)
    for link in ("/proc/1/root/etc/passwd", "/proc/self/root/etc/passwd", "../../../../../../etc/passwd"):
        name = tmp_path / "evil/etc/passwd"
        name.unlink(missing_ok=True)
        name.symlink_to(link)
        with pytest.raises(AerogelError) as caught:
            box.run("true", user="daemon", root=Rootfs(lowers=(box.layer, str(tmp_path / "evil"))))
        assert caught.value.code == "sandbox.no-user"
    name.unlink()
    os.mkfifo(name)
    with pytest.raises(AerogelError):
        box.run("true", user="daemon", root=Rootfs(lowers=(box.layer, str(tmp_path / "evil"))))


def test_modules_of_the_image_are_never_run(box, tmp_path):
    """The search for a module would find the image's, with all capabilities."""
    evil = tmp_path / "evil"
    bait = "import os; os.close(os.open('/caught', os.O_CREAT))\n"
    home = os.path.dirname(os.__file__)
    for folder in (
        home,
        "/usr/lib/python3.11",
        "/usr/lib/python3",
        os.path.dirname(os.path.dirname(os.path.dirname(__file__))),
    ):
        (evil / folder.lstrip("/") / "encodings").mkdir(parents=True, exist_ok=True)
        for name in ("traceback", "sitecustomize", "linecache", "tokenize", "encodings/idna", "pwd", "shutil"):
            (evil / folder.lstrip("/") / f"{name}.py").write_text(bait)
    upper = box.upper()
    root = Rootfs(lowers=(box.layer, str(evil)), upper=upper.upper, work=upper.work)
    box.sh("true", root=root)
    box.run("nosuch", root=root)
    box.run("true", cwd="/nowhere", root=root)
    with pytest.raises(AerogelError):
        box.run("true", user="nobody", root=root)
    assert os.listdir(upper.upper) == []


def test_a_file_in_the_way(box, tmp_path):
    for target, why in (("/etc/passwd/x", "file"), ("/srv", "directory")):
        with pytest.raises(AerogelError) as caught:
            box.run("true", mounts=(Mount(kind="file", target=target, data=b""),))
        assert caught.value.code == "sandbox.mount-target", why
    with pytest.raises(AerogelError) as caught:
        box.run("true", mounts=(Mount(kind="tmpfs", target="/etc/passwd"),))
    assert "it is a file in the image" in caught.value.message


def test_a_source_that_is_missing(box):
    with pytest.raises(AerogelError) as caught:
        box.run("true", mounts=(Mount(kind="bind", source="/nowhere/at/all", target="/srv"),))
    assert caught.value.code == "sandbox.mount-source"


def test_a_volume_is_written_through(box, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data").chmod(0o777)
    box.sh(
        "echo mine >/data/file; mknod /data/null c 1 3 2>/dev/null; test -c /data/null && ! cat /data/null || true",
        mounts=(Mount(kind="bind", source=str(tmp_path / "data"), target="/data"),),
    )
    assert (tmp_path / "data/file").read_text() == "mine\n"
    assert (tmp_path / "data/file").stat().st_uid == os.getuid()


def test_the_mode_and_owner_of_files(box):
    mounts = (
        Mount(kind="file", target="/a", data=b"", uid=1000, gid=1001, mode=0o440),
        Mount(kind="tmpfs", target="/b", uid=1000, mode=0o700),
    )
    assert box.sh("stat -c '%a %u %g' /a /b", mounts=mounts) == "440 1000 1001\n700 1000 0\n"


def test_devices(box):
    said = box.sh(
        "cd /dev; stat -c '%n %F' null zero full random urandom tty shm mqueue pts fd ptmx | sort; echo x >null; head -c2 zero | wc -c; touch shm/x"
    )
    assert "null character special file" in said
    assert said.endswith("\n2\n")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def layers(tmp_path):
    for name, text in (("low", "low\n"), ("high", "high\n")):
        (tmp_path / name / "opt/tool").mkdir(parents=True)
        (tmp_path / name / "opt/tool/version").write_text(text)
        (tmp_path / name / "opt/tool" / name).write_text(text)
    return (str(tmp_path / "low"), str(tmp_path / "high"))


def test_a_part_of_other_layers(box, tmp_path):
    stack = layers(tmp_path)
    upper = box.upper()
    said = box.sh(
        "cat /mnt/tool/version /mnt/tool/low /version; ls / | grep -c ^opt; touch /mnt/tool/x 2>/dev/null || echo ro;"
        "echo new >/mnt/rw/version; rm /mnt/rw/low; cat /mnt/rw/version; ls /mnt/rw; echo new >/one; cat /one; ls /mnt/none",
        root=upper,
        mounts=(
            Mount(kind="overlay", lowers=stack, source="opt/tool", target="/mnt/tool", readonly=True),
            Mount(
                kind="overlay",
                lowers=stack,
                source="opt/tool/version",
                target="/version",
                is_directory=False,
                readonly=True,
            ),
            Mount(kind="overlay", lowers=stack, source="/opt/tool", target="/mnt/rw"),
            Mount(kind="overlay", lowers=stack, source="/opt/tool/version", target="/one", is_directory=False),
            Mount(kind="overlay", lowers=(), source="", target="/mnt/none"),
        ),
    )
    assert said == "high\nlow\nhigh\n0\nro\nnew\nhigh\nversion\nnew\n"
    assert os.listdir(upper.upper) == []
    assert (tmp_path / "high/opt/tool/version").read_text() == "high\n"
    assert (tmp_path / "low/opt/tool/low").exists()


def test_a_source_that_is_not_in_the_layers(box, tmp_path):
    mount = Mount(kind="overlay", lowers=layers(tmp_path), source="opt/none", target="/mnt", readonly=True)
    with pytest.raises(AerogelError) as caught:
        box.sh("true", root=box.upper(), mounts=(mount,))
    assert caught.value.code == "sandbox.mount-source"


def test_a_link_in_the_layers_leads_nowhere_outside(box, tmp_path):
    (tmp_path / "low").mkdir()
    (tmp_path / "low/out").symlink_to("/etc")
    mount = Mount(kind="overlay", lowers=(str(tmp_path / "low"),), source="out", target="/mnt", readonly=True)
    with pytest.raises(AerogelError) as caught:
        box.sh("true", root=box.upper(), mounts=(mount,))
    assert caught.value.code == "sandbox.mount-source"


class PlainAgent:
    """Answers any request with its own type byte and a text, and remembers the types."""

    def __init__(self, path):
        self.seen = []
        self.path = str(path)
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.bind(self.path)
        self.sock.listen()
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            connection, _ = self.sock.accept()
            with connection, connection.makefile("rwb") as stream:
                while head := stream.read(4):
                    body = stream.read(int.from_bytes(head))
                    self.seen.append(body[0])
                    stream.write((7).to_bytes(4) + body[:1] + b"agent\n")
                    stream.flush()


def test_an_agent_is_asked_through_a_socket(box, tmp_path):
    agent = PlainAgent(tmp_path / "agent")
    perl = (
        "use IO::Socket::UNIX; for my $type (11, 17) {"
        "my $s = IO::Socket::UNIX->new(Peer => $ENV{SOCK}) or die $!; syswrite($s, pack('NC', 1, $type));"
        "sysread($s, my $head, 4); sysread($s, my $body, unpack('N', $head)); print unpack('C', $body), substr($body, 1), ' '; }"
    )
    mounts = (
        Mount(kind="socket", target="/run/deep/agent", mode=0o640, uid=1000, gid=44),
        *(Mount(kind="bind", source=os.path.realpath(name), target=name) for name in ("/usr", "/lib", "/lib64")),
    )
    script = f"stat -c '%a %u %g %F' $SOCK; exec /usr/bin/perl -e \"{perl.replace('$', chr(92) + '$')}\""
    upper = box.upper()
    read, write = os.pipe()
    argv = ("sh", "-c", script)
    with open(read, "rb") as output:
        wanted = Sandbox(argv=argv, root=upper, mounts=mounts, env=(("SOCK", "/run/deep/agent"),))
        process = box.helper.run(wanted, stdout=write, stderr=write)
        os.close(write)
        with process, AgentProxy(process.listeners["/run/deep/agent"], agent.path):
            said = output.read()
            assert process.wait(60).code == 0
    assert said == b"640 1000 44 socket\n11agent\n 5 "
    assert agent.seen == [11], "removing all keys (17) was not let through"
    assert os.listdir(upper.upper) == []
