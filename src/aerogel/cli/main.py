"""The entry point: from the words of the command line to an exit status.

`--version` imports nothing; a command's help and run import that command only. Here and nowhere else a run ends:
errors become text and a status (`errors.EXIT_*`), an interrupt ends the sandbox first, a bug shows its traceback.
"""

from __future__ import annotations

import sys

from aerogel import __version__

TYPE_CHECKING = False  # type checkers know the name; `typing` itself costs 8 ms
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import FrameType, ModuleType
    from typing import TextIO

    from aerogel.cli.console import Console
    from aerogel.cli.parse import Parsed, Specification
    from aerogel.cli.replay import Recorder, Replay
    from aerogel.commands.world import Bringing, World
    from aerogel.errors import AerogelError
    from aerogel.settings import Settings

__all__ = ["main"]

_BROKEN_PIPE_STATUS = 141
"""What a shell reports for a program that SIGPIPE ended."""


def main(words: Sequence[str] | None = None) -> int:
    """Runs one command line and returns the exit status. Prints; never raises for what a user can cause."""
    is_program, words = words is None, sys.argv[1:] if words is None else words
    _end_at_interrupt()
    if len(words) == 1 and words[0] in ("--version", "-v"):
        sys.stdout.write(f"aerogel version {__version__}\n")
        if not is_program:
            _raise_at_interrupt()
        return 0
    run = _Run()
    try:
        status = run.command(list(words))
        sys.stdout.flush()
    except BaseException as error:  # noqa: BLE001 - the one place where everything ends
        _end_at_interrupt()
        status = run.failed(error)
    (_end_at_interrupt if is_program else _raise_at_interrupt)()
    if is_program:
        _leave(status)
    return status


class _Terminated(BaseException):
    """SIGTERM or SIGHUP came; unwinds like an interrupt."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class _Run:
    """One run of a command, and how errors are shown in it: known better the further the run has come."""

    def __init__(self) -> None:
        self._color = False
        self._json = False
        self._debug = False
        self._redact: Callable[[str], str] = _plain_redact
        self._replay: Replay | None = None

    def command(self, words: list[str]) -> int:
        words = _drop_global_flags(words)
        if not words or words[0] in ("--help", "-h", "help"):
            return self._help(words[1:])
        if words[0].startswith(("build", "image")):
            from aerogel.cli.replay import Replay, is_replayable

            self._replay = Replay(words) if is_replayable(words) else None
            if self._replay is not None and self._replay.answer():
                return 0
        from aerogel.commands.table import find_command
        from aerogel.settings import load_settings

        settings = load_settings()
        self._show_errors(settings)
        found = find_command(words)
        if found is None and (overview := _family_overview(words)):
            from aerogel.cli.render import write_output

            write_output(overview)
            return 0
        if found is None:
            raise _unknown_command(words)
        from aerogel.cli.parse import help_text, parse, specification

        command, rest = found
        spec = specification(command)
        parsed = parse(spec, rest, settings)
        if parsed is None:
            from aerogel.cli.render import write_output

            write_output(help_text(spec))
            return 0
        self._show_errors(parsed.settings)
        return self._run(spec, parsed)

    def _run(self, spec: Specification, parsed: Parsed) -> int:
        from typing import cast

        from aerogel.cli.console import make_console
        from aerogel.cli.render import ended, json_text, write_output
        from aerogel.commands.world import World
        from aerogel.redact import Redactor

        _catch_signals()
        _catch_lost_signals()
        _raise_at_interrupt()
        redactor = Redactor()
        self._redact = redactor.text
        form = "quiet" if getattr(parsed.options, "quiet", False) else parsed.settings.progress
        self._json = form == "json"
        recorder = self._recorder()
        stream = sys.stderr if recorder is None else cast("TextIO", recorder)  # the part of it that consoles use
        console: Console = make_console(form, stream, parsed.settings, redactor)
        try:
            with World(parsed.settings, sink=console, redactor=redactor, bringer=_bringer) as world:
                result = spec.module.run(parsed.options, world)
        finally:
            console.close()
        show = getattr(spec.module, "text", None)
        if parsed.common.json:
            text = json_text(result)
        else:
            text = result.text() if show is None else show(parsed.options, result)
        write_output(text)
        if recorder is not None and self._replay is not None:
            recorder.save(self._replay, str(parsed.settings.cache), ended(text), world.witness)
        status: int = result.exit_status()
        return status

    def _recorder(self) -> Recorder | None:
        """What keeps the messages of a build, which may be the same the next time."""
        if self._replay is None:
            return None
        from aerogel.cli.replay import Recorder

        return Recorder(sys.stderr)

    def _show_errors(self, settings: Settings) -> None:
        self._color = settings.wants_color(is_terminal=sys.stderr.isatty())
        self._debug = settings.debug
        self._json = settings.progress == "json"

    def _help(self, words: list[str]) -> int:
        from aerogel.cli.render import write_output
        from aerogel.commands.table import find_command

        if not words:
            write_output(_overview())
            return 0
        found = find_command(words)
        if found is None and (overview := _family_overview(words)):
            from aerogel.cli.render import write_output

            write_output(overview)
            return 0
        if found is None:
            raise _unknown_command(words)
        from aerogel.cli.parse import help_text, specification

        write_output(help_text(specification(found[0])))
        return 0

    def failed(self, error: BaseException) -> int:
        """Reports what ended the run; the exit status."""
        from aerogel.errors import EXIT_INTERRUPTED, AerogelError

        if isinstance(error, BrokenPipeError):
            _drop_stdout()
            return _BROKEN_PIPE_STATUS
        if isinstance(error, KeyboardInterrupt):
            self._print("canceled")
            return EXIT_INTERRUPTED
        if isinstance(error, _Terminated):
            self._print("terminated")
            return 128 + error.number
        if isinstance(error, SystemExit):
            return error.code if isinstance(error.code, int) else 1
        known = error if isinstance(error, AerogelError) else _host_error(error)
        if known is None:
            return self._bug(error)
        if self._debug:
            self._traceback(error)
        from aerogel.cli.render import render_error

        self._print(render_error(known, color=self._color, as_json=self._json))
        try:
            sys.stdout.flush()
        except OSError:  # what could not be written a moment ago cannot be written at exit either
            _drop_stdout()
        return known.exit_status

    def _bug(self, error: BaseException) -> int:
        self._traceback(error)
        python = ".".join(map(str, sys.version_info[:3]))
        self._print(
            f"error: this is a bug in aerogel {__version__} (Python {python})\n"
            "hint: please report it with the lines above and the command that led to it"
        )
        return 1

    def _traceback(self, error: BaseException) -> None:
        from traceback import format_exception

        self._print("".join(format_exception(error)).rstrip("\n"))

    def _print(self, text: str) -> None:
        try:
            sys.stderr.write(self._redact(text) + "\n")
            sys.stderr.flush()
        except OSError:  # nobody reads standard error: the exit status still tells
            pass


def _bringer(world: World) -> Bringing:
    from aerogel.commands.lazily import Bringer

    return Bringer(world)


def _plain_redact(text: str) -> str:
    from aerogel.redact import redact

    return redact(text)


def _drop_global_flags(words: list[str]) -> list[str]:
    """Flags that docker allows before the command, moved behind it: `docker -D build` is `build -D`."""
    at = 0
    while at < len(words) and words[at] in ("-D", "--debug"):
        at += 1
    return [*words[at : at + 1], *words[at + 1 :], *words[:1]] if at and at < len(words) else words


def _overview() -> str:
    """The help of aerogel itself: the commands by group."""
    from aerogel.commands.table import COMMANDS

    lines = [
        "usage: aerogel COMMAND [OPTIONS] [WORDS]",
        "",
        "The smallest, safest container image that provably runs, from a Dockerfile.",
    ]
    width = max(len(command.name) for command in COMMANDS)
    for group in dict.fromkeys(command.group for command in COMMANDS):
        lines += ["", f"{group}:"]
        lines += [f"  {one.name.ljust(width)}  {one.help}" for one in COMMANDS if one.group == group]
    lines += ["", "`aerogel COMMAND --help` tells what a command takes; `aerogel --version` prints the version."]
    return "\n".join(lines)


def _family_overview(words: list[str]) -> str:
    """The commands that begin with a word that is none itself, as `registry`; empty when that is not what was asked."""
    from aerogel.commands.table import COMMANDS, instead_of

    if words[1:] not in ([], ["--help"], ["-h"]) or instead_of(words)[1]:
        return ""
    begin = f"{words[0]} "
    family = [(name, one.help) for one in COMMANDS for name in (one.name, *one.aliases) if name.startswith(begin)]
    if not family:
        return ""
    width = max(len(name) for name, _ in family)
    lines = [f"usage: aerogel {words[0]} COMMAND [OPTIONS] [WORDS]", ""]
    lines += [f"  {name.ljust(width)}  {about}" for name, about in family]
    lines += ["", f"`aerogel {words[0]} COMMAND --help` tells what a command takes."]
    return "\n".join(lines)


def _unknown_command(words: list[str]) -> AerogelError:
    from aerogel.commands.table import COMMANDS, instead_of
    from aerogel.errors import EXIT_USAGE, AerogelError, nearest

    if words[0].startswith("-"):
        guess, hint = nearest(words[0], ("--help", "--version", "--debug")), ""
        message, code = f"aerogel has no flag `{words[0]}`", "cli.unknown-flag"
    else:
        name, hint, family = instead_of(words)
        guess = nearest(name, family or [each for one in COMMANDS for each in (one.name, *one.aliases)])
        if family and not guess:
            hint = hint or f"there is {', '.join(f'`aerogel {each}`' for each in family)}"
        message, code = f"aerogel has no command `{name}`", "cli.unknown-command"
    if not hint:
        hint = f"did you mean `{guess}`?" if guess else "`aerogel --help` lists the commands"
    return AerogelError(message, code=code, hints=[hint], exit_status=EXIT_USAGE)


def _host_error(error: BaseException) -> AerogelError | None:
    """An error of the operating system that no code below explained but that is the host's, not a bug."""
    import errno

    from aerogel.errors import EXIT_HOST, AerogelError

    if not isinstance(error, OSError) or error.errno is None:
        return None
    hints = {
        errno.ENOSPC: "free some space, or choose another place with `AEROGEL_ROOT`",
        errno.EDQUOT: "the disk quota is used up; choose another place with `AEROGEL_ROOT`",
        errno.EROFS: "choose a writable place with `AEROGEL_ROOT`",
        errno.EACCES: "check the owner and the mode of the file and of the folders above it",
        errno.EPERM: "check the owner and the mode of the file and of the folders above it",
        errno.EMFILE: "raise the limit of open files with `ulimit -n`",
        errno.ENFILE: "the host has too many files open",
        errno.EIO: "the disk reports an error; see the kernel's log",
        errno.ENOMEM: "the host has too little free memory",
    }
    if error.errno not in hints:
        return None
    what = f": `{_name(error.filename)}`" if error.filename else ""
    return AerogelError(
        f"{(error.strerror or 'the operating system refused').lower()}{what}",
        code=f"host.{errno.errorcode[error.errno].lower()}",
        hints=[hints[error.errno]],
        exit_status=EXIT_HOST,
    )


def _name(filename: object) -> str:
    return filename.decode("utf-8", "surrogateescape") if isinstance(filename, bytes) else str(filename)


def _end_at_interrupt() -> None:
    """While there is nothing to clean up, an interrupt ends the process at once.

    An exception amid imports would be shown by whatever code it hits, with a traceback. A process that was started
    to ignore interrupts goes on ignoring them.
    """
    signal = _signal_module()
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler and _is_main_thread():
        signal.signal(signal.SIGINT, _end)


def _raise_at_interrupt() -> None:
    """From now on an interrupt unwinds the stack, so that clean-up runs."""
    signal = _signal_module()
    if signal.getsignal(signal.SIGINT) is _end and _is_main_thread():
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _signal_module() -> ModuleType:
    """What `signal` wraps: every Python has it loaded from its first moment, while the wrapper takes 3 ms."""
    return sys.modules["_signal"]


def _is_main_thread() -> bool:
    import _thread

    main_thread = sys.modules.get("threading")
    return main_thread is None or main_thread.main_thread().ident == _thread.get_ident()


def _end(number: int, frame: FrameType | None) -> None:
    del number, frame
    import posix  # `os` may be half imported

    try:
        posix.write(2, b"canceled\n")
    finally:
        posix._exit(130)


def _catch_signals() -> None:
    """Makes SIGTERM and SIGHUP unwind the stack, so that clean-up runs."""
    import signal

    def terminate(number: int, frame: FrameType | None) -> None:
        del frame
        raise _Terminated(number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, terminate)


def _catch_lost_signals() -> None:
    """Makes a signal come again that hit a finalizer or a callback of Python's own: what is raised there ends nothing."""
    import _thread
    import os
    import time

    signal = _signal_module()
    before = sys.unraisablehook

    def again(number: int) -> None:
        time.sleep(0.01)
        os.kill(os.getpid(), number)

    def hook(lost: sys.UnraisableHookArgs) -> None:
        if isinstance(lost.exc_value, _Terminated):
            _thread.start_new_thread(again, (lost.exc_value.number,))
        elif isinstance(lost.exc_value, KeyboardInterrupt):
            _thread.start_new_thread(again, (signal.SIGINT,))
        else:
            before(lost)

    sys.unraisablehook = hook


def _leave(status: int) -> None:
    """Ends the process at once: for Python to take itself apart takes a fifth of a short run.

    What has registered itself for the end runs before. Returns where a thread has to be waited for, under a profiler, and
    when something cannot be written, and Python ends in its own way.
    """
    import atexit
    import os

    threading = sys.modules.get("threading")
    others = [one for one in threading.enumerate() if one is not threading.main_thread()] if threading else []
    if sys.getprofile() or sys.gettrace() or not all(one.daemon for one in others):
        return
    atexit._run_exitfuncs()
    try:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    except (OSError, AttributeError):  # there is none of a stream that was closed from the start
        return
    os._exit(status)


def _drop_stdout() -> None:
    """Points standard output at nothing, so that Python's own flush at exit does not complain again.

    Standard error too when nobody reads it any more, as with `2>&1 | head`: the exit status would become 120.
    """
    import os

    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    try:
        sys.stderr.flush()
    except OSError:
        os.dup2(null, 2)
    os.close(null)


if __name__ == "__main__":
    sys.exit(main())
