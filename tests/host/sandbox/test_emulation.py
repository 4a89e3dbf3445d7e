"""Commands of other machines, through qemu that is registered for the sandbox alone. Debian: qemu-user-static."""

import errno
import os
import shutil
import struct
from pathlib import Path

import pytest
from foreign import greeter

from aerogel.errors import EXIT_HOST, AerogelError
from aerogel.sandbox import emulation, syscalls
from aerogel.sandbox.emulation import line_of
from aerogel.sandbox.emulator import Emulator, runs_natively
from aerogel.sandbox.launch import Helper
from aerogel.sandbox.spec import Rootfs, Sandbox

pytestmark = pytest.mark.host

REGISTERED = "/proc/sys/fs/binfmt_misc"


@pytest.fixture
def root(tmp_path):
    (tmp_path / "layer/bin").mkdir(parents=True)
    for name, data in {"greet": greeter(), "busybox": Path("/bin/busybox").read_bytes()}.items():
        (tmp_path / f"layer/bin/{name}").write_bytes(data)
        (tmp_path / f"layer/bin/{name}").chmod(0o755)
    return str(tmp_path / "layer")


def run(helper, root, *argv, emulated, tmp_path):
    with (tmp_path / "said").open("wb") as out:
        sandbox = Sandbox(argv=argv, root=Rootfs(lowers=(root,)), emulated=emulated)
        with helper.run(sandbox, stdout=out.fileno(), stderr=out.fileno()) as process:
            ended = process.wait()
    return ended.code, (tmp_path / "said").read_text()


@pytest.mark.parametrize("isolation", ["root", "ident"])
def test_a_foreign_command_runs_and_the_host_is_as_before(isolation, root, tmp_path):
    before = os.listdir(REGISTERED)
    with Helper.start(str(tmp_path / "state"), isolation=isolation) as helper:
        emulator = Emulator(registered=str(tmp_path))
        assert emulator.prepare(lambda: helper, "linux/arm64") is True
        assert emulator.prepare(lambda: helper, "linux/arm64") is True
        assert run(helper, root, "/bin/greet", emulated=True, tmp_path=tmp_path) == (7, "hello from arm64\n")
        assert run(helper, root, "/bin/greet", emulated=False, tmp_path=tmp_path)[0] == 126
        # Programs of this machine run as well, with owners and rights as anywhere.
        script = "grep CapEff /proc/self/status; touch /a; chown 5:6 /a; stat -c %u:%g /a; id -u; exec /bin/greet"
        ended = run(helper, root, "/bin/busybox", "sh", "-c", script, emulated=True, tmp_path=tmp_path)
        assert ended == (7, "CapEff:\t00000000a80425fb\n5:6\n0\nhello from arm64\n")
    assert os.listdir(REGISTERED) == before


def test_a_platform_without_qemu_is_told_with_what_to_install(tmp_path):
    with pytest.raises(AerogelError) as caught:
        Emulator(search=str(tmp_path)).prepare(lambda: pytest.fail("no helper is needed for that"), "linux/s390x")
    assert (caught.value.code, caught.value.exit_status) == ("sandbox.no-emulation", EXIT_HOST)
    assert caught.value.message == "this machine cannot run programs for `linux/s390x`: there is no qemu for them"
    assert caught.value.hints == (
        "install qemu: `apt-get install qemu-user-static` (Debian, Ubuntu), `dnf install qemu-user-static` (Fedora)",
    )


@pytest.mark.parametrize(
    ("number", "why"),
    [
        (errno.EPERM, "mount: the kernel has no binfmt_misc for user namespaces (Linux 6.7 has)"),
        (errno.ENODEV, "mount: the kernel has no binfmt_misc for user namespaces (Linux 6.7 has)"),
        (errno.ENOMEM, "mount: Cannot allocate memory"),
    ],
)
def test_a_kernel_that_has_no_list_for_user_namespaces(tmp_path, monkeypatch, number, why):
    """As before Linux 6.7: the mount is refused, and the one way that is left is said."""
    mount = syscalls.mount

    def refused(source, target, kind, *rest):
        if kind == "binfmt_misc":
            raise OSError(number, os.strerror(number), "mount")
        mount(source, target, kind, *rest)

    class Old:
        def emulate(self, interpreters):
            emulation.make(str(tmp_path), interpreters)

    monkeypatch.setattr(syscalls, "mount", refused)
    with pytest.raises(AerogelError) as caught:
        Emulator(registered=str(tmp_path)).prepare(Old, "linux/arm64")
    assert (caught.value.code, caught.value.exit_status) == ("sandbox.no-emulation", EXIT_HOST)
    assert caught.value.message.startswith("this machine cannot run programs for `linux/arm64`: ")
    assert why in f"{caught.value.message}\n{caught.value.detail}"
    assert caught.value.hints == (
        "let the host register it, as root: `apt-get install qemu-user-static binfmt-support`",
    )


def test_a_qemu_that_needs_libraries_of_the_root_is_not_taken(tmp_path):
    shutil.copy("/bin/ls", tmp_path / "qemu-s390x-static")
    with pytest.raises(AerogelError, match="there is no qemu"):
        Emulator(search=str(tmp_path)).prepare(lambda: pytest.fail("not to be tried"), "linux/s390x")


def test_what_the_host_has_registered_is_taken(tmp_path):
    (tmp_path / "status").write_text("enabled\n")
    entry = "enabled\ninterpreter /usr/bin/qemu\nflags: {}\noffset 0\nmagic {}\nmask ff\n"
    magic = (b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HH", 2, 183)).hex()
    (tmp_path / "qemu-aarch64").write_text(entry.format("POCF", magic))
    emulator = Emulator(search=str(tmp_path), registered=str(tmp_path))
    assert emulator.prepare(lambda: pytest.fail("no helper is needed for that"), "linux/arm64") is False
    (tmp_path / "qemu-aarch64").write_text(entry.format("OC", magic))  # the interpreter would be looked for inside
    with pytest.raises(AerogelError, match="there is no qemu"):
        Emulator(search=str(tmp_path), registered=str(tmp_path)).prepare(lambda: pytest.fail("no"), "linux/arm64")


def test_lines_of_the_register_are_those_of_qemu():
    assert line_of("s390x", "/q") == (
        rb":aerogel-s390x:M::\x7f\x45\x4c\x46\x02\x02\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x16"
        rb":\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff:/q:POCF"
    )


def test_what_this_machine_runs_itself():
    assert runs_natively({"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine])
    assert not runs_natively("s390x")
