"""What `aerogel run` makes of HEALTHCHECK and of the options `--health-*` and `--restart`.

Spec: `docker run` reference; moby image-spec, Healthcheck.
"""

from __future__ import annotations

import re
from typing import Protocol

from aerogel.commands.run_flags import fault
from aerogel.oci.types import ContainerConfig, Healthcheck
from aerogel.runtime.containers import Check

__all__ = ["CheckOptions", "RestartOptions", "parse_check", "parse_restart", "parse_span"]

_SPAN = re.compile(r"(?=.)(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d*)?)s)?(?:(\d+)ms)?")
_WHEN = ("no", "on-failure", "always", "unless-stopped")


class CheckOptions(Protocol):
    """The options of a check."""

    @property
    def health_cmd(self) -> str: ...
    @property
    def health_interval(self) -> str: ...
    @property
    def health_timeout(self) -> str: ...
    @property
    def health_start_period(self) -> str: ...
    @property
    def health_start_interval(self) -> str: ...
    @property
    def health_retries(self) -> int: ...
    @property
    def no_healthcheck(self) -> bool: ...


class RestartOptions(Protocol):
    """The options that say when a container is started again."""

    @property
    def restart(self) -> str: ...
    @property
    def detach(self) -> bool: ...
    @property
    def rm(self) -> bool | None: ...


def parse_span(text: str, flag: str) -> float:
    """Seconds of `30s`, `1m30s`, `500ms`. Raises `run.time`."""
    found = _SPAN.fullmatch(text)
    if found is None:
        raise fault(f"`{flag} {text}` is not a time", "run.time", "write `30s`, `1m30s` or `500ms`")
    hours, minutes, seconds, thousandths = (float(part or 0) for part in found.groups())
    return hours * 3600 + minutes * 60 + seconds + thousandths / 1000


def parse_check(options: CheckOptions, config: ContainerConfig) -> Check | None:
    """The image's check as the options change it; None without one. Raises `run.time`, `run.health`."""
    given = config.healthcheck or Healthcheck()
    if options.health_cmd:
        command: tuple[str, ...] = ("/bin/sh", "-c", options.health_cmd)
    elif given.test[:1] == ("CMD",):
        command = given.test[1:]
    elif given.test[:1] == ("CMD-SHELL",):
        command = (*(config.shell or ("/bin/sh", "-c")), *given.test[1:])
    else:
        command = ()
    if options.no_healthcheck and options.health_cmd:
        raise fault("`--no-healthcheck` and `--health-cmd` exclude each other", "run.health", "leave one out")
    if options.health_retries < 0:
        raise fault(f"`--health-retries {options.health_retries}` is below zero", "run.health", "write a number from 1")
    if options.no_healthcheck or not command:
        return None

    def seconds(text: str, flag: str, nanoseconds: int, default: float) -> float:
        return parse_span(text, flag) if text else nanoseconds / 1e9 or default

    return Check(
        command=command,
        interval_s=seconds(options.health_interval, "--health-interval", given.interval, 30.0),
        timeout_s=seconds(options.health_timeout, "--health-timeout", given.timeout, 30.0),
        start_period_s=seconds(options.health_start_period, "--health-start-period", given.start_period, 0.0),
        start_interval_s=seconds(options.health_start_interval, "--health-start-interval", given.start_interval, 5.0),
        retries=options.health_retries or given.retries or 3,
    )


def parse_restart(options: RestartOptions) -> tuple[str, int]:
    """When to start again, and after how many failures no more (0: without end). Raises `run.restart`."""
    when, sign, count = options.restart.partition(":")
    is_number = count.isascii() and count.isdecimal()
    if when not in _WHEN or (sign and (when != "on-failure" or not is_number)):
        hint = "write `no`, `on-failure`, `on-failure:3`, `always` or `unless-stopped`"
        raise fault(f"`--restart {options.restart}` is not known", "run.restart", hint)
    if when != "no" and not options.detach:
        raise fault("`--restart` needs `-d`", "run.restart", "in the foreground a container runs once: add `-d`")
    if when != "no" and options.rm:
        hint = "leave out `--rm`: a container that is started again is not removed"
        raise fault("`--restart` and `--rm` exclude each other", "run.restart", hint)
    return when, int(count or 0)
