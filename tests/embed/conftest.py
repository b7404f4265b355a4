"""A job that needs no runtime library."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgessl.embed import job
from tests.fake_session import TEXTS, FakeSession, save_bundle

Run = Callable[..., dict[str, Any]]


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> FakeSession:
    """The session of every job of this test."""
    fake = FakeSession()
    monkeypatch.setattr(job, "open_session", lambda asked: fake)
    return fake


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a text bundle ``bundle``."""
    monkeypatch.chdir(tmp_path)
    save_bundle(tmp_path / "bundle")
    return tmp_path


@pytest.fixture
def run(session: FakeSession, place: Path) -> Run:
    """``run("texts.txt", "out.npy", ...)``: a job of small blocks."""

    def run(*arguments: str, **options: Any) -> dict[str, Any]:
        *paths, output = arguments
        return job.run("bundle", paths, output, **{"block_rows": 10, **options})

    return run


@pytest.fixture
def texts(place: Path) -> list[str]:
    """The lines of ``texts.txt``: 47, of blocks of 10."""
    (place / "texts.txt").write_text("\n".join(TEXTS) + "\n")
    return TEXTS
