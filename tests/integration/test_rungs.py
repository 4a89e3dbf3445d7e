"""The same Dockerfile gives the same image on every rung of the ladder.

Root takes `root` by itself; `ident` and `single` are forced; `chroot` is what is left with the capabilities and the
refused system calls of a default container of Docker; an ordinary account takes `subid`, and `single` and `proot` when
forced. Debian packages: busybox-static, uidmap, util-linux, passwd, proot.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from process import Aerogel

pytestmark = [
    pytest.mark.host("busybox", "setpriv", "newuidmap", "proot"),
    pytest.mark.skipif(os.getuid() != 0, reason="the accounts are made, and rights taken away, by root"),
]

HEAD = """FROM scratch AS base
COPY busybox /bin/busybox
SHELL ["/bin/busybox", "sh", "-ec"]
ENV PATH=/bin
RUN /bin/busybox --install -s /bin && mkdir -p /etc /tmp /home/app && chmod 1777 /tmp && echo 'root:x:0:0:root:/:/bin/sh' >/etc/passwd && \\
    echo 'app:x:1000:1001::/home/app:/bin/sh' >>/etc/passwd && printf 'root:x:0:\\nmail:x:8:app\\napp:x:1001:\\n' >/etc/group \\
    && chown app:app /home/app
"""
FILES = {
    "modes": """
RUN echo a >/a; chmod 4755 /a; mkdir -p /d/e/f; chmod 1777 /d/e; ln /a /d/a; ln -s ../a /d/l; mkfifo /d/p; umask 077; >/u
RUN rm /a; chmod 700 /d/e/f; chmod 644 /d/a; mv /d/e /e; rm -r /d; mkdir /d; echo new >/d/n; touch -d @1000 /d/old
RUN ln /d/n /d/m; cp -p /d/old /d/copy; echo more >>/d/n; rm -r /e/f; echo f >/e/f; chmod 1777 /e; exec 3<>/d/copy
RUN mkdir -p /x/y/z; touch /x/y/z/1; mv /x/y /w; rmdir /x; ln -s w /x; true >/d/old; echo 12345 >/12345
""",
    "owners": """
RUN mkdir -p /srv/in && chown -R app:mail /srv && chmod 2775 /srv/in && touch /srv/in/f && mkdir /srv/in/d && \\
    ln -s f /srv/in/l && chown -h 7:8 /srv/in/l && mkfifo /srv/in/p && chown 9:10 /srv/in/p && cp -a /srv /copy
RUN chown 60000:50000 /srv/in/f; chown -R 0:0 /copy; chmod 4755 /srv/in/f; chown app /srv/in/f; stat -c '%n %u:%g %a' /srv/* /srv/in/* >/seen
RUN cd /srv && tar cf /t.tar in && mkdir /untar && tar xf /t.tar -C /untar && rm /t.tar; find /srv -user app >/found
""",
    "users": """
USER app
RUN cd; id >id; mkdir d; echo x >d/f; ln -s f d/l; ln d/f d/h; mkfifo p; >/tmp/t; umask 002; >g; stat -c '%u:%g %a' . * >seen
RUN echo no >/etc/passwd || echo refused >~/refused; rm /bin/sh || echo kept >>~/refused; >/root-file || echo none >>~/refused
USER 1234:77
RUN id -u >/tmp/u; id -g >>/tmp/u; id -G >>/tmp/u; mkdir /tmp/d; rm /tmp/t || echo sticky >/tmp/sticky
USER root
RUN su app -c 'id -u; id -g; >/tmp/by-app; chown 0:0 /tmp/by-app || echo refused' >/tmp/said
""",
    "mounts": """
FROM base
RUN --mount=type=cache,target=/var/cache/x,uid=5,gid=6 echo z >/var/cache/x/z; stat -c '%u %g' /var/cache/x >/owner; wc -l /var/cache/x/z >>/owner
RUN --mount=type=bind,target=/ctx --mount=type=tmpfs,target=/t cp -a /ctx/f /f; echo x >/t/x; ls /t >/ls
RUN --mount=type=bind,from=base,target=/image --mount=type=bind,target=/rw,rw ls /image/bin | wc -l >/count; echo y >/rw/y; cat /rw/y /rw/f >>/count
RUN --mount=type=secret,id=s,uid=9,gid=8,mode=0440 stat -c '%u %g %a' /run/secrets/s >/secret; cat /run/secrets/s | wc -c >>/secret
RUN --mount=type=cache,target=/var/cache/x,uid=5,gid=6 cat /var/cache/x/z >/again
""",
    "secrets": """
RUN --mount=type=secret,id=s cd /run/secrets; wc -c s ./s ../secrets/s >/2; stat -c '%s %a %F %h' s >>/2; ls >>/2; find . -type f >>/2; \\
    test -r s; test -s s; cp s /dev/shm/s; cmp s /dev/shm/s; ln -s /run/secrets/s /tmp/l; wc -c /tmp/l >>/2; wc -c </tmp/l >>/2; rm /tmp/l; \\
    (echo x >s || echo refused) >>/2; (mkdir s || echo there) >>/2; dd if=s bs=1 skip=8 count=3 >>/2; head -c 3 s >>/2; cat s/ || echo file >>/2
RUN --mount=type=secret,id=s,target=/key --mount=type=secret,id=s,target=/a/b/key cat /key /a/b/key | wc -c >/3; cmp /key /a/b/key; ls -a / >>/3
USER app
RUN --mount=type=secret,id=s,uid=1000,target=/home/app/t/key cd; stat -c '%u %g %a %s' t/key >/tmp/5; head -c 7 t/key >>/tmp/5
RUN --mount=type=secret,id=s,mode=0444 test -r /run/secrets/s; cat /run/secrets/s | wc -c >/tmp/6
RUN --mount=type=secret,id=s,uid=2,gid=8,mode=0040 test -r /run/secrets/s; cat /run/secrets/s | wc -c >/tmp/7; id -G >>/tmp/7
""",
    "stages": """
RUN mkdir /out && echo x >/out/x && chown 12:34 /out /out/x && chmod 6755 /out/x && ln /out/x /out/y && ln -s x /out/l && chown -h 5:6 /out/l
FROM base AS other
COPY --from=0 /out /out
COPY --from=base --chown=app:mail /bin/busybox /opt/tool
RUN stat -c '%n %u:%g %a %h' /out/* /opt/tool >/seen; rm -r /out; ls -l /opt | wc -l >/n
FROM base
COPY --from=other /seen /n /
WORKDIR /made/by/workdir
RUN pwd >here; stat -c '%u:%g %a' /made /made/by >>here
""",
    "environment": """
ARG WHO=world
ENV GREETING="hello $WHO" HOME=/home/app
WORKDIR /work
RUN echo "$GREETING $HOME $PWD $0" >env; umask >>env; ulimit -c >>env
RUN --network=none ip addr add 10.0.0.1/8 dev lo 2>/dev/null || echo no >net
RUN <<EOF
set -e
readlink /proc/self/exe >exe
ls -d /proc/self/fd/0 /dev/fd/1 /dev/null /dev/shm >names
echo text | cat /dev/stdin >stdin
test -c /dev/null; echo gone >/dev/null; sh -c 'echo $$ >/dev/null'
EOF
RUN (sleep 100 >/dev/null 2>&1 &) ; (setsid nohup sleep 100 >/dev/null 2>&1 &); echo left >left
""",
    "hosts": """
RUN cat /etc/hosts /etc/resolv.conf /etc/hostname >/dev/null; ls /etc >/etc-names; ls / >/names; ls /dev/null /proc/version /sys -d >/kernel
RUN x=$(find / -xdev \\( -path /proc -o -path /sys -o -path /dev \\) -prune -o -exec stat -c '%n %F %a %u:%g' {} +); echo "$x" | sort >/all
RUN chmod 755 /etc; touch /etc/new; mkdir -p /run/x; echo r >/run/x/r; mkdir /proc2; rm -f /etc/none
RUN true
""",
}
APT = """FROM debian
RUN apt-get update && apt-get install -y --no-install-recommends sudo iputils-ping openssh-client libcap2-bin && \\
    apt-get clean && rm -rf /var/lib/apt/lists/* /var/log/* && \\
    useradd -m -G sudo ci && install -o ci -g mail -m 2750 -d /srv/data && cp -a /srv/data /srv/copy && \\
    touch /usr/local/share/x && setcap cap_net_raw+ep /usr/bin/env && getcap /usr/bin/ping /usr/bin/env >/caps && \\
    stat -c '%n %U:%G %a' /usr/bin/ssh-agent /usr/bin/sudo /usr/bin/passwd /usr/bin/chage /srv/copy >/modes
USER ci
RUN id; umask; mkdir ~/d; echo hi >~/d/f; ln -s f ~/d/l; tar c -C ~ d | (mkdir ~/e; tar x -C ~/e); cat /proc/self/comm >~/comm
"""

PROGRAMS = """FROM debian
COPY threads /usr/local/bin/
COPY init drop /
RUN <<EOF
set -e
useradd -m -u 1500 -G mail ci; chage -M 90 ci; passwd -l ci >/passwd
su ci -c 'id; touch ~/f; umask' >/su
su -l ci -s /bin/bash -c 'echo $HOME $USER; cd; ln -s f l; mkdir -m 2700 d; stat -c "%n %U:%G %a" . f d' >>/su
setpriv --reuid=1500 --regid=8 --clear-groups id >/setpriv
setpriv --reuid=ci --regid=ci --init-groups id >>/setpriv
setpriv --reuid=1500 --regid=1500 --clear-groups --no-new-privs sh -c 'id -u; touch /root/x' >>/setpriv 2>&1 || echo none >>/setpriv
setpriv --reuid=1500 --keep-groups sh -c 'id -G; chown 0 /su' >>/setpriv 2>&1 || echo refused >>/setpriv
install -d -o ci -g ci -m 700 /data; cd /data
su ci -c 'perl /init' >/init-said; perl -e 'do "/init"; print $@' >>/init-said
ls /proc/self/fd | wc -l >/shown
exec 5</etc/hostname; cat /proc/self/fd/5 /dev/fd/5 | wc -l >>/shown
bash -c 'cat <(echo one) <(echo two); echo three | tee >(cat >/tee) >/dev/null; until [ -s /tee ]; do sleep 0.05; done; readlink /proc/self/exe /proc/$$/exe' >>/shown
head -c 5 /proc/self/status >>/shown; readlink -f /proc/self/cwd >>/shown
grep -q /usr/bin/grep /proc/self/maps; grep -q . /proc/self/cgroup; test -r /proc/self/mounts; test -d /proc/$$/task/$$
cd /; perl /drop >>/shown; threads >>/shown
cd /; echo closed >/dac; chown ci /dac; chmod 0 /dac; cat /dac >/rights
setpriv --reuid=1500 --regid=1500 --clear-groups sleep 100 & sleep 0.3; kill $!; wait $! || echo $? >>/rights
echo shared >/dev/shm/f; cat /dev/shm/f >>/rights
cat /su /setpriv /init-said /shown /rights
EOF
"""
INIT = """$> != 0 or die "not as root\n"; (stat ".")[4] == $> or die "owner\n"; umask 077; mkdir "base" or die;
sysopen F, "pid", 0301, 0600 or die; print F "1\n"; close F; symlink "base", "tablespace" or die; chmod 0700, "base" or die;
rename "pid", "VERSION" or die; fork() or do { setpgrp; exit 0 }; wait; $? == 0 or die; print join(" ", $<, $>, $(, (stat "VERSION")[4, 5]), "\n";
chown 0, 0, "VERSION" and die "given away\n";
"""
"""What initdb does."""
DROP = """$) = "1500 1500"; $( = 1500; $< = $> = 1500; open F, "</etc/passwd" or die "passwd: $!"; open G, ">/dev/null" or die "null: $!";
open H, "</proc/self/status"; -e "/proc/self/exe"; open I, ">/home/ci/dropped" or die; open J, ">/root/x" and die; exec "cat", "/proc/self/comm";
"""
"""Gives up root; until it starts another program nobody but root can look into it, and it gets an answer nevertheless."""
THREADS = r"""#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
static int failures;
static void *look(void *nothing) {
    char text[4096];
    struct stat about;
    for (int round = 0; round < 20; round++) {
        int fd = open("/proc/self/status", O_RDONLY);
        ssize_t size = fd < 0 ? 0 : read(fd, text, sizeof text - 1);
        text[size < 0 ? 0 : size] = 0;
        if (!strstr(text, "Name:\tthreads") || stat("/proc/self/task", &about) || readlink("/proc/self/exe", text, 99) < 1)
            __atomic_add_fetch(&failures, 1, __ATOMIC_SEQ_CST);
        close(fd);
    }
    return nothing;
}
int main(void) {
    pthread_t all[64];
    for (int i = 0; i < 64; i++) if (pthread_create(&all[i], 0, look, 0)) return 2;
    for (int i = 0; i < 64; i++) pthread_join(all[i], 0);
    printf("64 threads, %d failures\n", failures);
    return failures != 0;
}
"""
SAID = """uid=1500(ci) gid=1500(ci) groups=1500(ci),8(mail)
0002
/home/ci ci
. ci:ci 700
f ci:ci 664
d ci:ci 2700
uid=1500(ci) gid=8(mail) groups=8(mail)
uid=1500(ci) gid=1500(ci) groups=1500(ci),8(mail)
1500
touch: cannot touch '/root/x': Permission denied
none
0
chown: changing ownership of '/su': Operation not permitted
refused
1500 1500 1500 8 1500 1500 1500
not as root
4
2
one
two
/usr/bin/readlink
/usr/bin/readlink
Name:/data
cat
64 threads, 0 failures
closed
143
shared
"""


class Denied(Aerogel):
    """As root of a default container of Docker."""

    def argv(self, *words: str) -> list[str]:
        return [sys.executable, str(Path(__file__).parents[1] / "support" / "denied.py"), *super().argv(*words)]


def images(
    aerogel: Aerogel, ordinary: Aerogel, context: Path, *words: str, every: bool, said: dict[str, str] | None = None
) -> dict[str, str]:
    """Builds on each rung, or on each kind of them, and gives the digests; `said` gets what was shown."""
    found = {}
    rungs = [
        ("root", aerogel, "root"),
        ("container", Denied(aerogel.state), "auto"),
        ("user", ordinary, "subid"),
        ("user, single", ordinary, "single"),
        ("user, proot", ordinary, "proot"),
    ]
    if every:
        rungs += [("root, ident", aerogel, "ident"), ("root, single", aerogel, "single")]
    for name, program, rung in rungs:
        env = {"AEROGEL_ISOLATION": rung}
        done = program("build", "--no-cache", "--progress=plain", *words, str(context), env=env, check=False)
        assert done.returncode == 0, (name, done.stderr[-3000:].split("\n"))
        found[name] = done.stdout.strip()
        if said is not None:
            said[name] = done.stderr
    return found


@pytest.fixture
def context(ordinary: Aerogel) -> Path:
    """A folder that every account may read."""
    folder = Path(ordinary.env["HOME"]) / "context"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    shutil.copy(shutil.which("busybox") or "", folder / "busybox")
    (folder / "f").write_text("from the context\n")
    (folder / "s").write_text("correct horse battery\n")
    subprocess.run(["chmod", "-R", "a+rX", str(folder)], check=True)
    return folder


@pytest.mark.parametrize("name", FILES)
def test_the_same_image_on_every_rung(aerogel: Aerogel, ordinary: Aerogel, context: Path, name: str) -> None:
    (context / "Dockerfile").write_text(HEAD + FILES[name])
    found = images(aerogel, ordinary, context, "--secret", f"id=s,src={context / 's'}", every=name == "owners")
    assert len(set(found.values())) == 1, found


@pytest.mark.network
@pytest.mark.slow
def test_packages_with_users_capabilities_and_set_id_bits(aerogel: Aerogel, ordinary: Aerogel, context: Path) -> None:
    (context / "Dockerfile").write_text(APT)
    found = images(aerogel, ordinary, context, every=False)
    assert len(set(found.values())) == 1, found


@pytest.mark.network
@pytest.mark.host("gcc")
def test_programs_that_ask_who_they_are(aerogel: Aerogel, ordinary: Aerogel, context: Path) -> None:
    """Accounts and changes of user; /proc, pipes by name and 64 threads that look at the same time."""
    (context / "threads.c").write_text(THREADS)
    gcc = ["gcc", "-O1", "-static", "-pthread", "-o", str(context / "threads"), str(context / "threads.c")]
    subprocess.run(gcc, check=True)
    for name, text in (("init", INIT), ("drop", DROP)):
        (context / name).write_text(text)
    (context / "Dockerfile").write_text(PROGRAMS)
    subprocess.run(["chmod", "-R", "a+rX", str(context)], check=True)
    said = {}
    found = images(aerogel, ordinary, context, every=False, said=said)
    for name, text in said.items():
        lines = re.findall(r"(?m)^#\d+ (?!RUN |COPY |DONE |FROM )(.*)$", text)
        assert "\n".join(lines[-SAID.count("\n") :]) + "\n" == SAID, name
    assert len(set(found.values())) == 1, found


@pytest.mark.parametrize("rung", ["subid", "single", "proot"])
def test_a_step_of_a_user_that_takes_too_long(ordinary: Aerogel, context: Path, rung: str) -> None:
    """It is asked to end, and then ended with all that it started; the next build goes on as if nothing had been."""
    mark = f"5{os.getpid()}.{len(rung)}"
    text = f"RUN trap 'echo asked' TERM; setsid nohup sleep {mark} & sleep {mark} & wait; sleep {mark}\n"
    (context / "Dockerfile").write_text(HEAD + text)
    env = {"AEROGEL_ISOLATION": rung}
    done = ordinary("build", "--progress=plain", "--timeout=1s", str(context), env=env, check=False)
    assert (done.returncode, "error: RUN took longer than the 1 s" in done.stderr) == (1, True), done.stderr
    assert "asked\n" in done.stderr
    running = [path for path in Path("/proc").glob("[0-9]*/cmdline") if f"sleep\0{mark}" in read(path)]
    assert running == []
    (context / "Dockerfile").write_text(HEAD + "RUN true\n")
    ordinary("build", "--progress=plain", "--timeout=60s", str(context), env=env)


def read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def test_the_container_takes_chroot(aerogel: Aerogel) -> None:
    done = Denied(aerogel.state)("doctor", "--offline", check=False)
    assert "isolation chroot" in done.stdout
    assert done.returncode == 0, done.stdout


class Unable(Aerogel):
    """As root of a container that has no capabilities."""

    def argv(self, *words: str) -> list[str]:
        return ["setpriv", "--bounding-set=-all", "--inh-caps=-all", *super().argv(*words)]


def test_files_in_shared_memory_are_no_devices(context: Path, tmp_path: Path) -> None:
    """On `proot` a step's calls name files as the host does: with such a store below /dev, where devices are."""
    (context / "Dockerfile").write_text(HEAD + FILES["users"])
    found = []
    with tempfile.TemporaryDirectory(dir="/dev/shm", ignore_cleanup_errors=True) as memory:
        for place in (Path(memory), tmp_path):
            program = Unable(place / "state")
            program.env["AEROGEL_ISOLATION"] = "proot"
            found.append(program("build", "--progress=plain", str(context)).stdout)
    assert found[0] == found[1]
