"""Each attack is shown to fail on every rung that this user can take; the host stays as it was.

`attacks` holds the tables. On the rung `chroot` the container around aerogel is the boundary for root, so attacks there
are made as an ordinary user of the step, which must not gain root's rights over what is outside.
"""

from __future__ import annotations

import errno
import fcntl
import os
import pty
import stat
import subprocess
from pathlib import Path

import pytest
from attacks import CALLS, ON_PROOT, SCRIPTS
from boxes import gone, processes_with
from forged import chain, program

from aerogel.errors import AerogelError
from aerogel.sandbox.plain import descendants
from aerogel.sandbox.spec import Limit, Mount, Rootfs, Sandbox

pytestmark = [
    pytest.mark.host("busybox"),
    pytest.mark.skipif(os.uname().machine != "x86_64", reason="the forged programs are of x86_64"),
]
APP = "1000:1001"
PIECE = (0x400000).to_bytes(8, "little") + (8).to_bytes(8, "little")
RUNGS = ("root", "ident", "subid", "single", "chroot", "proot")


def user_for(field, modes=()):
    return APP if field.rung == "chroot" or {"app", "suid"} & set(modes) else ""


def image(field, name):
    """One more layer on top, to be filled."""
    folder = field.folder / f"image-{name}"
    folder.mkdir()
    folder.chmod(0o755)
    return folder


def on(field, *layers):
    return Rootfs(lowers=(field.layer, *map(str, layers)))


@pytest.fixture(scope="session")
def answers(field):
    """What every forged call came to: all in one run, a file each."""
    folder = image(field, "calls")
    (folder / "attack").mkdir()
    names = dict(enumerate(CALLS))
    for number, name in names.items():
        path = folder / "attack" / str(number)
        path.write_bytes(CALLS[name][0])
        path.chmod(0o755)
    script = f"for n in $(seq 0 {len(names) - 1}); do /attack/$n; echo $n $?; done".replace("$(seq", "$(busybox seq")
    ended, said = field.run("sh", "-c", script, root=on(field, folder), user=user_for(field), timeout_s=60)
    assert ended is not None, said
    found = dict(line.split() for line in said.strip().split("\n") if line[:1].isdigit())
    return {name: int(found[str(number)]) for number, name in names.items()}


@pytest.mark.parametrize("name", CALLS)
def test_call(field, answers, name):
    right = CALLS[name][1] + (ON_PROOT.get(name, ()) if field.rung == "proot" else ())
    assert answers[name] in right, os.strerror(answers[name])


@pytest.mark.parametrize("name", SCRIPTS)
def test_script(field, name):
    script, modes = SCRIPTS[name]
    rungs = [mode for mode in modes if mode in RUNGS]
    if rungs and field.rung not in rungs:
        # without namespaces there is no such thing to attack; on `single` users are told, not made; on `proot` both
        assert field.rung in ("proot", "single" if "chroot" in rungs else "chroot")
        return
    fields = {"user": user_for(field, modes), "network": "none" if "netless" in modes else "host"}
    if "suid" in modes:
        folder = image(field, "suid")
        (folder / "setuid").mkdir()
        (folder / "setuid/busybox").write_bytes(Path(field.layer, "bin/busybox").read_bytes())
        (folder / "setuid/busybox").chmod(0o4755)
        fields |= {"root": on(field, folder), "no_new_privileges": True}
    field.attack(script, **fields)


def test_the_interpreter_as_the_command(field):
    """The command is the helper's own program, with a loader of the image: it must not reach the host's file by it."""
    folder = image(field, "exe")
    mode = os.stat(os.path.realpath(os.sys.executable)).st_mode & 0o7777
    for place in ("lib64/ld-linux-x86-64.so.2", "lib/ld-linux-x86-64.so.2"):
        (folder / place).parent.mkdir()
        (folder / place).write_bytes(program(90, b"/proc/self/exe", mode))  # chmod: seen by the time of the change
        (folder / place).chmod(0o755)
    (folder / "script").write_text("#!/proc/self/exe\n")
    (folder / "script").chmod(0o755)
    (folder / "link").symlink_to("/proc/self/exe")
    for command in ("/proc/self/exe", "/link", "/script"):
        field.run(command, root=on(field, folder), user=user_for(field))
        assert field.changes() == []


def outcome(codes, act):
    """What came of an attack that may be refused with one of these errors."""
    try:
        return act()
    except AerogelError as error:
        if error.code not in codes:
            raise
        return None, ""


PASSWD = {
    "negative": "app:x:-1:-1::/:\n",
    "huge": f"app:x:{2**64}:{2**64}::/:\n",
    "of 2**32": f"app:x:{2**32}:0::/:\n",
    "no number": "app:x:zero:0::/:\n",
    "short": "app\napp:\n::::\n",
    "long": "app:x:" + "1" * 100_000 + ":0::/:\n",
    "not text": "app:\udcff\udcfe:1000:1000::/:\n",
}


@pytest.mark.parametrize("name", PASSWD)
def test_hostile_accounts(field, name):
    folder = image(field, f"passwd {name}")
    (folder / "etc").mkdir()
    (folder / "etc/passwd").write_bytes(PASSWD[name].encode("utf-8", "surrogateescape"))
    refused = ("sandbox.no-user", "sandbox.unmapped-user")
    ended, said = outcome(refused, lambda: field.run("id", "-u", root=on(field, folder), user="app"))
    assert ended is None or ended.code != 0 or said.strip() == "1000", (ended, said)


@pytest.mark.parametrize("kind", ["link", "pipe", "folder", "link to proc"])
def test_accounts_that_are_no_file(field, kind):
    folder = image(field, f"no file {kind}")
    (folder / "etc").mkdir()
    place = folder / "etc/passwd"
    if kind == "link":
        (field.canary / "passwd").exists()
        place.symlink_to(f"{field.canary}/secret")
    elif kind == "pipe":
        os.mkfifo(place)
    elif kind == "folder":
        place.mkdir()
    else:
        place.symlink_to("/proc/1/root/etc/passwd")
    with pytest.raises(AerogelError) as caught:
        field.run("id", root=on(field, folder), user="app")
    assert caught.value.code == "sandbox.no-user"


@pytest.mark.parametrize("name", ["proc", "sys", "dev", "etc", "tmp"])
def test_links_in_the_place_of_mounts(field, name):
    """The kernel's file systems are refused there, other mounts stay inside; a copied root has a place of its own."""
    folder = image(field, f"linked {name}")
    (folder / name).symlink_to("../../../../../../.." + str(field.canary))
    mounts = (Mount(kind="file", target="/tmp/lent", data=b"lent"),)
    refused = ("sandbox.hostile-root", "sandbox.mount-target")
    outcome(refused, lambda: field.run("true", root=on(field, folder), mounts=mounts, user=user_for(field)))
    assert field.changes() == []


TARGETS = ("/out/made", "/proc/1/root/made", "/proc/self/cwd/made", "/dev/../made", "/out", "/loop/x", "/bin/busybox/x")


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("kind", ["file", "tmpfs"])
def test_hostile_targets(field, target, kind):
    folder = image(field, f"target {target.replace('/', '-')} {kind}")
    (folder / "out").symlink_to(field.canary)
    (folder / "loop").symlink_to("loop")
    mount = Mount(kind=kind, target=target, data=b"lent" if kind == "file" else b"")
    refused = ("sandbox.mount-target", "sandbox.mount", "sandbox.hostile-root", "sandbox.setup")
    outcome(refused, lambda: field.run("true", root=on(field, folder), mounts=(mount,), user=user_for(field)))
    assert field.changes() == []


@pytest.mark.parametrize("path", ["/out/new/folder", "/proc/1/root/new", "relative/x", "/dev/new"])
def test_hostile_folders(field, path):
    folder = image(field, f"folder {path.replace('/', '-')}")
    (folder / "out").symlink_to(field.canary)
    field.run("true", root=on(field, folder), cwd=path, create_cwd=True, user=user_for(field))
    assert field.changes() == []


@pytest.mark.parametrize("place", ["usr/lib/python3.11", "usr/lib/python3", "lib", "."])
def test_modules_of_the_image(field, place):
    """Nothing is imported from the image, in whatever folder and however a start fails."""
    folder = image(field, f"modules {place.replace('/', '-')}")
    (folder / place).mkdir(parents=True, exist_ok=True)
    code = f"open({str(field.canary / 'pwned')!r}, 'w').close()\nopen('/tmp/pwned', 'w').close()\n"
    for name in ("traceback", "sitecustomize", "encodings", "json", "signal", "idna", "linecache", "usercustomize"):
        (folder / place / f"{name}.py").write_text(code)
    root = on(field, folder)
    field.attack(
        "empty ls /tmp/pwned",
        root=root,
        cwd=f"/{place}",
        user=user_for(field),
        env=(("PYTHONPATH", f"/{place}"), ("PATH", "/bin")),
    )
    assert field.run("nosuch", root=root)[0].code == 127
    with pytest.raises(AerogelError):
        field.run("true", root=root, user="nobody-at-all")
    assert field.changes() == []


def test_a_fork_bomb(field):
    """It hits the limit of processes, and nothing of it is left. At most 512 where the limit does not count."""
    bomb = "b() { [ $1 -gt 8 ] && exec sleep 31.7; b $(($1+1)) & b $(($1+1)) & wait; }; b 0 & sleep 0.3; echo over"
    ended, _ = field.run("sh", "-c", bomb, user=APP, limits=(Limit("nproc", 60, 60),))
    assert ended is not None
    assert gone("sleep 31.7")


def test_stragglers(field):
    mark = f"3{os.getpid()}.{RUNGS.index(field.rung)}"
    script = f"for i in $(busybox seq 50); do (trap '' TERM INT HUP; setsid nohup sleep {mark} >/dev/null 2>&1 &); done"
    field.run("sh", "-c", script, user=user_for(field))
    assert gone(f"sleep {mark}")


def test_a_command_that_closes_its_output_and_hangs(field):
    mark = f"4{os.getpid()}.{RUNGS.index(field.rung)}"
    ended, said = field.run("sh", "-c", f"exec >&- 2>&- <&-; exec sleep {mark}", user=user_for(field), timeout_s=0.5)
    assert (ended, said) == (None, "")
    assert gone(f"sleep {mark}")


def _name_of(leader):
    """The name of a terminal by its other end."""
    number = bytearray(4)
    fcntl.ioctl(leader, 0x80045430, number)  # TIOCGPTN
    return f"/dev/pts/{int.from_bytes(number, 'little')}"


HELD = (errno.EPERM, errno.ESRCH, errno.ENOSYS, errno.EACCES, errno.EBADF)


def test_the_helper_itself(field):
    """By the numbers that they have on the host, no process of aerogel's can be traced, read, written, robbed or ended."""
    if field.rung == "proot":
        return  # told in docs/concepts/isolation.md: a step is the user who runs aerogel
    folder = image(field, "helper")
    (folder / "attack").mkdir()
    calls = {}
    for number in (os.getpid(), *descendants(os.getpid())[:4]):
        calls |= {
            f"{number}-attach": program(101, 16, number, 0, 0),
            f"{number}-seize": program(101, 0x4206, number, 0, 0),
            f"{number}-read": program(310, number, PIECE, 1, PIECE, 1, 0),
            f"{number}-write": program(311, number, PIECE, 1, PIECE, 1, 0),
            f"{number}-rob": chain([(434, number, 0), (438, -1000, 0, 0)]),
            f"{number}-limit": program(302, number, 7, (64).to_bytes(8, "little") * 2, 0),
            f"{number}-kill": program(62, number, 9),
        }
    for name, call in calls.items():
        (folder / "attack" / name).write_bytes(call)
        (folder / "attack" / name).chmod(0o755)
    # in a namespace of its own a step's processes have small numbers: what it finds there is its own
    script = (
        "cd /attack; for c in *; do [ -d /proc/${c%-*} ] && [ $$ != 1 ] && continue; ./$c; echo $c $?; done; echo held"
    )
    if field.rung == "chroot":
        script = "cd /attack; for c in *; do ./$c; echo $c $?; done; echo held"
    said = field.attack(script, root=on(field, folder), user=user_for(field))
    answers = dict(line.split() for line in said.split("\n") if "-" in line)
    assert answers
    for name, code in answers.items():
        assert int(code) in HELD, (name, os.strerror(int(code)))
    assert field.run("true")[0].code == 0


def test_the_callers_terminal(field):
    """With the terminal of the host as its output, a command cannot type into it or take it."""
    folder = image(field, "terminal")
    for name, call in (("type", program(16, 1, 0x5412, b"x")), ("steal", program(16, 1, 0x540E, 1))):
        (folder / name).write_bytes(call)
        (folder / name).chmod(0o755)
    owner, leader = pty.fork()
    if owner == 0:  # somebody's shell
        os.execv("/bin/sleep", ["sleep", "60"])
    follower = os.open(_name_of(leader), os.O_RDWR | os.O_NOCTTY)
    for name in ("type", "steal"):
        sandbox = Sandbox(argv=(f"/{name}",), root=on(field, folder), user=user_for(field))
        with field.helper.run(sandbox, stdin=follower, stdout=follower, stderr=follower) as process:
            assert process.wait(60).code in (1, 5), name  # EPERM, EIO
    os.set_blocking(follower, False)
    with pytest.raises(BlockingIOError):
        os.read(follower, 1)
    os.kill(owner, 9)
    os.waitpid(owner, 0)
    os.close(leader)
    os.close(follower)


def test_beside_a_hostile_command(field):
    """A command that joins is no more open to the first one than process 1 is."""
    watch = (
        'echo up; while :; do for p in /proc/[0-9]*; do n=${p#/proc/}; [ $n -gt 2 ] && [ "$(readlink $p/exe)" ] || continue; '
        "grep -q -e helper.py -e aerogel-exec $p/cmdline 2>/dev/null && head -c 1 $p/environ && echo ESCAPED; done 2>/dev/null; done"
    )
    if field.rung in ("chroot", "single", "proot"):
        return  # there is no namespace to join; a recorded command is open, with no more rights than the first, till exec
    read, write = os.pipe()
    with field.helper.run(
        Sandbox(argv=("sh", "-c", watch), root=on(field), joinable=True), stdout=write, stderr=write
    ) as process:
        os.close(write)
        assert os.read(read, 100) == b"up\n"
        for _ in range(10):
            with field.helper.join(
                process, Sandbox(argv=("sleep", "0.02"), root=Rootfs()), stdout=1, stderr=2
            ) as other:
                assert other.wait(60).code == 0
        process.kill()
    with open(read, "rb") as output:
        assert b"ESCAPED" not in output.read()


def test_the_devices_of_the_host(field):
    """What a step does to its devices, by name or by descriptor, is not done to the host's."""
    folder = image(field, "devices")
    (folder / "fchmod").write_bytes(program(91, 0, 0))
    (folder / "fchown").write_bytes(program(93, 0, 5, 6))
    for name in ("fchmod", "fchown"):
        (folder / name).chmod(0o755)
    said = field.attack(
        "for d in null zero full; do /fchmod </dev/$d; /fchown </dev/$d; chmod 600 /proc/self/fd/3 3</dev/$d; done; echo held",
        root=on(field, folder),
    )
    assert said.endswith("held\n")
    assert field.changes() == []
    about = os.stat("/dev/null")
    assert (stat.S_IFMT(about.st_mode), about.st_rdev) == (stat.S_IFCHR, os.makedev(1, 3))


def test_the_state_is_for_its_owner_alone(field):
    """Set-user-id programs and devices that a step made lie where no other user of the host can enter."""
    state = field.folder / "state"
    assert state.stat().st_mode & 0o077 == 0


def test_nothing_is_left(field):
    assert field.changes() == []
    assert [line for line in processes_with("sleep 31.7") if "pytest" not in line] == []
    done = subprocess.run(["ls", str(field.canary)], capture_output=True, text=True)
    assert done.stdout == "secret\n"
