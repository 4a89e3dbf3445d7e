"""/usr/lib/os-release and /etc/nsswitch.conf of an image composed from Debian packages.

`ID` and `VERSION_ID` make scanners choose Debian's advisories; `PRETTY_NAME` tells people that it is distroless.
The addresses stay those that Debian's own file names.
Spec: os-release(5), nsswitch.conf(5).
"""

from __future__ import annotations

from aerogel.errors import AerogelError

__all__ = ["NSSWITCH", "os_release"]

NSSWITCH = b"""\
passwd:     files
group:      files
shadow:     files
gshadow:    files
hosts:      files dns
networks:   files
protocols:  files
services:   files
ethers:     files
rpc:        files
"""
"""Only what glibc has built in: `compat` would make static programs lose user names."""


def os_release(debian: bytes, suite: str) -> bytes:
    """The file, made from the one in Debian's package `base-files`.

    Testing has no number yet, it goes by its code name. Raises `distroless.os-release` for unstable, which has none.
    """
    fields: dict[str, str] = {}
    for line in debian.decode("utf-8", "replace").splitlines():
        key, equals, value = line.partition("=")
        if equals:
            fields[key] = value.strip().strip('"')
    version = fields.get("VERSION_ID", "")
    if not version and fields.get("VERSION_CODENAME") == suite:
        version = suite
    if not version:
        raise AerogelError(
            f"`base-files` of `{suite}` states no VERSION_ID: only releases can be composed",
            code="distroless.os-release",
        )
    name = fields.get("NAME", "Debian GNU/Linux")
    shown = {
        "PRETTY_NAME": "Distroless",
        "NAME": name,
        "ID": "debian",
        "VERSION_ID": version,
        "VERSION": f"{name} {version} ({suite})",
        "VERSION_CODENAME": suite,
    }
    if version == suite:
        del shown["VERSION_ID"]
        shown["VERSION"] = f"{name} {suite} (testing)"
    shown |= {key: fields[key] for key in ("HOME_URL", "SUPPORT_URL", "BUG_REPORT_URL") if key in fields}
    return "".join(f'{key}="{value}"\n' for key, value in shown.items()).encode()
