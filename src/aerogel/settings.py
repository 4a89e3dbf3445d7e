"""What holds for every command: places, the mirror, isolation, colours. The only reader of the environment.

Read once at the start, from (last wins): defaults, `$XDG_CONFIG_HOME/aerogel/aerogel.toml`, `./aerogel.toml`,
environment variables. Flags of the command line replace fields afterwards (`Flag(setting=...)`). In the files a
setting is a key of the top table, `[aliases]` maps references to references, `[registries."HOST"]` says how a registry
is asked, `[signatures]` who must have signed what comes from it, and a table named after a command holds defaults of its options::

    mirror = "http://debian.example/debian"
    [aliases]
    "node" = "registry.example/node:22"
    [registries."docker.io"]
    mirrors = ["mirror.example:5000/hub"]
    [registries."mirror.example:5000"]
    ca = "mirror-ca.pem"
    [build]
    target = "app"

A registry's table may have `mirrors`, `blocked`, `insecure`, `ca`, `client_cert`, `client_key` and `headers`; files are
relative to the configuration file. Its name may be a part of a registry (`docker.io/library`) for `mirrors` and `blocked`.

A project's `./aerogel.toml` comes with somebody's repository, so it has no say in whom is trusted and what of the host is
reached. It may not set `root`, `ca`, `isolation` and `insecure_registry`; of `[registries."HOST"]` it may set `blocked = true`
only, which nothing takes back; its `[signatures]` are asked beside the user's. It may have tables for `bake`, `base build`,
`base lock`, `base update`, `build`, `debug`, `format`, `graph`, `k8s`, `lint`, `run` and `test`, without the options that name
images or registries, reach files and variables of the host, or give rights: `allow`, `arguments`, `build-context`, `ca`,
`cache-from`, `cache-to`, `cap-add`, `cidfile`, `context`, `env`, `env-file`, `iidfile`, `insecure-registry`, `isolation`,
`junit`, `label-file`, `metadata-file`, `mount`, `network`, `output`, `privileged`, `publish`, `publish-all`, `push`, `secret`,
`security-opt`, `ssh`, `tag`, `volume`, `volumes-from`. Anything else is an error (`settings.project`) that tells where it goes:
the user's file, a variable or a flag. (What a Dockerfile, a bake file or `aerogel.toml` makes of `mirror` and `[aliases]`
is in the project's hands: Debian's packages are signed, and FROM may name anything that `[signatures]` lets through.)

Specification of the places: XDG Base Directory 0.8 (a relative path in a variable is ignored).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_origin, get_type_hints

import msgspec
from msgspec import Struct

from aerogel.errors import EXIT_USAGE, AerogelError, Source, Span, nearest
from aerogel.flag import Flag

__all__ = [
    "Bases",
    "Color",
    "ConfigFile",
    "Isolation",
    "Progress",
    "RegistryEntry",
    "Settings",
    "Signatures",
    "Signer",
    "config_paths",
    "key_span",
    "lend_environment",
    "load_settings",
    "parse_scalar",
    "refuse_in_project",
    "setting_type",
]

CONFIG_NAME = "aerogel.toml"
_USERS_SETTINGS = frozenset({"root", "ca", "isolation", "insecure_registry"})
_PROJECTS_COMMANDS = frozenset(
    [
        "bake",
        "base build",
        "base lock",
        "base update",
        "build",
        "debug",
        "format",
        "graph",
        "k8s",
        "lint",
        "run",
        "test",
    ]
)
_USERS_OPTIONS = frozenset(
    {
        *("allow", "arguments", "build_context", "ca", "cache_from", "cache_to", "cap_add", "cidfile", "context"),
        *("env", "env_file", "iidfile", "insecure_registry", "isolation", "junit", "label_file"),
        *("metadata_file", "mount", "network", "output", "privileged", "publish", "publish_all", "push", "secret"),
        *("security_opt", "ssh", "tag", "volume", "volumes_from"),
    }
)

Progress = Literal["auto", "tty", "plain", "json", "quiet"]
Color = Literal["auto", "always", "never"]
Bases = Literal["auto", "builtin", "registry"]
Isolation = Literal["auto", "root", "ident", "subid", "single", "chroot", "proot"]


class ConfigFile(Struct, frozen=True):
    """One configuration file: its text for error messages and its decoded table."""

    source: Source
    table: dict[str, Any]
    is_users: bool
    """The user's own, not that of a project, which comes with somebody's repository."""


class Signer(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="kebab"):
    """Who must have signed: who has a key, or who stands in the certificate of a signature without one."""

    key: str | list[str] = ""
    """Public keys, of which one is enough."""
    identity: str = ""
    issuer: str = ""
    """Who says that it is `identity`."""
    trusted_root: str = ""
    """Sigstore's when empty."""
    signed_for: str = ""
    """What the names were when they were signed: a prefix in the place of the rule's, or `any`. As they are when empty."""

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(self.key) if isinstance(self.key, list) else (self.key,) if self.key else ()


class Signatures(NamedTuple):
    """What `[signatures]` of one file says: prefix of names -> whole paths of public keys, a signer, `none`, `reject`."""

    is_users: bool
    """The user's own file, not the one of a project, which may only ask for more."""
    rules: dict[str, tuple[str | Signer, ...]]


class RegistryEntry(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `[registries."HOST"]` says: mirrors as `[SCHEME://]HOST[:PORT][/PATH]`, files as they are written."""

    mirrors: list[str] = []
    blocked: bool = False
    insecure: bool = False
    ca: str = ""
    client_cert: str = ""
    client_key: str = ""
    headers: dict[str, str] = {}


class Settings(Struct, frozen=True, kw_only=True):
    """Everything that is not an option of one command. Paths are absolute."""

    data: Path
    """Images, layers and snapshots: what would be missed."""
    cache: Path
    """What can be fetched or computed again."""

    root: Annotated[str | None, Flag("One folder for data and cache", metavar="DIR")] = None
    mirror: Annotated[
        str | None,
        Flag("Debian mirror; default: the host's apt sources", metavar="URL", env="AEROGEL_DEBIAN_MIRROR"),
    ] = None
    security_mirror: Annotated[
        str | None,
        Flag("Mirror of Debian's security archive", metavar="URL", env="AEROGEL_DEBIAN_SECURITY_MIRROR"),
    ] = None
    snapshot_mirror: Annotated[
        str | None,
        Flag(
            "Archive of Debian's past: has `archive/debian/DATE` and `archive/debian-security/DATE`",
            metavar="URL",
            env="AEROGEL_DEBIAN_SNAPSHOT_MIRROR",
        ),
    ] = None
    ca: Annotated[
        str,
        Flag("Certificates that steps trust beside their own: `auto` (the host's private CA), `none` or a file"),
    ] = "auto"
    isolation: Annotated[Isolation, Flag("How steps are isolated; `aerogel doctor` lists what works here")] = "auto"
    bases: Annotated[Bases, Flag("Where base images come from")] = "auto"
    jobs: Annotated[
        int | None, Flag("Steps that run at the same time; default: one for each processor", metavar="N")
    ] = None
    color: Annotated[Color, Flag("When to use colours")] = "auto"
    progress: Annotated[Progress, Flag("How progress is shown")] = "auto"
    source_date_epoch: Annotated[
        int | None,
        Flag("Time stamp of images and files, in seconds", metavar="SECONDS", env="SOURCE_DATE_EPOCH"),
    ] = None
    platform: Annotated[
        str | None,
        Flag("Platform of images; default: the host's", metavar="OS/ARCH", env="DOCKER_DEFAULT_PLATFORM"),
    ] = None
    insecure_registry: Annotated[
        str,
        Flag("Registries that may be spoken to without TLS, separated by commas", metavar="HOST[:PORT],..."),
    ] = ""
    debug: Annotated[bool, Flag("Show a traceback for every error")] = False

    aliases: dict[str, str] = {}
    """Reference -> reference, from `[aliases]`."""
    registries: dict[str, tuple[RegistryEntry, Path]] = {}
    """Registry -> what is said about it, and the file that says so."""
    signatures: tuple[Signatures, ...] = ()
    """From `[signatures]`, one for each file that has it; an image must be right for all of them."""
    files: tuple[ConfigFile, ...] = ()
    """The configuration files that were found, weakest first."""
    environment: Mapping[str, str] = {}
    """The process's environment as it was at the start: for `-e NAME`, proxies, `SSL_CERT_FILE`, `PATH`."""
    directory: Path = Path("/")
    """The working directory at the start."""

    def __post_init__(self) -> None:
        """Refuses what has the right type but makes no sense, wherever it was given."""
        if self.jobs is not None and self.jobs < 1:
            raise AerogelError(
                f"`jobs` must be 1 or more, not `{self.jobs}`",
                code="settings.value",
                hints=["leave it out for one step for each processor"],
                exit_status=EXIT_USAGE,
            )

    @property
    def docker_config(self) -> Path:
        """The folder of docker's `config.json`, which holds credentials of registries."""
        return Path(self.environment.get("DOCKER_CONFIG") or _home(self.environment) / ".docker")

    @property
    def auth_files(self) -> tuple[Path, ...]:
        """The files that may hold credentials of registries, in the order of search; `login` writes the last one."""
        environment = self.environment
        if named := environment.get("REGISTRY_AUTH_FILE"):
            return (self.directory / named,)
        docker = self.docker_config / "config.json"
        if environment.get("DOCKER_CONFIG"):
            return (docker,)
        podman = [_xdg(environment, "XDG_CONFIG_HOME", _home(environment) / ".config")]
        if (runtime := environment.get("XDG_RUNTIME_DIR", "")).startswith("/"):
            podman.insert(0, Path(runtime))
        return (*(folder / "containers" / "auth.json" for folder in podman), docker)

    @property
    def registries_conf(self) -> tuple[Path, tuple[Path, ...]]:
        """Podman's `registries.conf` and the folders of more of them. Specification: containers-registries.conf(5)."""
        own = _xdg(self.environment, "XDG_CONFIG_HOME", _home(self.environment) / ".config") / "containers"
        system = Path("/etc/containers")
        main = own if (own / "registries.conf").exists() else system
        named = self.environment.get("CONTAINERS_REGISTRIES_CONF", "")
        path = self.directory / named if named else main / "registries.conf"
        return path, (system / "registries.conf.d", own / "registries.conf.d")

    @property
    def host_folders(self) -> tuple[Path, ...]:
        """The folders of containerd's `HOST/hosts.toml`, the user's first."""
        own = _xdg(self.environment, "XDG_CONFIG_HOME", _home(self.environment) / ".config")
        return tuple(
            base / name / "certs.d" for base in (own, Path("/etc")) for name in ("aerogel", "containerd", "docker")
        )

    @property
    def certificate_folders(self) -> tuple[Path, ...]:
        """The folders of `HOST/*.crt` and of client certificates, as docker and podman have them."""
        own = _xdg(self.environment, "XDG_CONFIG_HOME", _home(self.environment) / ".config")
        return tuple(
            base / name / "certs.d" for base in (own, Path("/etc")) for name in ("aerogel", "containers", "docker")
        )

    @property
    def policy_files(self) -> tuple[Path, ...]:
        """Where containers' tools keep the policy for images; the first that is there counts."""
        home = _xdg(self.environment, "XDG_CONFIG_HOME", _home(self.environment) / ".config")
        return (home / "containers" / "policy.json", Path("/etc/containers/policy.json"))

    @property
    def is_ci(self) -> bool:
        return self.environment.get("CI", "").lower() not in {"", "0", "false"}

    @property
    def is_dumb_terminal(self) -> bool:
        return self.environment.get("TERM", "") in {"", "dumb"}

    def wants_color(self, *, is_terminal: bool) -> bool:
        """Whether a stream gets colours. Specification: no-color.org."""
        if self.color != "auto":
            return self.color == "always"
        return is_terminal and not self.environment.get("NO_COLOR") and not self.is_dumb_terminal


def load_settings(environ: Mapping[str, str] | None = None, directory: str | None = None) -> Settings:
    """Reads environment and configuration files.

    `environ` and `directory` replace the process's (for tests and for use as a library). Raises `AerogelError`
    with code `settings.*` for a value or a file that cannot be used.
    """
    environment = dict(os.environ if environ is None else environ)
    here = Path(os.getcwd() if directory is None else directory)
    home = _home(environment)
    files = _config_files(config_paths(environment, here))
    known = _given()
    kinds = {name: one.kind for name, one in known.items()}
    values: dict[str, Any] = {}
    for file in files:
        for key, value in file.table.items():
            if not isinstance(value, dict):
                values[key.replace("-", "_")] = _checked(file, key, value, kinds)
                if not file.is_users and key.replace("-", "_") in _USERS_SETTINGS:
                    raise _not_projects(file, key, f"`{key}`")
            elif key == "aliases":
                values[key] = {**values.get(key, {}), **_checked(file, key, value, {key: dict[str, str]})}
            elif key == "registries":
                values[key] = _registries(file, value, here / file.source.name, values.get(key, {}))
            elif key == "signatures":
                values[key] = (*values.get(key, ()), Signatures(file.is_users, _signatures(file, value)))
    for field, (kind, variable) in known.items():
        if text := environment.get(variable):
            values[field] = _from_variable(variable, text, kind)
    if root := values.get("root"):
        base = (here / Path(root).expanduser()).absolute()
        data, cache = base / "data", base / "cache"
    else:
        data = _xdg(environment, "XDG_DATA_HOME", home / ".local/share") / "aerogel"
        cache = _xdg(environment, "XDG_CACHE_HOME", home / ".cache") / "aerogel"
    return Settings(data=data, cache=cache, files=files, environment=environment, directory=here, **values)


def setting_type(name: str) -> Any:
    """The type of a setting that users can give."""
    return _given()[name].kind


def parse_scalar(text: str, wanted: Any) -> Any:
    """A value of type `wanted` (`bool`, `int`, `float`, `str`, `Literal`, or a union of one with None) from text.

    Raises `ValueError` with words that say what is valid.
    """
    members = [one for one in getattr(wanted, "__args__", ()) if one is not type(None)]
    if getattr(wanted, "__origin__", None) is Literal:
        if text not in wanted.__args__:
            choices = ", ".join(f"`{one}`" for one in wanted.__args__ if one)
            raise ValueError(f"must be one of {choices}, not `{text}`")
        return text
    if members:
        return parse_scalar(text, members[0])
    if wanted is bool:
        known = {
            "1": True,
            "true": True,
            "yes": True,
            "on": True,
            "0": False,
            "false": False,
            "no": False,
            "off": False,
        }
        if text.lower() not in known:
            raise ValueError(f"must be `true` or `false`, not `{text}`")
        return known[text.lower()]
    if wanted in (int, float):
        try:
            return wanted(text)
        except ValueError:
            noun = "a whole number" if wanted is int else "a number"
            raise ValueError(f"must be {noun}, not `{text}`") from None
    return text


class _Given(NamedTuple):
    """One setting that users can give."""

    kind: Any
    variable: str


def _given() -> dict[str, _Given]:
    """Field -> type and environment variable of the settings that users can give: those with a `Flag`."""
    return {
        name: _Given(kind.__origin__, kind.__metadata__[0].env or f"AEROGEL_{name.upper()}")
        for name, kind in get_type_hints(Settings, include_extras=True).items()
        if get_origin(kind) is Annotated
    }


def _from_variable(variable: str, text: str, wanted: Any) -> Any:
    try:
        return parse_scalar(text, wanted)
    except ValueError as error:
        raise AerogelError(
            f"environment variable `{variable}` {error}", code="settings.value", exit_status=EXIT_USAGE
        ) from None


def _checked(file: ConfigFile, key: str, value: Any, kinds: dict[str, Any]) -> Any:
    name = key.replace("-", "_")
    if name not in kinds:
        guess = nearest(key, kinds)
        raise AerogelError(
            f"unknown setting `{key}`",
            code="settings.unknown",
            span=key_span(file.source, key),
            hints=[f"did you mean `{guess}`?"] if guess else [f"settings are {', '.join(f'`{one}`' for one in kinds)}"],
            exit_status=EXIT_USAGE,
        )
    try:
        return msgspec.convert(value, type=kinds[name])
    except msgspec.ValidationError as error:
        raise AerogelError(
            f"setting `{key}` has the wrong type: {_lower(str(error))}",
            code="settings.value",
            span=key_span(file.source, key),
            exit_status=EXIT_USAGE,
        ) from None


def _registries(
    file: ConfigFile, table: Any, path: Path, known: dict[str, tuple[RegistryEntry, Path]]
) -> dict[str, tuple[RegistryEntry, Path]]:
    """What is known with what this file adds; a project's may only block."""
    entries = _checked(file, "registries", table, {"registries": dict[str, RegistryEntry]})
    if file.is_users:
        return {**known, **{name: (entry, path) for name, entry in entries.items()}}
    found = dict(known)
    for name, entry in entries.items():
        if weaker := sorted(set(table[name]) - {"blocked"}):
            raise _not_projects(file, weaker[0], f'`{weaker[0]}` of `[registries."{name}"]`')
        if entry.blocked:
            old, where = known.get(name, (entry, path))
            found[name] = (msgspec.structs.replace(old, blocked=True), where)
    return found


def refuse_in_project(file: ConfigFile, command: str, key: str) -> None:
    """Raises `settings.project` when a project's file gives an option of a command that only users may give."""
    if file.is_users:
        return
    if command not in _PROJECTS_COMMANDS or key.replace("-", "_") in _USERS_OPTIONS:
        raise _not_projects(file, key, f"`{key}` of `[{command}]`")


def _not_projects(file: ConfigFile, key: str, what: str) -> AerogelError:
    return AerogelError(
        f"a project's `{CONFIG_NAME}` may not set {what}",
        code="settings.project",
        span=key_span(file.source, key),
        hints=[
            "it comes with the project, and would decide over your host and your registries",
            "write it into your own file (`~/.config/aerogel/aerogel.toml`), or give it as a variable or flag",
        ],
        exit_status=EXIT_USAGE,
    )


def _signatures(file: ConfigFile, table: Any) -> dict[str, tuple[str | Signer, ...]]:
    """Paths of keys and roots count from the folder of the file."""
    told = _checked(file, "signatures", table, {"signatures": dict[str, str | list[str] | Signer]})
    folder = Path(file.source.name).absolute().parent

    def beside(name: str) -> str:
        return str(folder / Path(name).expanduser())

    def whole(word: str | Signer) -> str | Signer:
        if isinstance(word, str):
            return word if word in ("none", "reject") else beside(word)
        root = beside(word.trusted_root) if word.trusted_root else ""
        moved = word.signed_for.removesuffix("/")
        return msgspec.structs.replace(
            word, key=[beside(one) for one in word.keys], trusted_root=root, signed_for=moved
        )

    found: dict[str, tuple[str | Signer, ...]] = {}
    for scope, words in told.items():
        listed = words if isinstance(words, list) else [words]
        if not listed or (isinstance(words, Signer) and not _is_signer(words)):
            raise AerogelError(
                f"`[signatures]` names no key for `{scope}`",
                code="settings.value",
                span=key_span(file.source, scope),
                hints=[
                    "name a public key, `{ key = ... }` or `{ identity = ..., issuer = ... }`; or write `none` or `reject`"
                ],
                exit_status=EXIT_USAGE,
            )
        moved = words.signed_for if isinstance(words, Signer) else ""
        if moved not in ("", "any") and ("*" in moved or not _is_scope(moved)):
            raise AerogelError(
                f'`signed-for = "{moved}"` in `[signatures]` is no registry and no name that begins with one',
                code="settings.value",
                span=key_span(file.source, scope),
                hints=["write the prefix that the names had when they were signed, or `any`"],
                exit_status=EXIT_USAGE,
            )
        if not _is_scope(scope):
            raise AerogelError(
                f"`{scope}` in `[signatures]` is no registry and no name that begins with one",
                code="settings.value",
                span=key_span(file.source, scope),
                hints=[
                    "write `registry.example`, `registry.example/team`, `docker.io/library/alpine`, `*.example` or `*`"
                ],
                exit_status=EXIT_USAGE,
            )
        found[scope.removesuffix("/")] = tuple(whole(word) for word in listed)
    return found


def _is_signer(told: Signer) -> bool:
    """Whether it names a key or a certificate, and not both or half of one."""
    if told.keys:
        return not (told.identity or told.issuer or told.trusted_root) and all(told.keys)
    return bool(told.identity and told.issuer)


def _is_scope(text: str) -> bool:
    """Whether a rule of `[signatures]` can ever fit: one that cannot would let everything through."""
    host, _, rest = text.partition("/")
    if text == "*" or (host.startswith("*.") and not rest):
        return "*" not in text[1:]
    is_host = "." in host or ":" in host or host == "localhost"
    return is_host and "*" not in text and "//" not in text and not any(one.isspace() for one in text)


def key_span(source: Source, key: str) -> Span | None:
    """Where a key stands in a TOML text, as far as a search by lines can tell."""
    import re

    found = re.search(rb'(?m)^\s*"?(' + re.escape(key.encode()) + rb')"?\s*=', source.data)
    return Span(source, found.start(1), found.end(1)) if found else None


def config_paths(environment: Mapping[str, str], directory: Path) -> tuple[Path, Path]:
    """Where configuration files are looked for, the weakest first: the user's, and the project's."""
    home = _xdg(environment, "XDG_CONFIG_HOME", _home(environment) / ".config")
    return (home / "aerogel" / CONFIG_NAME, directory / CONFIG_NAME)


def _config_files(paths: tuple[Path, Path]) -> tuple[ConfigFile, ...]:
    found: list[ConfigFile] = []
    users, _ = paths
    for path in paths:
        try:
            data = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise AerogelError(
                f"cannot read `{path}`: {(error.strerror or str(error)).lower()}",
                code="settings.unreadable",
                exit_status=EXIT_USAGE,
            ) from None
        found.append(_config_file(str(path), data, is_users=path == users))
    return tuple(found)


def _config_file(name: str, data: bytes, *, is_users: bool) -> ConfigFile:
    import tomllib

    source = Source(name, data)
    try:
        return ConfigFile(source, tomllib.loads(data.decode("utf-8")), is_users)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        why = "it is nested too deeply" if isinstance(error, RecursionError) else _lower(str(error))
        raise AerogelError(f"`{name}` is not TOML: {why}", code="settings.syntax", exit_status=EXIT_USAGE) from None


@contextmanager
def lend_environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Variables of this process, for as long as a library works that takes no other word. Other threads see them too."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def _home(environment: Mapping[str, str]) -> Path:
    if (home := environment.get("HOME", "")).startswith("/"):
        return Path(home)
    import pwd

    try:
        return Path(pwd.getpwuid(os.getuid()).pw_dir)
    except KeyError:
        return Path("/")


def _xdg(environment: Mapping[str, str], variable: str, default: Path) -> Path:
    given = environment.get(variable, "")
    return Path(given) if given.startswith("/") else default
