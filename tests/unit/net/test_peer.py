"""Certificates in files and folders."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from aerogel.errors import AerogelError
from aerogel.net.peer import read_certificates, system_file


def test_the_file_of_the_system_is_one_that_is_there(tmp_path: Path) -> None:
    named = tmp_path / "mine.pem"
    named.write_text("")
    assert system_file(str(named)) == str(named)
    assert system_file(str(tmp_path / "gone")) == system_file("") != str(named)


def test_certificates_of_a_folder_and_what_are_none(tmp_path: Path) -> None:
    system = system_file("")
    if system is None:
        pytest.skip("the host has no file with certificates")
    parts = Path(system).read_text(encoding="utf-8").split("-----END CERTIFICATE-----\n")[:2]
    for number, part in enumerate(parts):
        (tmp_path / f"{number}.pem").write_text(f"{part}-----END CERTIFICATE-----\n")
    (tmp_path / "folder").mkdir()
    found = read_certificates(str(tmp_path))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=found.decode("ascii", "ignore"))
    assert len(context.get_ca_certs()) == 2
    (tmp_path / "text").write_text("no certificate")
    for place in (tmp_path / "text", tmp_path / "gone", tmp_path / "folder"):
        with pytest.raises(AerogelError) as caught:
            read_certificates(str(place))
        assert (caught.value.code, str(place) in caught.value.message) == ("net.ca", True)
