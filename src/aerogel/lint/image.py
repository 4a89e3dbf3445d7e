"""The rules that need a finished image: their names and summaries. What they find: `aerogel.checks`, `commands.starting`.

They are aerogel's own: docker's build checks do not have them. A page per rule: `docs/lint/`.
"""

from __future__ import annotations

from aerogel.lint.rule import Rule

__all__ = ["IMAGE_RULES"]

IMAGE_RULES = (
    Rule("LibraryTooOld", "The image's libraries have the versions that added programs need", None),
    Rule("MissingCertificates", "An image whose programs speak TLS has certificates of authorities", None),
    Rule("MissingLibrary", "The image has every library that added programs need", None),
    Rule("MissingLoader", "A dynamically linked program finds its loader in the image", None),
    Rule("MissingProgram", "The image has the programs of ENTRYPOINT, CMD and HEALTHCHECK, and can start them", None),
    Rule("MissingTimeZones", "The image has the time zones that are asked for", None),
    Rule("PythonVersionMismatch", "Python packages are for the image's version of Python", None),
    Rule("WrongArchitecture", "Programs are built for the machine of the image", None),
)
"""In the order of their names."""
