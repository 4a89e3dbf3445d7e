"""What apt finds in a build root: where packages come from, and how it behaves in an image.

The image itself names only the built-in fallback mirrors, so that its bytes do not depend on the host. What they are
is read from list files, and a RUN sees the list files of `mirror_mounts` instead: the mirrors this host uses.
Settings are those of Docker's own `debian` images, under the same file names, because Dockerfiles rely on them.
Spec: sources.list(5), apt-transport-mirror(1), apt.conf(5), dpkg.cfg(5).
"""

from __future__ import annotations

from importlib.resources import files

import msgspec

from aerogel.debian.mirror import Sources
from aerogel.sandbox.spec import Mount

__all__ = ["ARCHIVE_LIST", "SECURITY_LIST", "apt_files", "mirror_list", "mirror_mounts"]

ARCHIVE_LIST = "/etc/apt/mirrors/debian.list"
SECURITY_LIST = "/etc/apt/mirrors/debian-security.list"
_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"

_CLEAN = """\
# Downloaded packages are not left behind in a layer.
DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb /var/cache/apt/archives/partial/*.deb /var/cache/apt/*.bin || true"; };
APT::Update::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb /var/cache/apt/archives/partial/*.deb /var/cache/apt/*.bin || true"; };
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
"""
_CONFIG = {
    "etc/apt/apt.conf.d/docker-clean": _CLEAN,
    "etc/apt/apt.conf.d/docker-autoremove-suggests": 'Apt::AutoRemove::SuggestsImportant "false";\n',
    "etc/apt/apt.conf.d/docker-gzip-indexes": 'Acquire::GzipIndexes "true";\n',
    "etc/apt/apt.conf.d/docker-no-languages": 'Acquire::Languages "none";\n',
    "etc/dpkg/dpkg.cfg.d/docker-apt-speedup": "force-unsafe-io\n",
}
_SLIM = """\
path-exclude /usr/share/doc/*
path-exclude /usr/share/info/*
path-exclude /usr/share/linda/*
path-exclude /usr/share/lintian/*
path-exclude /usr/share/locale/*
path-exclude /usr/share/man/*
path-include /usr/share/doc/*/copyright
path-include /usr/share/locale/locale.alias
"""


def apt_files(suite: str, *, slim: bool) -> dict[bytes, bytes]:
    """Path -> content of the configuration files of a build root."""
    fallback = msgspec.json.decode(
        files("aerogel.debian").joinpath("data", "mirrors.json").read_bytes(), type=dict[str, str]
    )
    found = dict(_CONFIG)
    if slim:
        found["etc/dpkg/dpkg.cfg.d/docker"] = _SLIM
    stanzas = ((ARCHIVE_LIST, f"{suite} {suite}-updates"), (SECURITY_LIST, f"{suite}-security"))
    found["etc/apt/sources.list.d/debian.sources"] = "\n".join(
        f"Types: deb\nURIs: mirror+file:{path}\nSuites: {suites}\nComponents: main\nSigned-By: {_KEYRING}\n"
        for path, suites in stanzas
    )
    made = {path.encode(): text.encode() for path, text in found.items()}
    made[ARCHIVE_LIST.lstrip("/").encode()] = mirror_list([fallback["archive"]])
    made[SECURITY_LIST.lstrip("/").encode()] = mirror_list([fallback["security"]])
    return made


def mirror_list(uris: list[str]) -> bytes:
    """A list file for apt's `mirror+file:`; without the priorities apt would choose at random."""
    return "".join(f"{uri}/\tpriority:{number}\n" for number, uri in enumerate(uris, 1)).encode()


def mirror_mounts(sources: Sources, suite: str) -> tuple[Mount, ...]:
    """The list files for a RUN on a build root of a suite: this host's mirrors in the order in which aerogel asks them.

    They are read-only, exist in memory only, and leave nothing in the layer. Places that are no web addresses cannot
    be seen from inside and are left out; a list that would be empty is not replaced.
    """
    mounts = []
    for target, name in ((ARCHIVE_LIST, suite), (SECURITY_LIST, f"{suite}-security")):
        uris = [place.uri for place in sources.places(name) if place.uri.startswith(("http://", "https://"))]
        if uris:
            mounts.append(Mount(kind="file", target=target, data=mirror_list(uris), readonly=True))
    return tuple(mounts)
