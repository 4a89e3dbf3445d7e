"""The commands: name, module, one line of help, other names. Nothing of a command is imported to list them."""

from __future__ import annotations

__all__ = ["COMMANDS", "Command", "find_command", "instead_of"]


class Command:
    """One command. `module` has an options Struct, a result Struct and `run(options, world)`."""

    __slots__ = ("aliases", "group", "help", "module", "name")

    def __init__(self, name: str, module: str, summary: str, *, group: str, aliases: tuple[str, ...] = ()) -> None:
        self.name = name
        self.module = module if "." in module else f"aerogel.commands.{module}"
        self.help = summary
        self.group = group
        self.aliases = aliases


BUILD, FILES, STORE, HOST = "Build and run", "Dockerfiles", "Images", "Host"
BASES = "Base images"

COMMANDS = (
    Command(
        "build",
        "build",
        "Build an image from a Dockerfile",
        group=BUILD,
        aliases=("buildx build", "buildx b", "image build", "builder build"),
    ),
    Command(
        "bake",
        "bake",
        "Build the targets of a bake or compose file in one go",
        group=BUILD,
        aliases=("buildx bake", "buildx f"),
    ),
    Command("run", "run", "Run a command in an image", group=BUILD, aliases=("container run",)),
    Command("test", "test", "Run structure tests on an image", group=BUILD),
    Command("debug", "debug", "Open a shell in an image or beside a container, with tools from outside", group=BUILD),
    Command("debug last", "debug_last", "Open a shell where a step of a build failed", group=BUILD),
    Command("exec", "exec", "Run a command in a running container", group=BUILD, aliases=("container exec",)),
    Command("ps", "ps", "List containers", group=BUILD, aliases=("container ls", "container ps", "container list")),
    Command("logs", "logs", "Print the output of a container", group=BUILD, aliases=("container logs",)),
    Command("stop", "stop", "Stop containers", group=BUILD, aliases=("container stop",)),
    Command("kill", "kill", "Send a signal to containers", group=BUILD, aliases=("container kill",)),
    Command("start", "start", "Start containers that have ended", group=BUILD, aliases=("container start",)),
    Command("restart", "restart", "Stop containers and start them again", group=BUILD, aliases=("container restart",)),
    Command("wait", "wait", "Wait until containers have ended", group=BUILD, aliases=("container wait",)),
    Command(
        "attach", "attach", "Join the terminal with a running container", group=BUILD, aliases=("container attach",)
    ),
    Command("cp", "cp", "Copy files between a container and this host", group=BUILD, aliases=("container cp",)),
    Command("port", "port", "List the published ports of a container", group=BUILD, aliases=("container port",)),
    Command("top", "top", "Show the processes of a container", group=BUILD, aliases=("container top",)),
    Command("stats", "stats", "Show what containers use of the machine", group=BUILD, aliases=("container stats",)),
    Command("rename", "rename", "Give a container another name", group=BUILD, aliases=("container rename",)),
    Command(
        "pause", "pause", "Stop all processes of containers for a while", group=BUILD, aliases=("container pause",)
    ),
    Command("unpause", "unpause", "Let paused containers go on", group=BUILD, aliases=("container unpause",)),
    Command("container prune", "container_prune", "Remove containers that have ended", group=BUILD),
    Command("volume ls", "volume_ls", "List volumes", group=BUILD, aliases=("volume list",)),
    Command("volume create", "volume_create", "Make a volume", group=BUILD),
    Command("volume inspect", "volume_inspect", "Show everything about volumes as JSON", group=BUILD),
    Command("volume rm", "volume_rm", "Remove volumes", group=BUILD, aliases=("volume remove",)),
    Command("volume prune", "volume_prune", "Remove volumes that no container has", group=BUILD),
    Command("rm", "rm", "Remove containers", group=BUILD, aliases=("container rm", "container remove")),
    Command("base list", "base_list", "List the base images that are composed here", group=BASES, aliases=("base ls",)),
    Command("base show", "base_show", "Show what a base image is made of", group=BASES),
    Command("base build", "base_build", "Build a base image from its declaration", group=BASES),
    Command("base init", "base_init", "Write a declaration of a base to begin with", group=BASES),
    Command("base lock", "base_lock", "Write down which packages a base means", group=BASES),
    Command("base update", "base_update", "Move the lock of a base to the packages of today", group=BASES),
    Command("base diff", "base_diff", "Show what differs between two locks", group=BASES),
    Command("base why", "base_why", "Tell what pulled a package into a base", group=BASES),
    Command("base vendor", "base_vendor", "Copy the packages of a lock into a folder", group=BASES),
    Command("why", "why", "Tell why steps of a build ran again", group=BUILD),
    Command(
        "history",
        "history",
        "List past builds, one build's steps and times, or an image's layers",
        group=BUILD,
        aliases=("image history", "buildx history"),
    ),
    Command("lint", "lint", "Check Dockerfiles against the rules of docker's build checks", group=FILES),
    Command("graph", "graphing", "Show the build graph of a Dockerfile", group=FILES),
    Command("format", "formatting", "Write Dockerfiles in house form", group=FILES),
    Command("images", "images", "List images", group=STORE, aliases=("image ls", "image list")),
    Command(
        "inspect",
        "inspect",
        "Show everything about containers, images or volumes as JSON",
        group=STORE,
        aliases=("image inspect", "container inspect"),
    ),
    Command(
        "pull", "pull", "Bring an image from a registry into the local store", group=STORE, aliases=("image pull",)
    ),
    Command("push", "push", "Send an image of the local store to a registry", group=STORE, aliases=("image push",)),
    Command("copy", "copy", "Copy an image between registries, files and the local store", group=STORE),
    Command(
        "manifest inspect",
        "manifest_inspect",
        "Print the manifest or the index of an image",
        group=STORE,
        aliases=("manifest",),
    ),
    Command("manifest create", "manifest_create", "Make a list of images for several platforms", group=STORE),
    Command("manifest annotate", "manifest_annotate", "Say for which platform an image of a list is", group=STORE),
    Command("manifest push", "manifest_push", "Send a list and its images to a registry", group=STORE),
    Command("manifest rm", "manifest_rm", "Remove lists from the local store", group=STORE),
    Command("registry serve", "registry_serve", "Serve the local store as a registry", group=STORE, aliases=("serve",)),
    Command("sign", "sign", "Sign an image in a registry with a key", group=STORE),
    Command("attest", "attest", "Sign a statement about an image in a registry: SBOM, provenance, scan", group=STORE),
    Command("verify", "verify", "Check that an image in a registry is signed, or attested, by a key", group=STORE),
    Command(
        "key generate",
        "key_generate",
        "Make a pair of keys for signatures",
        group=STORE,
        aliases=("generate-key-pair",),
    ),
    Command("k8s", "k8s", "Print a Kubernetes Deployment that fits an image", group=STORE),
    Command("login", "login", "Keep the credentials of a registry", group=STORE),
    Command("logout", "logout", "Forget the credentials of a registry", group=STORE),
    Command("sbom", "sbom", "List the packages that an image holds", group=STORE),
    Command("vex", "vex", "Tell which vulnerabilities cannot be in an image", group=STORE),
    Command("save", "save", "Write images to an archive", group=STORE, aliases=("image save",)),
    Command("load", "load", "Read images from an archive into the local store", group=STORE, aliases=("image load",)),
    Command("tag", "tag", "Give an image one more name", group=STORE, aliases=("image tag",)),
    Command("rmi", "rmi", "Remove images, or some of their names", group=STORE, aliases=("image rm", "image remove")),
    Command("du", "du", "Show what the local store takes on the disk", group=STORE, aliases=("system df",)),
    Command(
        "prune",
        "prune",
        "Remove what no image needs",
        group=STORE,
        aliases=("system prune", "builder prune", "buildx prune", "image prune"),
    ),
    Command("cache ls", "cache_ls", "List the directories of RUN's cache mounts", group=STORE, aliases=("cache list",)),
    Command("cache export", "cache_export", "Write directories of RUN's cache mounts to an archive", group=STORE),
    Command("cache import", "cache_import", "Read directories of RUN's cache mounts from an archive", group=STORE),
    Command("cache rm", "cache_rm", "Remove directories of RUN's cache mounts", group=STORE, aliases=("cache remove",)),
    Command("doctor", "doctor", "Check what this host can do", group=HOST),
    Command("completion", "aerogel.cli.completion", "Print a completion script for a shell", group=HOST),
    Command("version", "version", "Show versions of aerogel and of what it uses", group=HOST),
)


_ABSENT = {
    (
        "container",
        "update",
    ): "`aerogel ps`, `logs`, `exec`, `attach`, `cp`, `stop`, `start`, `kill`, `wait`, `inspect` and `rm` are there",
    ("diff",): "`aerogel cp` takes files out of a container, `aerogel debug` shows them",
    ("create",): "`aerogel run` makes a container and starts it",
    ("commit",): "write the change as an instruction of a Dockerfile",
    ("export",): "`aerogel cp CONTAINER:/ -` writes the files of a container as a tar",
    ("import",): "write `FROM scratch` and `ADD root.tar /` into a Dockerfile",
    (
        "compose",
    ): "`aerogel bake -f compose.yaml` builds the images of a compose file; starting services is not done here",
    ("events", "info"): "`aerogel doctor` tells about the host, `aerogel history` about builds",
    ("network",): "commands have the host's network; `aerogel run --network none` takes it away",
    ("scout",): "`aerogel sbom IMAGE` lists what an image holds",
    ("search",): "names of images are found on the pages of their registry",
    ("config", "context", "node", "plugin", "secret", "service", "stack", "swarm"): "there is no daemon to manage",
}
"""What to use instead of docker's commands that are not there."""


def instead_of(words: list[str]) -> tuple[str, str, list[str]]:
    """For the words of no command: its name, what to use instead of docker's, and the names that begin like it."""
    family = [name for one in COMMANDS for name in (one.name, *one.aliases) if name.startswith(f"{words[0]} ")]
    name = " ".join(words[:2]) if family and words[1:] and not words[1].startswith("-") else words[0]
    instead = next((instead for names, instead in _ABSENT.items() if words[0] in names), "")
    return name, instead, family


def find_command(words: list[str]) -> tuple[Command, list[str]] | None:
    """The command that the words begin with and the words after it; docker's two-word names count as one."""
    for length in (2, 1):
        name = " ".join(words[:length])
        if len(words) < length:
            continue
        for command in COMMANDS:
            if name == command.name or name in command.aliases:
                return command, words[length:]
    return None
