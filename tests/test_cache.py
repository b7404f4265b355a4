"""The cache: kept whole or not at all, made once among processes, never larger than its limit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edgessl import cache
from edgessl.errors import BundleError


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


def never() -> bytes:
    raise AssertionError("built although there is one")


def partials(root: Path) -> list[Path]:
    return list(root.rglob("*.partial"))


def test_made_once(root: Path) -> None:
    path = root / "openvino" / "a"
    assert cache.fetch(path, lambda: b"content") == (b"content", cache.MADE)
    assert cache.fetch(path, never) == (b"content", cache.FOUND)
    assert [file.name for file in path.parent.iterdir()] == ["a"]  # no lock, nothing half-written
    cache.drop(path)
    cache.drop(path)
    assert cache.get(path) is None


@pytest.mark.parametrize("content", [b"", b"x" * 100_000])
@pytest.mark.parametrize(
    "damage",
    [
        lambda kept: kept[:-1],
        lambda kept: kept[:10],
        lambda kept: b"",
        lambda kept: kept[:40] + b"?" + kept[41:],
        lambda kept: b"?" + kept[1:],
        lambda kept: kept + b"?",
        lambda kept: bytes(len(kept)),  # a file system after a power cut
    ],
)
def test_what_is_spoilt_is_made_again(
    root: Path, content: bytes, damage: Callable[[bytes], bytes]
) -> None:
    path = root / "engines" / "a"
    cache.put(path, content)
    path.write_bytes(damage(path.read_bytes()))
    assert cache.get(path) is None
    assert not path.exists()
    assert cache.fetch(path, lambda: content) == (content, cache.MADE)
    assert cache.get(path) == content


def test_a_failed_build_leaves_nothing_and_can_be_tried_again(root: Path) -> None:
    path = root / "engines" / "a"

    def fails() -> bytes:
        raise BundleError("no")

    with pytest.raises(BundleError, match="no"):
        cache.fetch(path, fails)
    assert list(path.parent.iterdir()) == []
    assert cache.fetch(path, lambda: b"engine") == (b"engine", cache.MADE)


def test_a_full_disk_is_no_error(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    path = root / "engines" / "a"
    content, why = cache.fetch(path, lambda: b"engine")
    assert content == b"engine"
    assert why == f"{path.parent}: No space left on device"
    assert list(path.parent.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_no_error(root: Path) -> None:
    root.write_text("in the way")
    content, why = cache.fetch(root / "openvino" / "a", lambda: b"blob")
    assert content == b"blob"
    assert "openvino: " in why


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root writes everywhere")
def test_a_read_only_cache_is_read(root: Path) -> None:
    path = root / "openvino" / "a"
    cache.put(path, b"blob")
    path.parent.chmod(0o500)
    try:
        assert cache.fetch(path, never) == (b"blob", cache.FOUND)
        assert cache.fetch(path.with_name("b"), lambda: b"new")[0] == b"new"
    finally:
        path.parent.chmod(0o700)


WAITS = """
import sys, time
from pathlib import Path
from edgessl import cache
path, log, seconds = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
def build():
    with open(log, "a") as stream:
        stream.write("built\\n")
    time.sleep(seconds)
    return b"engine"
print(cache.fetch(path, build)[1])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="nothing is locked without fcntl")
def test_processes_that_come_together_build_once(root: Path, tmp_path: Path) -> None:
    path, log = root / "engines" / "a", tmp_path / "builds"
    command = [sys.executable, "-c", WAITS, str(path), str(log), "1.0"]
    children = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = sorted(child.communicate(timeout=60)[0].strip() for child in children)
    assert said == [cache.FOUND, cache.FOUND, cache.MADE]
    assert log.read_text() == "built\n"
    assert cache.get(path) == b"engine"


@pytest.mark.skipif(sys.platform == "win32", reason="nothing is locked without fcntl")
def test_who_waits_for_a_process_that_is_killed_builds(root: Path, tmp_path: Path) -> None:
    path, log = root / "engines" / "a", tmp_path / "builds"
    command = [sys.executable, "-c", WAITS, str(path), str(log)]
    killed = subprocess.Popen([*command, "600"], stdout=subprocess.PIPE)
    while not log.exists():
        assert killed.poll() is None
        time.sleep(0.01)
    waits = subprocess.Popen([*command, "0"], stdout=subprocess.PIPE, text=True)
    time.sleep(0.5)
    assert waits.poll() is None
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert waits.communicate(timeout=60)[0].strip() == cache.MADE
    assert cache.get(path) == b"engine"


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_a_process_killed_while_it_writes_leaves_nothing_that_is_read(root: Path) -> None:
    path = root / "engines" / "a"
    code = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom edgessl import cache\n"
        "os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "cache.fetch(Path(sys.argv[1]), lambda: b'half of it')"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert cache.get(path) is None
    (half,) = partials(root)
    assert cache.fetch(path, lambda: b"engine") == (b"engine", cache.MADE)
    assert half.exists()  # for all we know it is being written
    os.utime(half, (0, 0))
    cache.put(path, b"engine")
    assert partials(root) == []


def test_the_least_recently_used_go_first(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "LIMIT", 4 * (32 + 100))
    for age, name in enumerate(["d", "c", "b", "a"]):
        path = root / cache.KINDS[age % 2] / name
        cache.put(path, bytes(100))
        os.utime(path, (1000 - age, 1000 - age))
    stranger = root / "mine.txt"
    stranger.write_bytes(bytes(1000))
    os.utime(stranger, (0, 0))
    assert cache.get(root / cache.KINDS[1] / "a") == bytes(100)  # used just now
    cache.put(root / "timing" / "e", bytes(100))
    left = {path.name for path in root.rglob("*") if path.is_file()}
    assert left == {"a", "c", "d", "e", "mine.txt"}
    cache.put(root / "timing" / "f", bytes(10_000))  # alone larger than the limit
    assert {path.name for path in root.rglob("*") if path.is_file()} == {"f", "mine.txt"}


def test_keys_change_with_every_fact() -> None:
    facts = [["a", 1], ["a", 2], ["b", 1], [["a", 1]], ["a", "1"], [1, "a"]]
    assert len({cache.key(fact) for fact in facts}) == len(facts)
    assert cache.key({"a": 1, "b": 2}) == cache.key({"b": 2, "a": 1})


@pytest.mark.parametrize(
    ("platform", "variables", "folder"),
    [
        ("linux", {}, "home/.cache/edgessl"),
        ("linux", {"XDG_CACHE_HOME": "{tmp}/xdg"}, "xdg/edgessl"),
        ("linux", {"XDG_CACHE_HOME": "relative"}, "home/.cache/edgessl"),
        ("darwin", {}, "home/Library/Caches/edgessl"),
        ("win32", {"LOCALAPPDATA": "{tmp}/local"}, "local/edgessl/cache"),
        ("win32", {}, "home/AppData/Local/edgessl/cache"),
        ("linux", {cache.VARIABLE: "{tmp}/named"}, "named"),
    ],
)
def test_where_it_is(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    platform: str,
    variables: dict[str, str],
    folder: str,
) -> None:
    for name in (cache.VARIABLE, "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value.format(tmp=tmp_path))
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    monkeypatch.setattr(sys, "platform", platform)
    assert cache.root() == tmp_path / folder
