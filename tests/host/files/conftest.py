"""Makes the fixture of `layer_trees` known."""

from layer_trees import overlays

__all__ = ["overlays"]
