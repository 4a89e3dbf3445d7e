"""The one HTTP client: pooled connections, retries, proxies, resumed downloads, errors without secrets.

For: archive mirrors and registries. Not for: authentication schemes (a caller passes headers) or caching. Nothing
else in aerogel opens a network socket. urllib3 and TLS are imported by the first request, not before.
Spec: RFC 9110 (10.2.3 Retry-After, 13.1.5 If-Range, 14 ranges), RFC 9112.
"""

from __future__ import annotations

import contextlib
import io
import random
import threading
import time
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, BinaryIO, cast
from urllib.parse import urljoin, urlsplit, urlunsplit

import msgspec

from aerogel.errors import EXIT_USAGE, AerogelError
from aerogel.net.fault import HttpError, translated
from aerogel.net.library import load
from aerogel.net.parts import FilePart
from aerogel.net.peer import NOBODY, Peer, tls_context
from aerogel.net.proxy import proxy_for, redact
from aerogel.net.stream import pieces
from aerogel.net.transfer import Transfer

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse, PoolManager

__all__ = ["BODY_LIMIT", "Http", "HttpError", "Response", "redact"]

BODY_LIMIT = 64 << 20
"""Most bytes that `request` takes into memory unless told otherwise."""

ATTEMPTS = 4
CONNECT_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 30.0
LONGEST_WAIT_S = 60.0
"""A server that asks to wait longer than this gets no second try."""
SLOWEST_BYTES_S = 256
"""A transfer below this rate over one read timeout counts as stuck."""

_RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_SECRET_HEADERS = frozenset({"authorization", "cookie", "proxy-authorization"})

Body = bytes | Callable[[], Iterable[bytes | memoryview | FilePart]] | None
"""A request body; a callable makes it anew for each try."""


class Response(msgspec.Struct, frozen=True):
    """An answer. Header names are lower-case; `url` is where it came from after redirects, not redacted."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    url: str


class Http:
    """A client to be shared by all threads of a run; `close` drops its connections.

    `proxies` maps `http`, `https`, `all` to proxy URLs and `no` to the list of exceptions, as the environment
    variables do. `ca` is `auto` (the system's trust store, SSL_CERT_FILE) or a file or folder of certificates.
    """

    def __init__(
        self,
        *,
        proxies: Mapping[str, str] | None = None,
        ca: str = "auto",
        user_agent: str = "aerogel",
        attempts: int = ATTEMPTS,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        read_timeout_s: float = READ_TIMEOUT_S,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._proxies = dict(proxies or {})
        self._ca = ca
        self._user_agent = user_agent
        self._attempts = max(1, attempts)
        self._connect_timeout_s = connect_timeout_s
        self._read_timeout_s = read_timeout_s
        self._sleep = sleep
        self._managers: dict[tuple[str, object], PoolManager] = {}
        self._lock = threading.Lock()

    def close(self) -> None:
        """Closes idle connections; the client may be used again."""
        for manager in list(self._managers.values()):
            manager.clear()

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: Body = None,
        expect: Container[int] = (200,),
        limit: int = BODY_LIMIT,
        redirect: bool = True,
        repeats: bool = False,
        is_first: bool = False,
        peer: Peer = NOBODY,
    ) -> Response:
        """Sends a request and returns the whole answer, at most `limit` bytes of body.

        A status in `expect` is returned, any other is an error; faults that may pass (connection, 429, 5xx) are
        tried again. POST and PATCH are sent once only, unless the caller says that another one does no harm (`repeats`).
        With `is_first` a refused connection is not: what has not been there yet is no server that is just starting again.
        `peer` holds for the host of `url`, not for those that it redirects to.

        Raises:
            HttpError: `net.*`.
        """

        def run() -> Response:
            with self._exchange(method, url, headers, body, expect, peer, redirect=redirect) as (answer, final):
                found = io.BytesIO()
                self._pump(answer, method, url, found.write, limit)
                return Response(answer.status, _lowered(answer.headers), found.getvalue(), final)

        return self._retried(run, peer, once=method in ("POST", "PATCH") and not repeats, is_first=is_first)

    def download(
        self,
        url: str,
        file: BinaryIO,
        *,
        headers: Mapping[str, str] | None = None,
        size: int | None = None,
        limit: int | None = None,
        resume: bool = False,
        on_bytes: Callable[[int], object] | None = None,
        peer: Peer = NOBODY,
    ) -> Response:
        """Writes what a URL serves into a seekable file, and continues where a connection broke.

        `size` is the exact number of bytes expected, `limit` the most that are taken. With `resume` the file's
        present content is kept as a first part (the caller checks the digest of the whole). `on_bytes` gets the
        number of bytes that arrived, negative when a part is thrown away. The answer's body is empty.

        Raises:
            HttpError: `net.*`; `net.size-mismatch` when the server has another number of bytes than `size`.
        """
        transfer = Transfer(
            url, file, headers=dict(headers or {}), size=size, limit=limit, on_bytes=on_bytes or _ignore
        )
        transfer.start(keep=resume)

        def run() -> Response:
            at = transfer.at
            if size is not None and at == size:
                return Response(200, {}, b"", url)
            try:
                with self._exchange("GET", url, transfer.request_headers(), None, (200, 206, 416), peer) as (
                    answer,
                    final,
                ):
                    transfer.accept(answer)
                    self._pump(answer, "GET", url, transfer.write, transfer.allowed())
                    transfer.finish()
                    return Response(answer.status, _lowered(answer.headers), b"", final)
            except HttpError as error:
                # What trickles in is no progress: it would go on for hours.
                least = SLOWEST_BYTES_S * self._read_timeout_s if error.code == "net.timeout" else 1
                if error.temporary and transfer.at - at >= least and transfer.may_continue():
                    raise _Progressed(error) from None
                raise

        return self._retried(run, peer, once=False)

    def _retried(self, run: Callable[[], Response], peer: Peer, *, once: bool, is_first: bool = False) -> Response:
        failures, attempts = 0, min(self._attempts, peer.attempts or self._attempts)
        while True:
            try:
                return run()
            except _Progressed as progress:
                failures, error = 0, progress.error
            except HttpError as fault:
                failures, error = failures + 1, fault
            if once or not error.temporary or failures >= attempts or (is_first and error.is_refused):
                raise error
            wait = error.retry_after_s
            if wait is None:
                wait = min(20.0, 0.5 * 2 ** max(0, failures - 1)) * random.uniform(0.8, 1.2)
            elif wait > LONGEST_WAIT_S:
                raise error
            self._sleep(wait)

    @contextlib.contextmanager
    def _exchange(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None,
        body: Body,
        expect: Container[int],
        peer: Peer,
        *,
        redirect: bool = True,
    ) -> Iterator[tuple[BaseHTTPResponse, str]]:
        """One request with its redirects; the answer's body is not read yet and is dropped at the end."""
        answer, final = self._send(method, url, dict(headers or {}), body, peer, redirect=redirect)
        try:
            if answer.status not in expect:
                raise self._status_error(method, url, answer)
            yield answer, final
        except BaseException:
            answer.close()  # unread bytes make the connection useless
            raise
        answer.release_conn()

    def _send(
        self, method: str, url: str, headers: dict[str, str], body: Body, peer: Peer, *, redirect: bool
    ) -> tuple[BaseHTTPResponse, str]:
        first, private = url, _SECRET_HEADERS | {name.lower() for name, _ in peer.headers}
        for name, value in peer.headers:
            headers.setdefault(name, value)
        headers.setdefault("User-Agent", self._user_agent)
        headers.setdefault("Accept-Encoding", "identity")
        _check_address(url)
        for _ in range(10):
            target, credentials = _split_credentials(url)
            if credentials and "Authorization" not in headers:
                headers["Authorization"] = credentials
            answer = self._once(method, target, first, headers, body, peer)
            location = answer.headers.get("Location")
            if not redirect or answer.status not in _REDIRECTS or not location:
                return answer, target
            answer.close()
            url = _joined(target, location)
            fault = _refused_redirect(target, url)
            if fault:
                raise HttpError(
                    f"it redirects to `{redact(url)}`, which {fault}",
                    code="net.redirect",
                    method=method,
                    url=first,
                    status=answer.status,
                )
            old, new = urlsplit(target), urlsplit(url)
            if (old.scheme, old.hostname, old.port) != (new.scheme, new.hostname, new.port):
                headers = {name: value for name, value in headers.items() if name.lower() not in private}
                peer = NOBODY
            if answer.status == 303 or (answer.status in (301, 302) and method == "POST"):
                method, body = ("HEAD" if method == "HEAD" else "GET"), None
        raise HttpError(
            "it redirects more than 10 times", code="net.redirect", method=method, url=first, status=answer.status
        )

    def _once(
        self, method: str, url: str, first: str, headers: dict[str, str], body: Body, peer: Peer
    ) -> BaseHTTPResponse:
        load()
        import urllib3

        with translated(method, first, url):
            return self._manager(url, peer).request(
                method,
                url,
                # Views are sent like bytes; the annotation of urllib3 does not know.
                body=cast("Iterable[bytes] | bytes | None", body() if callable(body) else body),
                headers=headers,
                redirect=False,
                retries=False,
                preload_content=False,
                decode_content=False,
                timeout=urllib3.Timeout(connect=self._connect_timeout_s, read=self._read_timeout_s),
            )

    def _manager(self, url: str, peer: Peer) -> PoolManager:
        """The pool for a URL: one for direct connections, one per proxy, and that for each kind of trust."""
        parts = urlsplit(url)
        proxy = proxy_for(url, self._proxies)
        trust = peer.trust() if parts.scheme == "https" else None
        key = (proxy or parts.scheme, trust)
        with self._lock:
            found = self._managers.get(key)
            if found is None:
                load()
                from aerogel.net.sending import teach

                found = self._managers[key] = self._new_manager(parts.scheme, proxy, peer)
                teach(found)
        return found

    def _new_manager(self, scheme: str, proxy: str, peer: Peer) -> PoolManager:
        import urllib3

        context = tls_context(peer, self._ca) if scheme == "https" else None
        if not proxy:
            return urllib3.PoolManager(maxsize=16, ssl_context=context)
        address, credentials = _split_credentials(proxy)
        if urlsplit(address).scheme not in ("http", "https"):
            raise AerogelError(
                f"the proxy `{redact(proxy)}` is of a kind that is not supported",
                code="net.proxy",
                hints=["name a proxy as `http://host:port`"],
                exit_status=EXIT_USAGE,
            )
        is_secured = address.startswith("https:")
        return urllib3.ProxyManager(
            address,
            maxsize=16,
            ssl_context=context,
            proxy_ssl_context=tls_context(NOBODY, self._ca) if is_secured else None,
            proxy_headers={"Proxy-Authorization": credentials} if credentials else None,
        )

    def _pump(
        self,
        answer: BaseHTTPResponse,
        method: str,
        url: str,
        write: Callable[[bytes | memoryview], object],
        limit: int | None,
    ) -> None:
        """Passes the body on as it arrives; too many bytes, too few and a trickle are errors."""
        total = 0
        mark_s, mark_bytes = time.monotonic(), 0
        arriving = pieces(answer)
        while True:
            with translated(method, url, url, answer.status):
                piece = next(arriving, b"")
            if not piece:
                break
            total += len(piece)
            if limit is not None and total > limit:
                raise HttpError(
                    f"the answer is larger than the {limit} bytes allowed",
                    code="net.too-large",
                    method=method,
                    url=url,
                    status=answer.status,
                )
            write(piece)
            now = time.monotonic()
            if now - mark_s > self._read_timeout_s:
                if total - mark_bytes < SLOWEST_BYTES_S * self._read_timeout_s:
                    raise HttpError(
                        "the server sends almost nothing",
                        code="net.timeout",
                        method=method,
                        url=url,
                        status=answer.status,
                        temporary=True,
                    )
                mark_s, mark_bytes = now, total
        announced = answer.headers.get("Content-Length", "")
        if method != "HEAD" and announced.isdigit() and answer.status not in (204, 304) and total < int(announced):
            raise HttpError(
                f"the connection was cut after {total} of {announced} bytes",
                code="net.cut",
                method=method,
                url=url,
                status=answer.status,
                temporary=True,
            )

    def _status_error(self, method: str, url: str, answer: BaseHTTPResponse) -> HttpError:
        found = io.BytesIO()
        with contextlib.suppress(HttpError):  # the status says enough when its body does not arrive
            self._pump(answer, method, url, found.write, 1 << 16)
        wait = _retry_after(answer.headers.get("Retry-After", ""), answer.headers.get("Date", ""))
        return HttpError(
            f"{answer.status} {answer.reason or ''}".rstrip(),
            code="net.status",
            method=method,
            url=url,
            status=answer.status,
            headers=_lowered(answer.headers),
            body=found.getvalue(),
            temporary=answer.status in _RETRIED,
            retry_after_s=wait,
            hints=[f"the server asks to wait {wait:.0f} seconds"] if wait and wait > LONGEST_WAIT_S else [],
        )


class _Progressed(Exception):
    """A download failed, but not before some bytes had arrived: the count of failures starts anew."""

    def __init__(self, error: HttpError) -> None:
        super().__init__()
        self.error = error


def _ignore(count: int) -> None:
    del count


def _lowered(headers: Mapping[str, str]) -> dict[str, str]:
    # By name: of a header that comes twice (WWW-Authenticate), urllib3's items would give the last line only.
    return {name.lower(): headers[name] for name in headers}


def _is_address(url: str) -> bool:
    """Whether a URL names a host by HTTP, with brackets that close and a port that there can be."""
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _check_address(url: str) -> None:
    if not _is_address(url):
        raise AerogelError(
            f"`{redact(url)}` is not an address that can be fetched",
            code="net.url",
            hints=["an address begins with `http://` or `https://` and names a host"],
            exit_status=EXIT_USAGE,
        )


def _refused_redirect(old: str, new: str) -> str:
    """Why a redirect is not followed; empty if it is."""
    before, after = (url.partition(":")[0].lower() for url in (old, new))
    if after not in ("http", "https") or (before == "https" and after == "http"):
        return f"is not followed from {before}"
    return "" if _is_address(new) else "is no address"


def _joined(url: str, location: str) -> str:
    """Where a redirect leads; as it was written if it cannot be read."""
    try:
        return urljoin(url, location)
    except ValueError:
        return location


def _split_credentials(url: str) -> tuple[str, str]:
    """A URL without `user:password@`, and those as a Basic authorization header value (or empty)."""
    parts = urlsplit(url)
    if "@" not in parts.netloc:
        return url, ""
    import base64
    from urllib.parse import unquote_to_bytes

    userinfo, _, host = parts.netloc.rpartition("@")
    user, _, password = userinfo.partition(":")
    pair = unquote_to_bytes(user) + b":" + unquote_to_bytes(password)
    return urlunsplit(parts._replace(netloc=host)), "Basic " + base64.b64encode(pair).decode("ascii")


def _retry_after(value: str, date: str = "") -> float | None:
    """Seconds to wait, from seconds or from an HTTP date; that is compared with the server's own clock, if it tells."""
    if value.isascii() and value.strip().isdigit():
        return float(value)
    if not value:
        return None
    until, now = _http_date(value), _http_date(date)
    return None if until is None else max(0.0, until - (time.time() if now is None else now))


def _http_date(value: str) -> float | None:
    from email.utils import parsedate_to_datetime

    try:
        return parsedate_to_datetime(value).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
