"""Warnings of programs that an image names and does not have."""

from __future__ import annotations

from pathlib import Path

import pytest

from aerogel.cli import main as entry


@pytest.fixture
def warnings(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(entry, "_catch_signals", lambda: None)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AEROGEL_ROOT", str(tmp_path / "root"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    context = tmp_path / "context"
    for name, mode in (("server", 0o755), ("data.txt", 0o644), ("bin/python3", 0o755)):
        path = context / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        path.chmod(mode)

    def build(*lines):
        (context / "Dockerfile").write_text("\n".join(lines) + "\n")
        assert entry.main(["build", str(context), "--progress=plain"]) == 0, capfd.readouterr().err
        return capfd.readouterr().err

    return build


def test_a_missing_program_is_shown_with_its_place(warnings, tmp_path: Path):
    said = warnings("FROM scratch", "COPY server /app/server", 'ENTRYPOINT ["/app/serve", "-v"]', 'CMD ["/no"]')
    assert (
        "warning: `/app/serve` is not in the image, so ENTRYPOINT cannot start it\n"
        "  --> context/Dockerfile:3:14\n"
        ' 3 | ENTRYPOINT ["/app/serve", "-v"]\n'
        "   |              ^^^^^^^^^^\n"
        "hint: did you mean `/app/server`?\n"
    ) in said


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (['CMD ["/app/nowhere"]'], "hint: copy it into the last stage, for example `COPY --from=STAGE /app/nowhere /`"),
        (['CMD ["/app/data.txt"]'], "`/app/data.txt` is not executable, so CMD cannot start it"),
        (['CMD ["/app"]'], "`/app` is a directory, so CMD cannot start it"),
        (["CMD /app/server -v"], "CMD in this form needs the shell `/bin/sh`, which is not in the image"),
        (["CMD /app/server -v"], 'hint: write it so that it needs no shell: `CMD ["/app/server", "-v"]`'),
        (["CMD exec $APP | cat"], '`CMD ["program", "argument"]`'),
        (["ENV PATH=/app/bin", 'CMD ["python"]'], "hint: did you mean `python3`?"),
        (["WORKDIR /app", 'CMD ["./serve"]'], "hint: did you mean `./server`?"),
        (['HEALTHCHECK CMD ["/bin/curl"]', 'CMD ["/app/server"]'], "`/bin/curl` is not in the image, so HEALTHCHECK"),
        (["HEALTHCHECK CMD /app/server", 'CMD ["/app/server"]'], '`HEALTHCHECK CMD ["/app/server"]`'),
    ],
)
def test_what_is_said(warnings, lines, said):
    assert said in warnings("FROM scratch", "COPY . /app/", *lines)


@pytest.mark.parametrize(
    "lines",
    [
        ['CMD ["/app/server"]'],
        ["WORKDIR /app", 'CMD ["./server"]'],
        ["ENV PATH=/app/bin:/x", 'CMD ["python3"]'],
        ['ENTRYPOINT ["/app/server"]', 'CMD ["not", "a", "program"]'],
        ['CMD ["/gone"]', 'CMD ["/app/server"]'],
        ["CMD []"],
        ["HEALTHCHECK NONE"],
        ["COPY server /bin/sh", "CMD whatever"],
        ['SHELL ["/app/server", "-c"]', "CMD whatever"],
    ],
)
def test_nothing_is_said_of_what_starts(warnings, lines):
    said = warnings("FROM scratch", "COPY . /app/", *lines)
    assert "cannot start" not in said
    assert "needs the shell" not in said


def test_the_stage_that_the_last_one_starts_from_counts(warnings):
    said = warnings("FROM scratch AS base", 'CMD ["/gone"]', "FROM base", "COPY server /server")
    assert "`/gone` is not in the image, so CMD cannot start it" in said
