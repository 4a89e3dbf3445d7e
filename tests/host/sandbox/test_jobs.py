"""File jobs: results, errors, descriptors, owners."""

import os

import pytest

from aerogel.errors import AerogelError
from aerogel.sandbox.launch import Helper, HelperBug

pytestmark = pytest.mark.host


def test_a_result_and_descriptors(session_helper):
    read, write = os.pipe()
    assert session_helper.call("echo", {"text": "hello"}, [write]) == {"text": "hello", "fds": 1}
    os.close(write)
    assert os.read(read, 100) == b"hello"
    assert os.read(read, 100) == b""
    os.close(read)


def test_a_big_result(session_helper):
    text = "x" * 3_000_000
    assert session_helper.call("echo", {"text": text})["text"] == text


def test_a_job_is_root(session_helper, tmp_path):
    assert session_helper.call("sample_jobs:who", {}) == {"uid": 0, "gid": 0, "groups": []}
    if session_helper.rung.name == "single":  # with one id there are no others: jobs record owners instead
        with pytest.raises(AerogelError, match="Invalid argument"):
            session_helper.call("own", {"path": str(tmp_path / "file")})
    else:
        assert session_helper.call("own", {"path": str(tmp_path / "file")}) == {"uid": 33, "gid": 33}
    session_helper.call("aerogel.sandbox.discard:discard", {"path": str(tmp_path)})
    assert not tmp_path.exists()
    tmp_path.mkdir()


def test_errors_come_back(session_helper):
    with pytest.raises(AerogelError) as caught:
        session_helper.call("fail", {})
    error = caught.value
    assert (error.message, error.code, error.hints) == ("it went wrong", "sample.wrong", ("try again",))
    assert (error.detail, error.exit_status, error.temporary) == ("a\nb", 4, False)


def test_a_full_disk(session_helper):
    with pytest.raises(AerogelError) as caught:
        session_helper.call("full", {})
    assert (caught.value.code, caught.value.exit_status) == ("sandbox.no-space", 3)


def test_a_bug_shows_as_one(session_helper):
    with pytest.raises(HelperBug, match=r"(?s)sample_jobs.py.*KeyError: 'missing'"):
        session_helper.call("stumble", {})
    with pytest.raises(HelperBug, match="no preloaded module has the job getcwd"):
        session_helper.call("getcwd", {})


def test_a_worker_that_is_killed(session_helper):
    with pytest.raises(AerogelError) as caught:
        session_helper.call("die", {})
    assert caught.value.code == "sandbox.worker-died"
    assert session_helper.call("echo", {"text": "still"})["text"] == "still"


def test_a_helper_that_is_killed(tmp_path):
    with Helper.start(str(tmp_path), preload=()) as helper:
        helper._keeper.control.shutdown(2)
        with pytest.raises(AerogelError) as caught:
            helper.call("discard", {"path": "/nowhere"})
        assert caught.value.code == "sandbox.helper-died"
    assert os.listdir(tmp_path) == []


def test_a_module_that_is_missing(tmp_path):
    with pytest.raises(HelperBug, match="No module named 'no_such_jobs'"):
        Helper.start(str(tmp_path), preload=("no_such_jobs",))
    assert os.listdir(tmp_path) == []
