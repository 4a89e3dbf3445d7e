"""Base images composed from Debian packages."""
