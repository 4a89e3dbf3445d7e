"""Jobs that the tests call in the helper."""

import os
import signal

from aerogel.errors import AerogelError

__all__ = ["die", "echo", "fail", "full", "own", "stumble", "who"]


def echo(args, fds):
    for fd in fds:
        os.write(fd, args["text"].encode())
    return {"text": args["text"], "fds": len(fds)}


def who(args, fds):
    return {"uid": os.getuid(), "gid": os.getgid(), "groups": os.getgroups()}


def own(args, fds):
    with open(args["path"], "x") as file:
        file.write("x")
    os.chown(args["path"], 33, 33)
    os.chmod(args["path"], 0o600)
    about = os.stat(args["path"])
    return {"uid": about.st_uid, "gid": about.st_gid}


def fail(args, fds):
    raise AerogelError("it went wrong", code="sample.wrong", hints=["try again"], detail="a\nb", exit_status=4)


def stumble(args, fds):
    return {"never": args["missing"]}


def full(args, fds):
    with open("/dev/full", "w") as file:
        file.write("x")
    return {}


def die(args, fds):
    os.kill(os.getpid(), signal.SIGKILL)
