"""What `aerogel base list` says, the names in FROM that it means, and the catalogue of the project's goal."""

from __future__ import annotations

from own_bases import AMD64, DECLARATION, Archive, Base

from aerogel.distroless.catalogue import built_in, choose

SIX = ("amd64", "arm64", "arm/v7", "s390x", "ppc64le", "riscv64")
BOTH = {"trixie": SIX, "bookworm": SIX[:-1]}
NODE = dict.fromkeys(("trixie", "bookworm"), SIX[:2])
DISTROLESS = {
    **dict.fromkeys(("static", "base-nossl", "base", "cc", "python3", "java-base"), BOTH),
    "python3.14": {"forky": SIX},
    "java17": {"bookworm": SIX[:-1]},
    "java21": {"trixie": SIX},
    "java25": {"trixie": SIX},
    **dict.fromkeys(("nodejs22", "nodejs24", "nodejs26"), NODE),
    **dict.fromkeys(("dotnet-deps", "dotnet-deps-icu", "ruby", "php", "nginx", "perl"), BOTH),
    "dotnet": {"bullseye": ("amd64",)},
}
"""The catalogue, with releases and platforms where Debian, npm or PyPI have what is in them."""
BUILD = {
    **dict.fromkeys(("debian", "python3-build", "java-build", "go-build", "cc-build"), BOTH),
    **dict.fromkeys(("nodejs22-build", "nodejs24-build", "nodejs26-build"), NODE),
}
VARIANTS = ("latest", "nonroot", "debug", "debug-nonroot")
ONLY_HERE = ("python3.14", "dotnet-deps", "dotnet-deps-icu", "dotnet", "ruby", "php", "nginx", "perl")


def test_the_whole_catalogue_is_listed(base: Base):
    listed = {one["name"]: one for one in base.data("base", "list")["bases"]}
    assert listed.keys() == DISTROLESS.keys() | BUILD.keys()
    for name, releases in (DISTROLESS | BUILD).items():
        one = listed[name]
        assert tuple(one["releases"]) == tuple(releases)
        extra = {"linux/386"} if name in BUILD and releases is not NODE else set()
        assert set(one["platforms"]) == {f"linux/{each}" for each in next(iter(releases.values()))} | extra
        for release, platforms in releases.items():
            assert set(built_in(name).platforms_of(release)) == {f"linux/{each}" for each in platforms} | extra
        if name in DISTROLESS:
            assert set(one["tags"]) == {*VARIANTS, "parity", *(f"{each}-parity" for each in VARIANTS)}
            upstream = [] if name in ONLY_HERE else [f"gcr.io/distroless/{name}"]
            assert one["names"] == [*upstream, f"aerogel/{name}"]


def test_every_name_with_every_tag_is_what_the_list_says(base: Base):
    """`NAME`, `NAME-debian13`, `NAME-debian12`, each alone and with each tag; other releases and tags are nothing."""
    numbers = {"trixie": "13", "bookworm": "12"}
    asked = 0
    for one in base.data("base", "list")["bases"]:
        for repository in one["names"]:
            if one["name"] in BUILD:
                for tag in ("", *one["tags"]):
                    found = choose(repository + (tag and f":{tag}"))
                    assert found is not None
                    assert found.family.name == one["name"]
                    older = any(word in tag for word in ("bookworm", "12", "oldstable"))
                    assert found.release == ("bookworm" if older else "trixie")
                    assert found.variant == ("slim" if tag.endswith("slim") else "latest")
                    asked += 1
                continue
            of = {"": one["releases"][0]} | {
                f"-debian{numbers[each]}": each for each in one["releases"] if each in numbers
            }
            for ending, release in of.items():
                for tag in ("", *one["tags"]):
                    found = choose(repository + ending + (tag and f":{tag}"))
                    assert found is not None, (repository, ending, tag)
                    variant = tag.removesuffix("parity").rstrip("-") or "latest"
                    profile = "parity" if tag.endswith("parity") else None
                    assert (found.family.name, found.release) == (one["name"], release)
                    assert (found.variant, found.profile) == (variant, profile)
                    assert choose(found.name) == found
                    asked += 1
            others = {f"-debian{number}" for number in (10, 11, 12, 13, 14)} - of.keys()
            assert [each for each in others if choose(repository + each) is not None] == []
            assert [
                tag for tag in ("v1", "debian13", "debug-root", "parity-debug") if choose(f"{repository}:{tag}")
            ] == []
    assert asked > 500


def test_a_distroless_base_is_for_no_machine_of_386(base: Base):
    """Debian has packages for it, and build roots are made of them; upstream has no image, so there is none here."""
    for name in (name for name, releases in DISTROLESS.items() if releases is BOTH):
        base("base", "build", "--platform", "linux/386", f"aerogel/{name}", status=2)
        assert "-debian13:latest` is not made for `linux/386`\n" in base.said
        assert f"\nhint: platforms are {', '.join(f'linux/{each}' for each in SIX)}\n" in base.said


def test_all_bases_of_a_build_are_of_one_state_of_the_archive(base: Base, archive: Archive):
    """What builds and what runs have one version of each library, also while the mirror moves on."""
    base.write("base.yaml", DECLARATION)
    base.write("Dockerfile", "FROM ./base.yaml AS build\nFROM aerogel/static\nCOPY --from=build /usr/bin/tool /\n")
    for number in (1, 2):
        archive.server.seen.clear()
        base("build", *AMD64, "--pull", "-t", "app", ".")
        asked = [path for path in archive.server.paths() if path.endswith("/dists/trixie/InRelease")]
        assert len(asked) == 1, number
