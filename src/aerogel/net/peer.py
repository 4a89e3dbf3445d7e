"""What one host is trusted with and told, beside what holds for all: certificates, a key of ours, headers.

Values only, and the TLS context that they make. It holds for the host that was asked, never for where that redirects to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from aerogel.errors import EXIT_USAGE, AerogelError

if TYPE_CHECKING:
    import ssl

__all__ = ["NOBODY", "Peer", "read_certificates", "system_file", "tls_context"]


_BUNDLES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")
"""Where distributions have the system's certificates in one file."""


class Peer(msgspec.Struct, frozen=True, kw_only=True):
    """One host. Files are PEM; `clients` are certificate and key, the key empty when both are in one file.

    `attempts` is how often a request is tried, 0 for as often as others.
    """

    authorities: tuple[str, ...] = ()
    """Files of certificates that are trusted beside the system's."""
    clients: tuple[tuple[str, str], ...] = ()
    is_verified: bool = True
    """Whether its certificate must be one that is trusted."""
    headers: tuple[tuple[str, str], ...] = ()
    attempts: int = 0

    def trust(self) -> tuple[object, ...]:
        """What decides the TLS context."""
        return (self.authorities, self.clients, self.is_verified)

    def without_secrets(self) -> Peer:
        """What its token server, another host, is trusted with."""
        return Peer(authorities=self.authorities, is_verified=self.is_verified, attempts=self.attempts)


NOBODY = Peer()
"""A host that nothing is known of."""


def tls_context(peer: Peer, ca: str) -> ssl.SSLContext:
    """`ca` is `auto` (the system's trust store, SSL_CERT_FILE) or a file or folder. Raises `net.ca`."""
    import os
    import ssl

    context = ssl.create_default_context()
    for place in (*((ca,) if ca not in ("auto", "none", "") else ()), *peer.authorities):
        try:
            if os.path.isdir(place):
                context.load_verify_locations(capath=place)
            else:
                context.load_verify_locations(cafile=place)
        except (OSError, ssl.SSLError) as error:
            raise _unusable("certificates", place, error) from None
    for certificate, key in peer.clients:
        try:
            # Without the function OpenSSL asks the terminal for the password of an encrypted key.
            context.load_cert_chain(certificate, key or None, password=_no_password)
        except (OSError, ssl.SSLError, ValueError) as error:
            raise _unusable("the client certificate", certificate, error) from None
    if not peer.is_verified:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def system_file(named: str) -> str | None:
    """The system's certificates in one file, which `named` (SSL_CERT_FILE) replaces; None where there is none."""
    import os
    import ssl

    places = (named, ssl.get_default_verify_paths().cafile, *_BUNDLES)
    return next((path for path in places if path and os.path.isfile(path)), None)


def read_certificates(place: str) -> bytes:
    """The certificates of a file, or of the files of a folder. Raises `net.ca`."""
    import os
    import ssl

    try:
        names = sorted(os.listdir(place)) if os.path.isdir(place) else []
        paths = [path for name in names if os.path.isfile(path := os.path.join(place, name))] or [place]
        data = b"\n".join(_content(path) for path in paths)
        ssl.create_default_context(cadata=data.decode("ascii", "ignore"))
    except (OSError, ssl.SSLError, ValueError) as error:
        raise _unusable("certificates", place, error) from None
    return data


def _content(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _no_password() -> str:
    raise ValueError("its key is encrypted")


def _unusable(what: str, place: str, error: Exception) -> AerogelError:
    told = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return AerogelError(f"cannot read {what} from `{place}`: {told}", code="net.ca", exit_status=EXIT_USAGE)
