"""What a request can die of: `HttpError` with a stable code, and urllib3's exceptions turned into it.

Messages hold the method and the redacted URL, never a credential.

Exception tree::

    AerogelError
    └── HttpError     net.*: a request that got no usable answer; exit status 4
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import urlsplit

from aerogel.errors import EXIT_NETWORK, AerogelError
from aerogel.net.proxy import redact

__all__ = ["HttpError", "translated"]


class HttpError(AerogelError):
    """A request without a usable answer. `status` is 0 when there was no answer at all; `url` is redacted."""

    def __init__(
        self,
        what: str,
        *,
        code: str,
        method: str,
        url: str,
        status: int = 0,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        temporary: bool = False,
        retry_after_s: float | None = None,
        is_refused: bool = False,
        hints: Iterable[str] = (),
    ) -> None:
        answered = f"{status}, " if status and not what.startswith(str(status)) else ""
        super().__init__(
            f"{method} {redact(url)}: {answered}{what}",
            code=code,
            hints=tuple(hints),
            exit_status=EXIT_NETWORK,
            temporary=temporary,
        )
        self.method = method
        self.url = redact(url)
        self.status = status
        self.headers = headers or {}
        self.body = body
        self.retry_after_s = retry_after_s
        self.is_refused = is_refused
        """The host is there, and nothing listens on the port."""


@contextlib.contextmanager
def translated(method: str, url: str, target: str, status: int = 0) -> Iterator[None]:
    """Turns urllib3's exceptions into `HttpError` with a stable code and no secret in the text.

    `status` is that of the answer whose body is read.
    """
    import http.client

    from urllib3 import exceptions as faults

    def error(
        what: str, code: str, *, temporary: bool = True, is_refused: bool = False, hints: Iterable[str] = ()
    ) -> HttpError:
        made = HttpError(what, code=code, method=method, url=url, status=status, temporary=temporary, hints=hints)
        made.is_refused = is_refused
        return made

    parts = urlsplit(target)
    host = parts.hostname or "?"
    try:
        yield
    except faults.NameResolutionError:
        raise error(
            f"the host name `{host}` cannot be resolved",
            "net.unreachable",
            temporary=False,
            hints=["check the network and the name; is a proxy needed (`HTTP_PROXY`, `HTTPS_PROXY`)?"],
        ) from None
    except faults.ProxyError as fault:
        raise error(f"the proxy refuses: {_reason(fault)}", "net.proxy", temporary=False) from None
    except faults.NewConnectionError as fault:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        is_refused = isinstance(fault.__cause__, ConnectionRefusedError)
        hint = f"nothing listens on port {port} of `{host}`: check name and port, and whether the server runs"
        raise error(
            f"`{host}` cannot be reached: {_reason(fault)}",
            "net.unreachable",
            is_refused=is_refused,
            hints=[hint] if is_refused else [],
        ) from None
    except faults.ConnectTimeoutError:
        raise error(f"`{host}` does not answer", "net.unreachable") from None
    except (faults.ReadTimeoutError, TimeoutError):
        raise error("the server stopped sending", "net.timeout") from None
    except faults.SSLError as fault:
        raise error(
            f"the TLS connection to `{host}` fails: {_reason(fault)}",
            "net.tls",
            temporary=False,
            hints=["if the network has a certificate authority of its own, name it with `--ca` or SSL_CERT_FILE"],
        ) from None
    except (faults.LocationParseError, faults.LocationValueError) as fault:
        raise error(f"the address cannot be used: {_reason(fault)}", "net.url", temporary=False) from None
    except (faults.ProtocolError, faults.HTTPError, http.client.HTTPException, OSError) as fault:
        raise error(_breach(fault), "net.cut") from None


def _breach(fault: BaseException) -> str:
    """How a connection ended before its time."""
    from urllib3.exceptions import IncompleteRead

    cut = fault.__cause__
    if isinstance(cut, IncompleteRead) and isinstance(cut.expected, int):
        return f"the connection was cut after {cut.partial} of {cut.partial + cut.expected} bytes"
    return f"the connection broke: {_reason(fault)}"


def _reason(fault: BaseException) -> str:
    """The system's own words at the bottom of a chain of exceptions."""
    deepest: BaseException = fault
    for _ in range(8):
        inner = deepest.__cause__ or deepest.__context__
        if inner is None:
            nested = [arg for arg in deepest.args if isinstance(arg, BaseException)]
            inner = nested[0] if nested else None
        if inner is None:
            break
        deepest = inner
    text = deepest.strerror if isinstance(deepest, OSError) and deepest.strerror else str(deepest)
    return text.lower() if text.isascii() and text[1:2].islower() else text
