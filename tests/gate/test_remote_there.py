"""The device's side alone: what it keeps, power modes, environments."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgessl.errors import EdgesslError, OutputError, Unsupported
from edgessl.gate.remote import wheel
from edgessl.gate.remote.device import environments, jobs, landing, power, store
from tests import jetson

FILES = {"data/a": b"first", "data/b/c": b"second", "data/empty": b""}
LISTING = {name: (len(c), hashlib.sha256(c).hexdigest()) for name, c in FILES.items()}


def want(root: Path) -> list[str]:
    return list(store.want(root, {"digest": "d", "files": LISTING})["names"])


def put(root: Path, names: list[str], content: bytes) -> None:
    store.put(root, {"digest": "d", "files": LISTING, "names": names}, io.BytesIO(content))


def test_a_tree_that_comes_in_pieces(tmp_path: Path) -> None:
    assert want(tmp_path) == list(FILES)
    with pytest.raises(OutputError, match="fewer bytes"):  # cut in the second file
        put(tmp_path, list(FILES), b"firstseco")
    assert want(tmp_path) == ["data/b/c", "data/empty"]
    with pytest.raises(OutputError, match="data/b/c arrived damaged"):
        put(tmp_path, ["data/b/c", "data/empty"], b"SECOND")
    assert not (tmp_path / "store" / "d").exists()

    put(tmp_path, want(tmp_path), b"second")

    assert want(tmp_path) == []
    assert {name: (tmp_path / "store" / "d" / name).read_bytes() for name in FILES} == FILES
    assert os.listdir(tmp_path / "store") == ["d"]
    (tmp_path / "store/d/data/a").write_text("firs")  # a file system that lost something
    assert want(tmp_path) == list(FILES)


def test_a_file_outside(tmp_path: Path) -> None:
    request = {"digest": "d", "files": {"../../x": (1, "")}, "names": ["../../x"]}
    with pytest.raises(OutputError, match="outside"):
        store.put(tmp_path, request, io.BytesIO(b"x"))


def test_what_does_not_fit(tmp_path: Path) -> None:
    request = {"digest": "d", "files": {"x": (1 << 60, "")}, "names": ["x"]}
    with pytest.raises(OutputError, match=f"^no space left .* to be copied to {tmp_path}, where"):
        store.put(tmp_path, request, io.BytesIO())
    assert os.listdir(tmp_path / "store") == []


def test_what_is_not_used_is_forgotten(tmp_path: Path) -> None:
    put(tmp_path, list(FILES), b"firstsecond")
    old = time.time() - (store.UNUSED_DAYS + 1) * 86_400
    os.utime(tmp_path / "store" / "d", (old, old))
    want(tmp_path)  # it is used
    store.forget(tmp_path)
    assert (tmp_path / "store" / "d").is_dir()
    os.utime(tmp_path / "store" / "d", (old, old))
    store.forget(tmp_path)
    assert os.listdir(tmp_path / "store") == []


def test_the_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = wheel.pack()
    names = zipfile.ZipFile(io.BytesIO(made.content)).namelist()
    for name in ("gate/plan.py", "runtimes/session.py", "export/__init__.py", "py.typed"):
        assert f"edgessl/{name}" in names
    assert not [name for name in names if "__pycache__" in name]

    assert "damaged" in landing.unpack(str(tmp_path), made.digest, made.name, b"x")["error"]
    assert landing.look(str(tmp_path), made.digest)["code"] is False
    assert landing.unpack(str(tmp_path), made.digest, made.name, made.content) == {}
    assert landing.unpack(str(tmp_path), made.digest, made.name, made.content) == {}  # twice
    assert landing.look(str(tmp_path), made.digest)["code"] is True
    assert os.listdir(tmp_path / "code") == [made.digest]
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert landing.root("") == Path("/cache/edgessl/remote")


def test_the_same_files_are_the_same_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheel, "_sources", lambda: [("edgessl/a.py", b"1")])
    found = [wheel.pack.__wrapped__() for _ in range(2)]
    monkeypatch.setattr(wheel, "_sources", lambda: [("edgessl/a.py", b"2")])
    other = wheel.pack.__wrapped__()
    assert found[0] == found[1] and found[0].digest != other.digest
    assert found[0].needs == other.needs  # the same environment will do


def test_there_only_the_standard_library_is_needed(tmp_path: Path) -> None:
    """Before an environment is made there is nothing else."""
    made = wheel.pack()
    landing.unpack(str(tmp_path), made.digest, made.name, made.content)
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(tmp_path / "code" / made.digest), "facts"],
        input=b"{}\n",
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(landing.MARK.encode())


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)  # no root: through sudo
    jetson.install(tmp_path, tmp_path / "state")
    return tmp_path / "state"


def test_a_power_mode(state: Path, tmp_path: Path) -> None:
    power.set_up(tmp_path, "0")
    assert power.mode() == "0"
    power.set_up(tmp_path, "0")  # the device rebooted meanwhile: the mode before is still known
    power.restore(tmp_path)
    power.restore(tmp_path)  # once is enough

    assert power.mode() == "2"
    asked = (state / "clocks").read_text().splitlines()
    assert asked == ["--store 2", "0", "0", "--restore 2"]


def test_power_modes_that_are_refused(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Unsupported, match="by hand: sudo nvpmodel -m 9"):
        power.set_up(tmp_path, "9")
    power.restore(tmp_path)
    assert power.mode() == "2"
    (state / "locked").touch()
    with pytest.raises(Unsupported, match="sudo asks for a password .* NOPASSWD: .*/jetson_clocks"):
        power.set_up(tmp_path, "0")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(Unsupported, match="there is no nvpmodel"):
        power.set_up(tmp_path, "0")


REQUEST: dict[str, Any] = {
    "needs": "n", "wheel": "/w/edgessl.whl", "extras": ["onnx"], "packages": ["torch"],
    "pip_args": ["--pre"], "wheelhouse": None,
}  # fmt: skip


def _pretend(called: list[list[str]]) -> Callable[[list[str], Path, int], None]:
    def call(command: list[str], folder: Path, free: int) -> None:
        called.append(command)
        folder.mkdir(exist_ok=True)

    return call


def test_an_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[list[str]] = []
    monkeypatch.setattr(environments, "_call", _pretend(called))
    found = environments.ready(tmp_path, REQUEST)
    assert not found["ready"]
    environments.make(tmp_path, REQUEST)
    environments.make(tmp_path, REQUEST)

    folder = str(Path(found["python"]).parents[1])
    assert called == [
        [sys.executable, "-m", "venv", folder],
        [found["python"], "-m", "pip", "install", "--pre", "/w/edgessl.whl[onnx]", "torch"],
    ]
    assert environments.ready(tmp_path, REQUEST) == {**found, "ready": True}
    assert environments.ready(tmp_path, {**REQUEST, "wheel": "/w/later.whl"})["ready"]
    assert not environments.ready(tmp_path, {**REQUEST, "extras": []})["ready"]


def test_an_offline_jetson_without_venv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/nv_tegra_release").write_text("# R36 (release), REVISION: 4.3\n")
    monkeypatch.setenv("EDGESSL_SYSTEM_ROOT", str(tmp_path))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unsupported, match=r"sudo apt install python3\.\d+-venv\) or install uv"):
        environments.make(tmp_path, REQUEST)
    (tmp_path / "uv").touch(mode=0o755)
    called: list[list[str]] = []
    monkeypatch.setattr(environments, "_call", _pretend(called))

    environments.make(tmp_path, {**REQUEST, "wheelhouse": "/h"})

    create, install = called
    assert create[0].endswith("/uv") and "--system-site-packages" in create
    assert install[1:4] == ["pip", "install", "--python"]
    assert install[5:8] == ["--no-index", "--find-links", "/h"]


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ("Collecting numpy\nERROR: Could not install: [Errno 28] No space left on device\n", "needs more than the 7.0 MB"),
        (
            "WARNING: Retrying: NewConnectionError('Temporary failure in name resolution')\n"
            "ERROR: Could not find a version that satisfies the requirement numpy\n"
            "ERROR: No matching distribution found for numpy\n",
            'wheelhouse = "DIR"',
        ),
        ("ERROR: No matching distribution found for onnxruntime>=1.22\n", "needed there: No matching distribution found for onnxruntime>=1.22. See"),
        ("", "no reason given"),
    ],
)  # fmt: skip
def test_what_pip_says(output: str, said: str, tmp_path: Path) -> None:
    script = f"import sys; sys.stderr.write({output!r}); sys.exit(1)"
    with pytest.raises(EdgesslError) as caught:
        environments._call([sys.executable, "-c", script], tmp_path / "e", 7_000_000)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_a_supervisor_that_was_killed(tmp_path: Path) -> None:
    """What it watched over is ended by whoever comes next."""
    (tmp_path / "jobs" / "dead").mkdir(parents=True)
    (tmp_path / "jobs" / "dead" / "lock").touch()
    marked = {**os.environ, jobs.MARKER: "dead"}
    with subprocess.Popen(["sleep", "100"], env=marked, start_new_session=True) as orphan:
        ends = time.monotonic() + 10  # exec has closed its pipe before the environment can be read
        while not (found := jobs.members("dead")) and time.monotonic() < ends:
            time.sleep(0.01)
        assert found == [orphan.pid]
        jobs.sweep(tmp_path)
        assert orphan.wait(5) < 0
    assert jobs.clean(tmp_path, {}) == {"running": [], "root": str(tmp_path)}
    assert not tmp_path.exists()
