"""aerogel: the smallest, safest container image that provably runs, from a Dockerfile."""

__version__ = "0.1.0"
