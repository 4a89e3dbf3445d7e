"""Debian archives: signatures, indexes, dependencies, packages."""
