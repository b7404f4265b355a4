"""Timings of kernels from one build to the next: TensorRT is a stand-in, the cache is real."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgessl import cache
from edgessl.export.tensorrt_worker import _recall, _remember


class Timings:
    def __init__(self, known: bytes) -> None:
        self.known = known

    def serialize(self) -> memoryview:
        return memoryview(self.known + b"+1")


class Config:
    """A builder's configuration that takes timings of its own version alone."""

    def __init__(self) -> None:
        self.set: Timings | None = None

    def create_timing_cache(self, known: bytes) -> Timings | None:
        return Timings(known) if known in (b"", b"+1", b"+1+1") else None

    def set_timing_cache(self, timings: Timings, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        self.set = timings
        return True

    def get_timing_cache(self) -> Timings | None:
        return self.set


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path))
    return tmp_path / "timing" / "a.timing"


def build(config: Any, path: Path) -> None:
    _recall(config, path)
    _remember(config, path)


def test_each_build_knows_what_the_last_one_timed(path: Path) -> None:
    for known in (b"", b"+1"):
        config = Config()
        build(config, path)
        assert config.set is not None and config.set.known == known
    assert cache.get(path) == b"+1+1"


@pytest.mark.parametrize("content", [b"of another TensorRT", None])
def test_what_cannot_be_used_is_left_out(path: Path, content: bytes | None) -> None:
    if content is None:  # spoilt
        path.parent.mkdir()
        path.write_bytes(b"spoilt")
    else:
        cache.put(path, content)
    config = Config()
    build(config, path)
    assert (config.set is not None) is (content is None)
    assert cache.get(path) == (b"+1" if content is None else content)


def test_a_builder_without_timings(path: Path) -> None:
    build(object(), path)
    assert not path.exists()
