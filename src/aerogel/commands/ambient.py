"""What RUN steps see of the host beside the image: proxies, a private CA, the host's Debian mirror.

None of it enters a cache key, a layer or the image config. The CA bundle and the mirror lists are mounted read-only.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from glob import glob
from pathlib import Path

from aerogel.errors import EXIT_USAGE, AerogelError
from aerogel.graph.scope import PROXY_ARGS
from aerogel.oci.reference import is_path_name
from aerogel.sandbox.spec import Mount
from aerogel.settings import Settings
from aerogel.solve.ambient import Ambient, Lent
from aerogel.solve.builders import Extended

__all__ = ["CA_PATH", "CA_VARIABLES", "ambient", "ca_bundle", "extended"]

CA_PATH = "/run/aerogel/ca-certificates.crt"
"""Where a step sees the CA bundle."""

CA_VARIABLES = (
    "SSL_CERT_FILE",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "NODE_EXTRA_CA_CERTS",
    "PIP_CERT",
    "REQUESTS_CA_BUNDLE",
)
"""The variables by which programs take a CA bundle; each is set for a step unless the step sets it."""

_HOST_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
_HOST_PRIVATE = "/usr/local/share/ca-certificates/*.crt"


def ambient(
    settings: Settings,
    build_args: Mapping[str, str],
    mirror_mounts: Callable[[], tuple[Mount, ...]],
    lent: Lent = Lent(),  # noqa: B008 - a tuple, made once and never changed
) -> Ambient:
    """What the steps of a build see; `mirror_mounts` is asked when a root has apt's mirror lists."""
    env = {name: value for name, value in build_args.items() if name in PROXY_ARGS}
    bundle = ca_bundle(settings)
    fixed: tuple[Mount, ...] = ()
    if bundle is not None:
        fixed = (_lent_bundle(bundle),)
        env.update(dict.fromkeys(CA_VARIABLES, CA_PATH))

    def mounts(exists: Callable[[str], bool]) -> tuple[Mount, ...]:
        if not exists("/etc/apt/mirrors"):
            return fixed
        return (*fixed, *(mount for mount in mirror_mounts() if exists(mount.target)))

    return Ambient(env, mounts, lent, extend=partial(extended, settings.aliases))


def extended(aliases: Mapping[str, str], base: str, packages: Sequence[str]) -> Extended:
    """How the base of a name gets packages: in its name, in its declaration; and the build root of its release."""
    from aerogel.distroless.catalogue import choose, with_more
    from aerogel.distroless.recipe import RELEASES

    seen: set[str] = set()
    while base in aliases and base not in seen:
        seen.add(base)
        base = aliases[base]
    choice = None if is_path_name(base) else choose(base)
    root = f"debian:{choice.release}" if choice is not None and choice.release != RELEASES[0].suite else "debian"
    if choose(root) is None:  # Debian's testing has none
        root = "debian"
    if not packages:
        return Extended("", root)
    if is_path_name(base):
        named = " and ".join(f"`{each}`" for each in packages)
        return Extended(f"add {named} to `packages` in `{base.partition(':')[0]}`", root)
    name = with_more(base, packages)
    return Extended(f"write `FROM {name}`, which adds the package{'s' * (len(packages) > 1)}" if name else "", root)


def _lent_bundle(path: Path) -> Mount:
    """The bundle as root's file of mode 0644, whoever has it here: steps see the same on every rung."""
    state = path.stat()
    if os.geteuid() == 0 and (state.st_uid, state.st_gid, state.st_mode & 0o7777) == (0, 0, 0o644):
        return Mount(kind="bind", target=CA_PATH, source=str(path), readonly=True)
    # The host's owners are not those of the namespace of an ordinary user. The content costs a step 1 ms.
    return Mount(kind="file", target=CA_PATH, data=path.read_bytes(), readonly=True)


def ca_bundle(settings: Settings) -> Path | None:
    """The CA bundle for steps: the file that was named, or the host's if the host trusts a private CA.

    Raises `build.no-ca` when a named file is not there.
    """
    if settings.ca == "none":
        return None
    if settings.ca != "auto":
        path = (settings.directory / settings.ca).absolute()
        if not path.is_file():
            raise AerogelError(
                f"the CA bundle `{settings.ca}` is not a file",
                code="build.no-ca",
                exit_status=EXIT_USAGE,
                hints=["give a file with PEM certificates, or `auto` or `none`"],
            )
        return path
    named = settings.environment.get("SSL_CERT_FILE", "")
    if named and Path(named).is_file():
        return Path(named).absolute()
    if glob(_HOST_PRIVATE) and Path(_HOST_BUNDLE).is_file():
        return Path(_HOST_BUNDLE)
    return None
