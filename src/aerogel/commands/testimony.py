"""What a build without anything to do tells its witness, so that the next one need not even look (`cli.replay`).

Only for builds whose options and sources are all of kinds that are known to be told whole: an option that is not
listed here keeps a build from being answered again, and so does a source that is no folder of this host.
"""

from __future__ import annotations

from aerogel.commands.build_model import Build
from aerogel.commands.contexts import Contexts
from aerogel.commands.world import World
from aerogel.export.image import Exported
from aerogel.graph.ops import Base, Git, Http
from aerogel.graph.steps import Graph
from aerogel.oci.digest import Digest
from aerogel.oci.reference import Reference
from aerogel.settings import config_paths
from aerogel.solve.solver import Solver

__all__ = ["testify"]

_TOLD = frozenset({
    "add_host", "allow", "annotation", "bases", "build_arg", "ca", "compression", "context", "file",
    "insecure_registry", "isolation", "jobs", "label", "load", "mirror", "network", "platform", "quiet", "shm_size",
    "tag", "target", "timeout", "ulimit",
})  # fmt: skip
"""Options whose value is in the key of the answer and means nothing but what the witness hears of."""


def testify(
    options: Build,
    world: World,
    contexts: Contexts,
    graph: Graph,
    solver: Solver,
    image: Exported,
    references: list[Reference],
) -> None:
    """Tells of the files that decided the result of this build, in which every step was CACHED or SKIPPED."""
    witness, store = world.witness, world.store
    plain = Build(context=options.context)
    for name in Build.__struct_fields__:
        if name not in _TOLD and getattr(options, name) != getattr(plain, name):
            witness.doubt(f"--{name}")
    for name, value in options.build_arg.items():
        if value is None:
            # Some variables of the environment are not in the key of the answer.
            witness.doubt(name)
    if any(isinstance(side.op, Http | Git) for step in graph.steps for side in step.node.inputs):
        witness.doubt("a remote source")
    read = {file.source.name for file in world.settings.files}
    for place in config_paths(world.settings.environment, world.settings.directory):
        witness.look(place)
        if str(place) in read and not place.is_file():
            witness.doubt(str(place))
    contexts.testify()
    if not isinstance(graph.target.node.op, Base):
        witness.keep(store.actions.path(solver.key(graph.target.node)))
    names = [path for reference in references for path in store.images.paths(reference)]
    names += store.images.paths_of(image.descriptor.digest)
    blobs: list[Digest] = [image.image_id, *(layer.digest for layer in image.layers)]
    for path in [*names, *map(store.blobs.path, blobs)]:
        witness.keep(path)
    for reference in references:
        # Another process may have given the name to another image meanwhile.
        found = store.images.resolve(reference)
        if found is None or found.digest != image.descriptor.digest:
            witness.doubt(str(reference))
    witness.swear()
