"""Ports as docker writes them."""

import pytest

from aerogel.commands.publishing import network_for, parse_ports
from aerogel.errors import AerogelError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("8080:80", [("", 8080, 80, "tcp")]),
        ("127.0.0.1:8080:80", [("127.0.0.1", 8080, 80, "tcp")]),
        ("53:53/udp", [("", 53, 53, "udp")]),
        ("[::1]:8080:80", [("::1", 8080, 80, "tcp")]),
        ("8000-8002:80-82", [("", 8000, 80, "tcp"), ("", 8001, 81, "tcp"), ("", 8002, 82, "tcp")]),
    ],
)
def test_forms(text, expected):
    assert [(one.address, one.host, one.inside, one.protocol) for one in parse_ports([text])] == expected


def test_a_free_port_of_the_host():
    (one,) = parse_ports(["127.0.0.1::80"])
    assert (one.address, one.inside) == ("127.0.0.1", 80)
    assert one.host > 1023
    assert [each.inside for each in parse_ports([], {"80/tcp": {}, "53/udp": {}})] == [80, 53]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("http", "`--publish http` is no port"),
        ("80:0", "`--publish 80:0`: `0` is no port"),
        ("80:70000", "`--publish 80:70000`: `70000` is no port"),
        ("80:80/sctp", "`--publish 80:80/sctp` is no port"),
        ("80-82:80-81", "`--publish 80-82:80-81`: the ranges differ in length"),
        ("82-80:82-80", "`--publish 82-80:82-80`: `82-80` is no port"),
        ("", "`--publish ` is no port"),
    ],
)
def test_wrong_forms(text, said):
    with pytest.raises(AerogelError) as caught:
        parse_ports([text])
    assert (caught.value.message, caught.value.code, caught.value.exit_status) == (said, "run.publish", 2)


def test_which_network():
    assert [network_for(asked, False) for asked in ("", "host", "none", "bridge")] == [
        "host",
        "host",
        "none",
        "sandbox",
    ]
    assert network_for("", True) == "sandbox"
    assert network_for("none", True) == "none"
