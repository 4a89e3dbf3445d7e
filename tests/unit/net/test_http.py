from __future__ import annotations

import base64
import io
import socket
import time
from email.utils import formatdate

import pytest
from fault_server import Fault, FaultServer

from aerogel.errors import EXIT_NETWORK, EXIT_USAGE, AerogelError
from aerogel.net.http import Http, HttpError
from aerogel.net.proxy import is_loopback, proxy_for, redact

DATA = bytes(range(256)) * 2000


@pytest.fixture
def waits() -> list[float]:
    return []


@pytest.fixture
def http(waits: list[float]) -> Http:
    return Http(sleep=waits.append, read_timeout_s=20.0, connect_timeout_s=20.0)


def test_request_returns_the_body_and_lower_case_headers(server: FaultServer, http: Http) -> None:
    server.files["/a"] = b"hello"
    answer = http.request("GET", server.url + "/a")
    assert (answer.status, answer.body, answer.headers["content-length"]) == (200, b"hello", "5")
    assert http.request("HEAD", server.url + "/a").body == b""


def test_status_error_names_method_url_and_status(server: FaultServer, http: Http) -> None:
    with pytest.raises(HttpError) as caught:
        http.request("GET", server.url.replace("//", "//user:secret@") + "/gone?token=abc&scope=x")
    error = caught.value
    assert (error.code, error.status, error.exit_status, error.temporary) == ("net.status", 404, EXIT_NETWORK, False)
    assert error.message == f"GET {server.url.replace('//', '//***@')}/gone?token=***&scope=x: 404 Not Found"
    assert error.body == b"not here"
    assert server.seen[0].headers["authorization"] == "Basic " + base64.b64encode(b"user:secret").decode()


def test_temporary_faults_are_tried_again(server: FaultServer, http: Http, waits: list[float]) -> None:
    server.files["/a"] = b"hello"
    server.fail("/a", Fault(503, {"Retry-After": "7"}), Fault(502), Fault(cut_at=2))
    assert http.request("GET", server.url + "/a").body == b"hello"
    assert waits[0] == 7.0
    assert 0.3 < waits[1] < 4
    assert len(waits) == 3


def test_retry_after_may_be_a_date(server: FaultServer, http: Http, waits: list[float]) -> None:
    server.files["/a"] = b"hello"
    server.fail("/a", Fault(429, {"Retry-After": formatdate(time.time() + 20, usegmt=True)}))
    http.request("GET", server.url + "/a")
    assert 15 < waits[0] <= 20


def test_a_wait_that_is_too_long_is_not_waited_for(server: FaultServer, http: Http, waits: list[float]) -> None:
    server.fail("/a", Fault(503, {"Retry-After": "3600"}))
    with pytest.raises(HttpError) as caught:
        http.request("GET", server.url + "/a")
    assert caught.value.hints == ("the server asks to wait 3600 seconds",)
    assert waits == []


def test_it_gives_up_after_four_tries(server: FaultServer, http: Http, waits: list[float]) -> None:
    server.fail("/a", Fault(503), times=10)
    with pytest.raises(HttpError, match="503 Service Unavailable"):
        http.request("GET", server.url + "/a")
    assert len(server.seen) == 4


def test_post_is_sent_once(server: FaultServer, http: Http) -> None:
    server.fail("/a", Fault(503), times=10)
    with pytest.raises(HttpError):
        http.request("POST", server.url + "/a", body=b"x")
    assert len(server.seen) == 1


def test_a_body_made_anew_for_each_try(server: FaultServer, http: Http) -> None:
    server.fail("/a", Fault(503))
    server.files["/a"] = b""
    http.request("PUT", server.url + "/a", headers={"Content-Length": "4"}, body=lambda: [b"ab", b"cd"])
    assert [seen.body for seen in server.seen] == [b"abcd", b"abcd"]


def test_expected_statuses_are_returned(server: FaultServer, http: Http) -> None:
    server.fail("/v2/", Fault(401, {"WWW-Authenticate": "Bearer realm=x"}))
    answer = http.request("GET", server.url + "/v2/", expect=(200, 401))
    assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer realm=x")


def test_redirects_drop_credentials_for_another_host(server: FaultServer, http: Http) -> None:
    other = server.url.replace("127.0.0.1", "localhost")
    server.fail("/a", Fault(307, {"Location": "/b"}))
    server.fail("/b", Fault(302, {"Location": other + "/c"}))
    server.files["/c"] = b"there"
    answer = http.request("GET", server.url + "/a", headers={"Authorization": "Bearer s"})
    assert (answer.body, answer.url) == (b"there", other + "/c")
    assert [seen.headers.get("authorization") for seen in server.seen] == ["Bearer s", "Bearer s", None]


def test_redirect_loops_and_odd_schemes_end(server: FaultServer, http: Http) -> None:
    server.fail("/a", Fault(302, {"Location": "/a"}), times=20)
    with pytest.raises(HttpError, match="more than 10 times"):
        http.request("GET", server.url + "/a")
    server.fail("/b", Fault(302, {"Location": "file:///etc/passwd"}))
    with pytest.raises(HttpError, match="not followed") as caught:
        http.request("GET", server.url + "/b")
    assert caught.value.code == "net.redirect"
    for address in ("http://[::1/a", "http://127.0.0.1:99999/a", "http://:80/a"):
        server.fail("/c", Fault(302, {"Location": address}))
        with pytest.raises(HttpError, match="which is no address") as caught:
            http.request("GET", server.url + "/c")
        assert caught.value.code == "net.redirect"
    server.fail("/d", Fault(302, {"Location": "//[x"}))
    with pytest.raises(HttpError, match="not followed"):
        http.request("GET", server.url + "/d")


def test_a_retry_after_that_is_no_number_is_none(server: FaultServer, http: Http) -> None:
    server.fail("/a", Fault(503, {"Retry-After": "\xb2"}))  # a superscript two in the charset of headers
    server.files["/a"] = b"there"
    assert http.request("GET", server.url + "/a").body == b"there"


def test_too_large_answers_are_cut_off(server: FaultServer, http: Http) -> None:
    server.files["/a"] = DATA
    with pytest.raises(HttpError) as caught:
        http.request("GET", server.url + "/a", limit=1000)
    assert caught.value.code == "net.too-large"


def test_nobody_listens(http: Http, waits: list[float]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(HttpError) as caught:
        http.request("GET", f"http://127.0.0.1:{port}/x")
    assert (caught.value.code, caught.value.exit_status) == ("net.unreachable", EXIT_NETWORK)
    assert "connection refused" in caught.value.message


def test_unknown_host(http: Http, waits: list[float]) -> None:
    with pytest.raises(HttpError, match=r"`mirror\.invalid` cannot be resolved") as caught:
        http.request("GET", "http://mirror.invalid/x")
    assert caught.value.code == "net.unreachable"
    assert waits == []


def test_a_silent_server_times_out(server: FaultServer, waits: list[float]) -> None:
    http = Http(sleep=waits.append, read_timeout_s=0.1, attempts=2)
    server.files["/a"] = b"x"
    server.fail("/a", Fault(stall_s=5.0), times=2)
    with pytest.raises(HttpError) as caught:
        http.request("GET", server.url + "/a")
    assert caught.value.code == "net.timeout"
    assert len(waits) == 1


def test_a_trickle_counts_as_silence(server: FaultServer, waits: list[float]) -> None:
    http = Http(sleep=waits.append, read_timeout_s=1.0, attempts=2)
    server.files["/a"] = b"x" * 100
    server.fail("/a", Fault(trickle_s=0.05))
    assert http.request("GET", server.url + "/a").body == b"x" * 100
    assert len(server.seen) == 2


@pytest.mark.parametrize("url", ["ftp://mirror.example.org/x", "no address", "http://"])
def test_addresses_that_are_none(http: Http, url: str) -> None:
    with pytest.raises(AerogelError) as caught:
        http.request("GET", url)
    assert (caught.value.code, caught.value.exit_status) == ("net.url", EXIT_USAGE)


def test_download_continues_where_it_was_cut(server: FaultServer, http: Http) -> None:
    server.files["/a"] = DATA
    server.fail("/a", Fault(cut_at=100_000), Fault(cut_at=50_000), Fault(503))
    out = io.BytesIO()
    arrived: list[int] = []
    http.download(server.url + "/a", out, size=len(DATA), on_bytes=arrived.append)
    assert out.getvalue() == DATA
    assert sum(arrived) == len(DATA)
    assert [seen.headers.get("range") for seen in server.seen] == [
        None,
        "bytes=100000-",
        "bytes=150000-",
        "bytes=150000-",
    ]
    assert server.seen[1].headers["if-range"].startswith('"')


def test_download_starts_anew_when_the_file_changed(server: FaultServer, http: Http) -> None:
    server.files["/a"] = DATA
    server.fail("/a", Fault(cut_at=1000, headers={"ETag": '"old"'}))
    out = io.BytesIO()
    arrived: list[int] = []
    http.download(server.url + "/a", out, on_bytes=arrived.append)
    assert out.getvalue() == DATA
    assert sum(arrived) == len(DATA)


def test_download_from_a_server_without_ranges(server: FaultServer, http: Http) -> None:
    server.files["/a"] = DATA
    server.fail("/a", Fault(cut_at=1000), Fault(ignore_range=True))
    out = io.BytesIO()
    http.download(server.url + "/a", out)
    assert out.getvalue() == DATA


def test_download_resumes_an_earlier_file(server: FaultServer, http: Http) -> None:
    server.files["/a"] = DATA
    out = io.BytesIO(DATA[:1234])
    http.download(server.url + "/a", out, size=len(DATA), resume=True)
    assert out.getvalue() == DATA
    assert server.seen[0].headers["range"] == "bytes=1234-"
    http.download(server.url + "/a", out, size=len(DATA), resume=True)
    assert len(server.seen) == 1


def test_download_of_an_overlong_first_part(server: FaultServer, http: Http) -> None:
    server.files["/a"] = b"short"
    out = io.BytesIO(b"longer than that")
    http.download(server.url + "/a", out, size=5, resume=True)
    assert out.getvalue() == b"short"
    out = io.BytesIO(b"12345")
    http.download(server.url + "/a", out, resume=True)  # 416, then from the start
    assert out.getvalue() == b"short"


def test_download_of_another_size(server: FaultServer, http: Http) -> None:
    server.files["/a"] = DATA
    with pytest.raises(HttpError, match=f"{len(DATA)} bytes are served, expected 10") as caught:
        http.download(server.url + "/a", io.BytesIO(), size=10)
    assert caught.value.code == "net.size-mismatch"
    assert len(server.seen) == 1


def test_a_proxy_gets_the_whole_address_and_its_own_credentials(server: FaultServer) -> None:
    http = Http(proxies={"http": server.url.replace("//", "//me:pw@")}, sleep=lambda _: None)
    server.files["http://mirror.example.org/a"] = b"via proxy"
    assert http.request("GET", "http://mirror.example.org/a").body == b"via proxy"
    assert server.seen[0].headers["proxy-authorization"] == "Basic " + base64.b64encode(b"me:pw").decode()


@pytest.mark.parametrize(
    ("host", "is_own"),
    [
        ("localhost", True),
        ("app.localhost", True),
        ("127.8.0.1", True),
        ("::1", True),
        ("127.example.org", False),
        ("127.0.0.1.example.org", False),
        ("10.0.0.1", False),
    ],
)
def test_addresses_of_this_machine(host: str, is_own: bool) -> None:
    assert is_loopback(host) is is_own


def test_a_proxy_that_is_down() -> None:
    http = Http(proxies={"http": "http://proxy.invalid:3128"}, sleep=lambda _: None)
    with pytest.raises(HttpError) as caught:
        http.request("GET", "http://mirror.example.org/a")
    assert caught.value.code in ("net.proxy", "net.unreachable")
    http = Http(proxies={"http": "socks5://proxy.invalid"})
    with pytest.raises(AerogelError, match="of a kind") as other:
        http.request("GET", "http://mirror.example.org/a")
    assert other.value.code == "net.proxy"


def test_unreadable_certificates() -> None:
    with pytest.raises(AerogelError, match=r"`/nonexistent/ca\.pem`") as caught:
        Http(ca="/nonexistent/ca.pem").request("GET", "https://mirror.example.org/")
    assert caught.value.code == "net.ca"


def test_tls_with_something_else(server: FaultServer, http: Http) -> None:
    with pytest.raises(HttpError) as caught:
        http.request("GET", server.url.replace("http:", "https:"))
    assert caught.value.code == "net.tls"


@pytest.mark.parametrize(
    ("url", "no", "direct"),
    [
        ("http://a.example.org/", "example.org", True),
        ("http://a.example.org/", ".example.org", True),
        ("http://a.example.org/", "*.example.org", True),
        ("http://example.org/", "a.example.org, b", False),
        ("http://notexample.org/", "example.org", False),
        ("http://a.example.org:8080/", "example.org:8080", True),
        ("http://a.example.org/", "example.org:8080", False),
        ("http://10.1.2.3/", "10.0.0.0/8", True),
        ("http://11.1.2.3/", "10.0.0.0/8", False),
        ("http://[fd00::1]/", "fd00::1", True),
        ("http://a.example.org/", "*", True),
        ("http://localhost:5000/", "", True),
        ("http://127.0.0.1:5000/", "", True),
    ],
)
def test_exceptions_from_the_proxy(url: str, no: str, direct: bool) -> None:
    found = proxy_for(url, {"http": "proxy.example.org:3128", "no": no})
    assert found == ("" if direct else "http://proxy.example.org:3128")


def test_redact() -> None:
    assert (
        redact("https://u:p@example.org/a?X-Amz-Signature=1&n=5#f")
        == "https://***@example.org/a?X-Amz-Signature=***&n=5"
    )
    assert redact("https://example.org/a") == "https://example.org/a"
