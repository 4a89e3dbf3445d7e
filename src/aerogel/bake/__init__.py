"""Bake files: what `docker-bake.hcl`, `docker-bake.json` and compose files say is to be built."""
