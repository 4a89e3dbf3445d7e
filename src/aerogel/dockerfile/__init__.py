"""From the bytes of a Dockerfile to a syntax tree with spans. Pure."""
