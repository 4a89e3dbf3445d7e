"""`[signatures]` and containers' policy.json: what may be pulled, built upon and run, with aerogel's and cosign's signatures.

Debian packages: docker-registry, busybox-static; cosign comes from the archive of Debian 13.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path

import cosign
import pytest
from process import Aerogel
from real_registry import Server

from aerogel.oci.signature import SIGNED

pytestmark = pytest.mark.host("docker-registry")

PASSWORD = "open sesame"


@pytest.fixture
def aerogel(tmp_path: Path) -> Aerogel:
    made = Aerogel(tmp_path / "state")
    made.env |= {"AEROGEL_KEY_PASSWORD": PASSWORD, "XDG_CONFIG_HOME": str(tmp_path / "config")}
    return made


@pytest.fixture
def told(tmp_path: Path) -> Callable[[str], Path]:
    """Writes the user's `[signatures]`; gives the folder of that file."""
    folder = tmp_path / "config" / "aerogel"
    folder.mkdir(parents=True)

    def write(rules: str) -> Path:
        (folder / "aerogel.toml").write_text(f"[signatures]\n{rules}\n")
        return folder

    return write


def pushed(aerogel: Aerogel, name: str, folder: Path, *words: str) -> str:
    (folder / "Dockerfile").write_text(f"FROM scratch\nLABEL name={name}\n")
    found: str = aerogel.json("build", "--push", "-t", name, *words, str(folder))["descriptor"]["digest"]
    return found


def test_policies_of_ours(aerogel: Aerogel, registry: Server, tmp_path: Path) -> None:
    """Asked by pull, FROM, run and copy; the longest prefix counts."""
    good, bad = f"{registry.host}/team/app:good", f"{registry.host}/team/app:bad"
    free, no = f"{registry.host}/free/app:1", f"{registry.host}/no/app:1"
    maker = Aerogel(tmp_path / "maker")
    for name in (good, bad, free, no):
        pushed(maker, name, tmp_path)
    config = tmp_path / "config" / "aerogel"
    config.mkdir(parents=True)
    aerogel("key", "generate", "-o", f"{config}/team")
    aerogel("sign", "--key", f"{config}/team.key", good)
    aerogel("key", "generate", "-o", f"{tmp_path}/stranger")
    aerogel("sign", "--key", f"{tmp_path}/stranger.key", bad)
    (config / "aerogel.toml").write_text(
        f'[signatures]\n"{registry.host}" = "team.pub"\n"{registry.host}/free" = "none"\n'
        f'"{registry.host}/no/app" = "reject"\n'
    )
    for name in (good, free):
        aerogel("pull", name)
        aerogel("copy", f"docker://{name}", f"oci:{tmp_path}/layout:{name[-1]}")
    (tmp_path / "Dockerfile").write_text(f"FROM {bad}\nLABEL x=y\n")
    for words in (
        ("pull", bad),
        ("build", "--pull", str(tmp_path)),
        ("run", bad, "true"),
        ("copy", f"docker://{bad}", f"oci:{tmp_path}/layout:bad"),
    ):
        done = aerogel(*words, check=False)
        assert done.returncode != 0
        assert "has no signature by" in done.stderr, done.stderr
        assert "the signatures that it has are of others" in done.stderr
    assert "rejects it" in aerogel("pull", no, check=False).stderr
    (tmp_path / "Dockerfile").write_text(f"FROM {good}\nLABEL x=y\n")
    aerogel("build", "--pull", "-q", str(tmp_path))
    (config / "aerogel.toml").write_text(f'[signatures]\n"{registry.host}" = []\n')
    assert "names no key" in aerogel("pull", good, check=False).stderr


def test_no_spelling_and_no_project_goes_past_a_policy(aerogel: Aerogel, registry: Server, tmp_path: Path) -> None:
    port = registry.host.rpartition(":")[2]
    bad = f"localhost:{port}/team/app:1"
    digest = pushed(Aerogel(tmp_path / "maker"), bad, tmp_path)
    aerogel("key", "generate", "-o", f"{tmp_path}/team")
    config, project = tmp_path / "config" / "aerogel", tmp_path / "project"
    config.mkdir(parents=True)
    project.mkdir()
    (config / "aerogel.toml").write_text(f'[signatures]\n"localhost:{port}/team" = "{tmp_path}/team.pub"\n')
    (project / "aerogel.toml").write_text(f'[signatures]\n"localhost:{port}/team/app" = "none"\n"*" = "none"\n')
    here = {"cwd": project}
    for spelt in (bad, bad.replace("localhost", "LOCALHOST")):
        assert "has no signature by" in aerogel("pull", spelt, check=False, **here).stderr
    # A digest that came from elsewhere is not what was asked for.
    image = f"{bad.removesuffix(':1')}@{digest}"
    aerogel("copy", f"docker://{bad.replace('localhost', '127.0.0.1')}", "elsewhere")
    (project / "Dockerfile").write_text(f"FROM {image}\nLABEL x=y\n")
    for words in (("build", "."), ("run", image, "true"), ("run", "--pull=never", image, "true")):
        assert "has no signature by" in aerogel(*words, check=False, **here).stderr
    aerogel("sign", "--key", f"{tmp_path}/team.key", bad)
    aerogel("pull", "-q", image, **here)
    assert aerogel("build", "-q", ".", **here).stdout
    # A project may ask for more, and a key that is not there is no reason to take what was there before.
    (project / "aerogel.toml").write_text(f'[signatures]\n"localhost:{port}" = "reject"\n')
    assert "rejects it" in aerogel("pull", bad, check=False, **here).stderr
    (project / "aerogel.toml").write_text(f'[signatures]\n"localhost:{port}" = "gone.pub"\n')
    (project / "Dockerfile").write_text(f"FROM {bad}\nLABEL x=y\n")
    aerogel("tag", "elsewhere", bad)
    for words in (("pull", bad), ("build", "--pull", ".")):
        done = aerogel(*words, check=False, **here)
        assert done.returncode == 1
        assert "the key that `[signatures]`" in done.stderr
        assert "is not there" in done.stderr


def test_policies_of_containers(aerogel: Aerogel, registry: Server, tmp_path: Path) -> None:
    good, bad = f"{registry.host}/pod/app:good", f"{registry.host}/pod/app:bad"
    for name in (good, bad):
        pushed(Aerogel(tmp_path / "maker"), name, tmp_path)
    aerogel("key", "generate", "-o", f"{tmp_path}/k")
    aerogel("sign", "--key", f"{tmp_path}/k.key", good)
    place = tmp_path / "config" / "containers" / "policy.json"
    place.parent.mkdir(parents=True)
    repository = {"type": "matchRepository"}
    asked = {"type": "sigstoreSigned", "keyPath": f"{tmp_path}/k.pub", "signedIdentity": repository}

    def told(name: str, rules: list[object]) -> str:
        policy = {"default": [{"type": "reject"}], "transports": {"docker": {f"{registry.host}/pod": rules}}}
        place.write_text(json.dumps(policy))
        return aerogel("pull", name, check=False).stderr

    assert "error" not in told(good, [asked])
    assert "has no signature by" in told(bad, [asked])
    assert "error" not in told(bad, [{"type": "insecureAcceptAnything"}])
    assert "rejects it" in told(good, [{"type": "reject"}])
    data = base64.b64encode((tmp_path / "k.pub").read_bytes()).decode()
    assert "error" not in told(good, [{"type": "sigstoreSigned", "keyData": data, "signedIdentity": repository}])
    # cosign signs for a repository without its tag, so the default of policy.json takes digests only.
    assert "has no signature by" in told(good, [{"type": "sigstoreSigned", "keyData": data}])
    assert "asks for `signedBy`" in told(good, [{"type": "signedBy", "keyPath": "/x"}])
    assert "is no policy" in told(good, [])
    place.write_text("{")
    assert "is no policy" in aerogel("pull", good, check=False).stderr


def test_an_image_of_the_store_is_asked_about(
    aerogel: Aerogel, registry: Server, told: Callable[[str], Path], tmp_path: Path
) -> None:
    """By its tag, wherever it is built upon or run: what was pulled before there was a rule, or came in an archive."""
    name = f"{registry.host}/store/app:1"
    maker = Aerogel(tmp_path / "maker")
    pushed(maker, name, tmp_path)
    maker("save", "-o", f"{tmp_path}/app.tar", name)
    aerogel("pull", "-q", name)
    from_it, copies = tmp_path / "from", tmp_path / "copies"
    for folder, text in (
        (from_it, f"FROM {name}\nLABEL x=y\n"),
        (copies, f"FROM scratch\nCOPY --from={name} / /all\n"),
    ):
        folder.mkdir()
        (folder / "Dockerfile").write_text(text)
    uses = (("build", str(from_it)), ("build", str(copies)), ("run", name, "/x"), ("debug", name, "true"))
    uses += (("run", "--pull=never", name, "/x"), ("manifest", "create", "several:1", name))
    for _ in range(2):  # from now on it would be told again without a look at the bases
        aerogel("build", "-q", str(from_it))
    config = told(f'"{registry.host}" = "team.pub"')
    aerogel("key", "generate", "-o", f"{config}/team")
    for words in uses:
        done = aerogel(*words, check=False)
        assert (done.returncode != 0, "has no signature by" in done.stderr) == (True, True), (words, done.stderr)
    assert f"`aerogel tag {name} {name}` makes it yours" in aerogel("build", str(from_it), check=False).stderr
    # An archive tells a name, which proves nothing.
    loaded = aerogel("load", "-i", f"{tmp_path}/app.tar")
    assert f"warning: `{name}` is not used as it came" in loaded.stderr
    assert "has no signature by" in aerogel("build", str(from_it), check=False).stderr
    # Who works here may say that it is theirs; what is built here is.
    aerogel("tag", name, name)
    aerogel("build", "-q", str(from_it))
    own = f"{registry.host}/store/own:1"
    aerogel("build", "-q", "-t", own, str(from_it))
    (from_it / "Dockerfile").write_text(f"FROM {own}\nLABEL a=b\n")
    aerogel("build", "-q", str(from_it))
    assert "has no signature" not in aerogel("run", "--pull=never", own, "/x", check=False).stderr
    # Signed there, it is used from the store, and the registry is not needed any more.
    (from_it / "Dockerfile").write_text(f"FROM {name}\nLABEL x=y\n")
    aerogel("rmi", "-f", name)
    aerogel("sign", "--key", f"{config}/team.key", name)
    aerogel("pull", "-q", name)
    aerogel("build", "-q", str(from_it))


def test_a_signature_that_came_along_is_believed_without_a_network(
    aerogel: Aerogel, registry: Server, told: Callable[[str], Path], tmp_path: Path
) -> None:
    """Bundles refer to the image, so they are in OCI archives, and in the store of who pulled before there was a rule."""
    name = f"{registry.host}/along/app:1"
    maker = Aerogel(tmp_path / "maker")
    pushed(maker, name, tmp_path)
    config = told(f'"{registry.host}" = "team.pub"')
    aerogel("key", "generate", "-o", f"{config}/team")
    aerogel("sign", "--key", f"{config}/team.key", name)
    maker("copy", f"docker://{name}", f"oci-archive:{tmp_path}/app.tar:{name}")
    maker("pull", "-q", name)
    (tmp_path / "Dockerfile").write_text(f"FROM {name}\nLABEL x=y\n")
    offline = {"AEROGEL_KEY_PASSWORD": PASSWORD, "XDG_CONFIG_HOME": str(tmp_path / "config")}
    offline |= {"HTTP_PROXY": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9", "NO_PROXY": ""}
    assert "warning" not in aerogel("load", "-i", f"{tmp_path}/app.tar").stderr
    before = registry.log
    for machine in (aerogel, maker):
        machine("build", "-q", str(tmp_path), env=offline)
    assert registry.log == before, "nothing was asked of the registry"


@pytest.mark.network
def test_a_signature_is_for_one_name(
    aerogel: Aerogel,
    registry: Server,
    told: Callable[[str], Path],
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Signed as `dev` by cosign in both forms, and by aerogel: the same digest under another name is not what was signed."""
    real = cosign.fetch(tmp_path_factory.mktemp("cosign"))
    config = told("")
    aerogel("key", "generate", "-o", f"{config}/team")
    host, maker = registry.host, Aerogel(tmp_path / "maker")
    words = ("--tlog-upload=false", "-y", "--key", f"{config}/team.key")
    (tmp_path / "said").write_text("{}")
    # A signature in a bundle is a statement of this kind about nothing but the image.
    bundled = ("attest", "--new-bundle-format", "--type", SIGNED, "--predicate", f"{tmp_path}/said")

    def pull(target: str, rule: str) -> str:
        told(f'"{host}/{target}" = {rule}')
        return aerogel("pull", f"{host}/{target}:1", check=False).stderr

    for form in ("tag", "bundle", "ours"):
        name = f"{host}/dev/{form}:1"
        digest = pushed(maker, name, tmp_path)
        if form == "ours":
            aerogel("sign", "--key", f"{config}/team.key", name)
            # cosign takes such a bundle, whose subject has a name. (It wants a trusted root, also where it trusts a key.)
            (tmp_path / "root").write_text('{"mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1"}')
            trust = ("--key", f"{config}/team.pub", "--insecure-ignore-tlog=true", "--trusted-root", f"{tmp_path}/root")
            real("verify-attestation", "--new-bundle-format", "--type", SIGNED, *trust, name)
        else:
            real(
                *(bundled if form == "bundle" else ("sign",)),
                *words,
                name.replace(":1", f"@{digest}"),
                password=PASSWORD,
            )
        aerogel("copy", f"docker://{name}", f"docker://{host}/prod/{form}:1")
        moved = pull(f"prod/{form}", '"team.pub"')
        assert f"it is signed as `{host}/dev/{form}`" in moved, moved
        assert "`signed-for` in `[signatures]` says from where" in moved
        assert "error" not in pull(f"prod/{form}", f'{{ key = "team.pub", signed-for = "{host}/dev/{form}" }}')
    assert "error" not in pull("dev/tag", '"team.pub"')
    assert "error" not in pull("prod/tag", '{ key = "team.pub", signed-for = "any" }')
    assert "it is signed as" in pull("prod/tag", f'{{ key = "team.pub", signed-for = "{host}/prod" }}')
