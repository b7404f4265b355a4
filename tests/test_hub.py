"""``edgessl.hub``: local directories, and downloads from a stand-in for the hub."""

from __future__ import annotations

import errno
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgessl import hub
from edgessl.errors import MissingDependency, OutputError, RecipeError
from tests.hub_server import HubStandIn

MODEL = "acme/tiny-encoder"
WANTED = {
    "config.json": b'{"model_type": "bert"}',
    "modules.json": b"[]",
    "tokenizer.json": b'{"version": "1.0"}',
    "vocab.txt": b"[PAD]\n",
    "spiece.model": b"\x0a",
    "model.safetensors": b"\0" * 70_000,
    "1_Pooling/config.json": b'{"pooling_mode": "mean"}',
    "2_Dense/config.json": b'{"in_features": 4}',
    "2_Dense/pytorch_model.bin": b"dense",
}
UNWANTED = {
    "README.md": b"#",
    ".gitattributes": b"*",
    "pytorch_model.bin": b"again",
    "pytorch_model.bin.index.json": b"{}",
    "tf_model.h5": b"tf",
    "flax_model.msgpack": b"flax",
    "rust_model.ot": b"rust",
    "model.onnx": b"onnx",
    "onnx/config.json": b"{}",
    "onnx/model.onnx": b"onnx",
    "openvino/openvino_model.bin": b"ov",
    "openvino/openvino_model.xml": b"ov",
}

BAD_TOKEN = "Invalid credentials in Authorization header"

# The client reads its environment when it is imported, so a fresh process stands for a user.
ASK = """
import json, sys
from edgessl.errors import EdgesslError
from edgessl.hub import resolve
lines = []
try:
    found = resolve(sys.argv[1], *sys.argv[2:], report=lines.append)
    answer = {"directory": str(found.directory), "source": found.source, "revision": found.revision}
except EdgesslError as err:
    answer = {"error": type(err).__name__, "message": str(err)}
print(json.dumps({**answer, "lines": lines}))
"""


class User:
    """Someone with a home of their own who asks for models."""

    def __init__(self, home: Path, endpoint: str) -> None:
        self.home = home
        self.endpoint = endpoint

    def ask(self, *arguments: str, **environment: str) -> dict[str, Any]:
        """What ``resolve(*arguments)`` returns or raises, and the lines that it reports."""
        mine = {
            key: value
            for key, value in os.environ.items()
            if not key.upper().startswith(("HF_", "TRANSFORMERS_"))
            and not key.upper().endswith("_PROXY")
        }
        mine |= {"HF_HOME": str(self.home), "HF_ENDPOINT": self.endpoint, **environment}
        done = subprocess.run(
            [sys.executable, "-c", ASK, *arguments],
            env=mine,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""  # no bars, no log lines where stderr is no terminal
        answer: dict[str, Any] = json.loads(done.stdout)
        assert "\n" not in answer.get("message", "")
        return answer


@pytest.fixture
def server() -> Iterator[HubStandIn]:
    with HubStandIn(MODEL, {**UNWANTED, **WANTED}) as stand_in:
        yield stand_in


@pytest.fixture
def user(tmp_path: Path, server: HubStandIn) -> User:
    return User(tmp_path / "hf-home", server.endpoint)


def read_all(directory: Path) -> dict[str, bytes]:
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }


def test_an_existing_directory_is_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "org" / "my-model").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    expected = (tmp_path / "org" / "my-model", "my-model", None)
    for spelling in ("org/my-model", "./org/my-model/", "~/org/my-model", str(expected[0])):
        found = hub.resolve(spelling)
        assert (found.directory.resolve(), found.source, found.revision) == expected
    monkeypatch.chdir(expected[0])
    assert hub.resolve(".").source == "my-model"


def test_a_directory_has_no_revision(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="'v1'.*only hub models have revisions"):
        hub.resolve(str(tmp_path), revision="v1")


def test_a_file_is_not_a_model(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.touch()
    with pytest.raises(RecipeError, match="is a file: give the directory"):
        hub.resolve(str(file))


@pytest.mark.parametrize("model", ["./modls", "../x/modls", "/nowhere/modls", "a/b/modls", "", "~"])
def test_a_path_that_is_not_there_is_not_looked_for_on_the_hub(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "none"))
    with pytest.raises(RecipeError, match="no such directory"):
        hub.resolve(model)


def test_a_misspelt_directory_names_its_neighbour(tmp_path: Path) -> None:
    (tmp_path / "all-MiniLM-L6-v2").mkdir()
    (tmp_path / "all-MiniLM-L6-v3.txt").touch()
    with pytest.raises(RecipeError, match="Did you mean 'all-MiniLM-L6-v2'"):
        hub.resolve(str(tmp_path / "all-MinLM-L6-v2"))


def test_a_hub_id_needs_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingDependency, match=r"edgessl\[compress\]"):
        hub.resolve(MODEL)


def test_download_fetches_what_edgessl_reads_and_caches_it(server: HubStandIn, user: User) -> None:
    first = user.ask(MODEL)
    assert read_all(Path(first["directory"])) == WANTED
    assert server.fetched == sorted(WANTED)
    assert (first["source"], first["revision"]) == (MODEL, server.commit)
    assert f"{MODEL} at {server.commit[:12]}: {len(WANTED)} files" in first["lines"][0]

    assert user.ask(MODEL) == first
    assert user.ask(MODEL, server.commit)["directory"] == first["directory"]
    assert user.ask(MODEL, "main")["revision"] == server.commit
    assert server.fetched == sorted(WANTED)  # nothing twice


def test_a_cached_model_survives_without_the_hub(server: HubStandIn, user: User) -> None:
    online = user.ask(MODEL)
    before = len(server.requests)
    offline = user.ask(MODEL, HF_HUB_OFFLINE="1")
    assert len(server.requests) == before
    server.refuse["/api/"] = (503, {})
    broken = user.ask(MODEL)
    away = user.ask(MODEL, HF_ENDPOINT="http://127.0.0.1:1")
    for answer in (offline, broken, away):
        assert answer["directory"] == online["directory"]
        assert answer["revision"] == server.commit
        assert "using the cached copy" in answer["lines"][0]


def test_what_is_not_cached_needs_the_hub(server: HubStandIn, user: User) -> None:
    offline = user.ask(MODEL, HF_HUB_OFFLINE="1")
    assert offline["error"] == "RecipeError" and not server.requests
    assert "HF_HUB_OFFLINE" in offline["message"] and "local directory" in offline["message"]
    away = user.ask(MODEL, HF_ENDPOINT="http://127.0.0.1:1")
    assert "http://127.0.0.1:1 fails: ConnectError" in away["message"]
    assert "local directory works too" in away["message"]


def test_a_cached_copy_without_weights_is_not_used(server: HubStandIn, user: User) -> None:
    for path in Path(user.ask(MODEL)["directory"]).rglob("*model*"):
        path.unlink()
    assert "HF_HUB_OFFLINE" in user.ask(MODEL, HF_HUB_OFFLINE="1")["message"]


def test_an_unknown_name_is_neither_directory_nor_repository(user: User) -> None:
    answer = user.ask("acme/tiny-encodr")
    assert answer["error"] == "RecipeError"
    assert "neither a directory of this name nor a repository" in answer["message"]
    assert user.endpoint in answer["message"] and "HF_TOKEN" in answer["message"]


@pytest.mark.parametrize("model", ["acme/two--dashes", "name.git"])
def test_what_the_hub_cannot_have_is_said(model: str, user: User) -> None:
    assert "neither a directory nor a hub id" in user.ask(model)["message"]


def test_an_unknown_revision_is_named(user: User) -> None:
    answer = user.ask(MODEL, "v9")
    assert answer["message"].startswith(f"{MODEL} on {user.endpoint} has no revision 'v9'")


@pytest.mark.parametrize(
    ("part", "status", "headers", "says"),
    [
        ("/resolve/", 403, {"X-Error-Code": "GatedRepo"}, "gated or private (403): ask for access"),
        ("/resolve/", 401, {"X-Error-Code": "GatedRepo"}, "set HF_TOKEN"),
        ("/api/", 403, {}, "set HF_TOKEN"),
        ("/api/", 401, {"X-Error-Code": "RepoNotFound"}, "set HF_TOKEN"),
        ("/api/", 401, {"X-Error-Message": BAD_TOKEN}, "does not accept the token"),
        ("/api/", 404, {"X-Error-Code": "RepoNotFound"}, "neither a directory"),
        ("/api/", 500, {}, "fails: HfHubHTTPError"),
    ],
)
def test_refusals(
    part: str, status: int, headers: dict[str, str], says: str, server: HubStandIn, user: User
) -> None:
    server.refuse[part] = (status, headers)
    answer = user.ask(MODEL)
    assert answer["error"] == "RecipeError"
    assert says in answer["message"]


def test_a_repository_without_weights_is_not_downloaded(server: HubStandIn, user: User) -> None:
    server.files = {"config.json": b"{}", "tf_model.h5": b"tf"}
    answer = user.ask(MODEL)
    assert answer["error"] == "CheckpointError" and "it has tf_model.h5" in answer["message"]
    assert server.fetched == []


@pytest.mark.parametrize(
    ("error", "raised", "says"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), OutputError, "the disk is full"),
        (PermissionError(errno.EACCES, "denied"), OutputError, "cannot write to"),
        (ValueError("odd\nanswer"), RecipeError, "cannot be downloaded.*ValueError: odd"),
    ],
)
def test_other_failures_are_one_line(
    error: Exception, raised: type[Exception], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_args: object, **_options: object) -> None:
        raise error

    client = importlib.import_module("huggingface_hub")
    monkeypatch.setattr(client.HfApi, "model_info", fail)
    with pytest.raises(raised, match=says) as caught:
        hub.resolve(MODEL)
    assert "\n" not in str(caught.value) and caught.value.__cause__ is error


def test_wanted_takes_one_kind_of_weights_in_each_folder() -> None:
    shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    sharded = [*shards, "model.safetensors.index.json"]
    old = ["pytorch_model-00001-of-00001.bin", "pytorch_model.bin.index.json"]

    def wanted(*names: str) -> list[str]:
        return hub.wanted(dict.fromkeys(names, 10))

    assert wanted(*sharded, *old, "pytorch_model.bin") == sharded
    assert wanted(*sharded, "model.safetensors") == ["model.safetensors"]
    assert wanted(*old, "tf_model.h5.index.json") == old
    assert wanted("model.fp16.safetensors", "adapter_model.safetensors") == []
    assert wanted("0_Transformer/model.safetensors", "0_Transformer/pytorch_model.bin") == [
        "0_Transformer/model.safetensors"
    ]
    assert wanted("../config.json", "a/../model.safetensors", "/config.json") == []
    assert hub.wanted({"notes.txt": 2**40, "vocab.txt": None}) == ["vocab.txt"]
