"""RUN: what a command sees, and what of its changes is in the layer."""

from __future__ import annotations

from cases import Case

__all__ = ["CASES"]


def _case(name: str, *lines: str, base: str = "differential", **more: object) -> Case:
    return Case(name, "\n".join([f"FROM {base}", *lines, ""]), **more)  # type: ignore[arg-type]  # the fields of Case


def _run(name: str, *commands: str) -> Case:
    """One RUN for each command."""
    return _case(f"run-{name}", *(f"RUN {command}" for command in commands))


CASES = [
    _run("create", "echo hi >/new; mkdir -p /a/b; echo x >/a/b/c"),
    _run("modify", "echo more >>/data/file"),
    _run("delete-file", "rm /data/file"),
    _run("delete-dir", "rm -r /data"),
    _run("delete-and-recreate-dir", "rm -r /data; mkdir /data; echo 1 >/data/new"),
    _run("recreate-dir-inside", "rm -r /data/sub; mkdir -m 701 /data/sub; echo x >/data/sub/one"),
    _run("delete-new", "echo 1 >/x; mkdir /y; echo 2 >/y/z", "rm -r /x /y"),
    _run("file-to-dir", "rm /data/file; mkdir /data/file; echo 1 >/data/file/x"),
    _run("dir-to-file", "rm -r /data/sub; echo 1 >/data/sub"),
    _run("dir-to-link", "rm -r /data/sub; ln -s ../real /data/sub"),
    _run("link-to-dir", "rm /todir; mkdir /todir; echo 1 >/todir/x"),
    _run("rename-file", "mv /data/file /data/renamed"),
    _run("rename-dir", "mv /data/sub /moved"),
    _run("rename-dir-same-parent", "mv /data/sub /data/other"),
    _run("rename-new-dir", "mkdir -p /n/a; echo 1 >/n/a/f; mv /n/a /n/b"),
    _run("swap", "mv /data/file /t; mv /data/sub/one /data/file; mv /t /data/sub/one"),
    _run("chmod-only", "chmod 600 /data/file; chmod 755 /data/sub"),
    _run("chown-only", "chown 5:6 /data/file; chown 7 /data/sub"),
    _run("chmod-of-link-target", "chmod 600 /tofile"),
    _run("chown-of-link", "chown -h 5:6 /tofile"),
    _run("touch-only", "touch /data/file"),
    _run("touch-dir-only", "touch /data/sub"),
    _run("write-same", "cat /data/file >/tmp/x; cat /tmp/x >/data/file; rm /tmp/x"),
    _run("nothing", "true"),
    _run("hardlink-new", "echo 1 >/x; ln /x /y; mkdir /z; ln /x /z/w"),
    _run("hardlink-to-lower", "ln /data/file /data/again"),
    _run("hardlink-break", "rm /data/sub/two"),
    _run("hardlink-write", "echo more >>/data/sub/two"),
    _run("hardlink-chmod", "chmod 600 /data/sub/hard"),
    _run("symlinks", "ln -s /nowhere /x; ln -s x /y; ln -sfn real/up /todir"),
    _run("setuid", "chmod 4755 /data/file; echo 1 >/s; chmod 2755 /s; mkdir -m 1777 /t; mkdir -m 2775 /g"),
    _run("setgid-dir-inherits", "mkdir /g; chown 0:50 /g; chmod 2775 /g; mkdir /g/sub; echo 1 >/g/f"),
    _run("fifo-and-nodes", "mkfifo -m 640 /p; mknod /n c 1 3; mknod -m 600 /b b 7 1"),
    _run("empty-dirs", "mkdir -p /a/b/c /d"),
    _run("names", "mkdir '/x y'; echo 1 >'/x y/ä'; echo 2 >\"/x y/q'\"; echo 3 >'/x y/*'"),
    _run("not-utf8", "printf 1 >\"/$(printf 'l\\344tin')\""),
    _run("whiteout-in-new-dir", "mkdir /x; echo 1 >/x/y", "rm /x/y; echo 2 >/x/z"),
    _run("delete-then-copy", "rm -r /data/sub"),
    _run("dev-proc-sys-tmp", "ls /proc/self >/dev/null; echo 1 >/dev/shm/x; echo 2 >/tmp/y"),
    _run("root-mode", "chmod 700 /; chmod 755 /"),
    _run(
        "long-names",
        "mkdir -p /$(printf '%0100d' 1)/$(printf '%0200d' 2); echo 1 >/$(printf '%0100d' 1)/$(printf '%0250d' 3)",
    ),
    _run(
        "sparse-and-big",
        "printf x | sed 's/x/yy/' >/x; for i in 1 2 3; do cat /bin/busybox /bin/busybox >/big; done; rm /big",
    ),
    _run("many-layers", *[f"echo {n} >/f{n}; rm -f /f{n - 2}" for n in range(6)]),
    _run("etc-changes", "echo x >>/etc/passwd; rm /etc/group"),
    _run("hosts-is-not-in-the-layer", "echo 1.2.3.4 me >>/etc/hosts || true"),
    _run("umask", "umask >/u; mkdir /d; echo 1 >/f"),
    _run("fails", "exit 3")._replace(fails=True),
    _case("run-missing-program", 'RUN ["/nothing"]', fails=True),
    _case("run-env", "ENV a=1 b='x y'", "ARG c=3", "RUN env | sed '/^HOSTNAME/d;/^SHLVL/d' >/env"),
    _case("run-env-order-wins", "ENV a=env", "ARG a=arg", "RUN echo $a >/a"),
    _case(
        "run-env-home",
        "RUN echo $HOME >/root-home",
        "USER app",
        "RUN echo $HOME >/tmp/app-home",
        "USER 4242",
        "RUN echo $HOME >/tmp/none",
    ),
    _case("run-env-home-set", "ENV HOME=/q", "RUN echo $HOME >/h"),
    _case("run-env-path-of-scratch-base", "ENV PATH=/bin:/x", "RUN echo $PATH >/p"),
    _case("run-args-in-history", "ARG b=2", "ARG a=1", "ENV a=x", "ARG c", "RUN echo $a$b >/f"),
    _case("run-arg-given", "ARG a=1", "RUN echo $a >/f", args=("--build-arg", "a=two words")),
    _case(
        "run-arg-proxy",
        "RUN echo $HTTP_PROXY$no_proxy >/f",
        args=("--build-arg", "HTTP_PROXY=http://p:1", "--build-arg", "no_proxy=x"),
    ),
    _case("run-arg-platform", "ARG TARGETARCH", "RUN echo $TARGETARCH $TARGETOS >/f"),
    _case("run-cwd", "WORKDIR /data/sub", "RUN pwd >/f; echo 1 >rel", "WORKDIR /todir", "RUN pwd >/g; echo 2 >rel"),
    _case("run-cwd-default", "RUN pwd >/f"),
    _case("run-user-name", "USER app", "WORKDIR /tmp", "RUN id >id; echo x >mine; mkdir d"),
    _case("run-user-number", "USER 1000", "RUN id >/tmp/id"),
    _case("run-user-number-unknown", "USER 777", "RUN id >/tmp/id"),
    _case("run-user-numbers", "USER 777:50", "RUN id >/tmp/id"),
    _case("run-user-group", "USER app:staff", "RUN id >/tmp/id"),
    _case("run-user-root-groups", "RUN id >/tmp/id"),
    _case("run-user-missing", "USER nobody", "RUN true", fails=True),
    _case("run-user-group-missing", "USER app:none", "RUN true", fails=True),
    _case(
        "run-user-from-new-passwd",
        "RUN echo me:x:55:66::/h:/bin/sh >>/etc/passwd; echo g:x:67:me >>/etc/group",
        "USER me",
        "RUN id >/tmp/id; echo $HOME >/tmp/h",
    ),
    _case("run-exec", 'RUN ["/bin/sh", "-c", "echo $0 $1 >/f", "zero", "$HOME"]'),
    _case("run-exec-by-path", 'RUN ["touch", "/f"]'),
    _case("run-exec-relative", "WORKDIR /bin", 'RUN ["./touch", "/f"]'),
    _case("run-fall-back", "RUN ['echo', 'x'] || echo fell >/f"),
    _case(
        "run-shell",
        'SHELL ["/bin/sh", "-ec"]',
        "RUN echo a >/f",
        'SHELL ["/bin/busybox", "sh", "-c"]',
        "RUN echo b >>/f",
    ),
    _case("run-continuation", "RUN echo a \\", "  b >/f \\", "  # comment", "", "  && echo c >>/f"),
    _case("run-quotes", "RUN echo \"a  'b'\" '$HOME' \\$HOME \"\\\\\" >/f"),
    _case("run-variables-are-the-shells", "ENV a=1", "RUN a=2; echo $a ${a#2} ${b:-3} >/f"),
    _case("run-stdin-is-empty", "RUN cat >/f"),
    _case("run-after-copy", "COPY x /d/", "RUN cat /d/x >/y; rm /d/x", context={"x": "x\n"}),
    _case(
        "run-copy-run",
        "RUN mkdir -m 750 /d; echo 1 >/d/a",
        "COPY x /d/",
        "RUN rm /d/a; echo 2 >>/d/x",
        context={"x": "x\n"},
    ),
    _case("run-stubs-are-gone", "COPY --from=differential /bin /bin", "RUN echo 1 >/f", base="scratch"),
    _case("run-in-child-stage", "RUN echo 1 >/f", "ENV a=1"),
    Case(
        "run-stage-chain",
        "FROM differential AS a\nRUN echo 1 >/f\nUSER app\nWORKDIR /tmp\nFROM a\nRUN id >g; cat /f >h\n",
    ),
    Case(
        "run-stage-copy",
        "FROM differential AS a\nRUN mkdir /o; echo 1 >/o/f; ln /o/f /o/g; chown 5:6 /o/f; ln -s f /o/l\nFROM scratch\nCOPY --from=a /o /o\n",
    ),
]
