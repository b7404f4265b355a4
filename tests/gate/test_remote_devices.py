"""devices.toml and addresses."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgessl.errors import RecipeError
from edgessl.gate.remote import devices, errors
from edgessl.gate.remote.devices import Device

FILE = """
[device.nano]
host = "edge@10.0.0.7:2222"
power_mode = 0
extras = []
packages = ["onnxruntime-gpu"]
pip_args = ["--extra-index-url", "https://example.org/jp6"]
cpus = [0, 1]
wheelhouse = "wheels"

[device."pi 5"]
host = "pi"
python = "/opt/python"
install = false
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "devices.toml").write_text(FILE)
    return tmp_path / "devices.toml"


def test_a_file(file: Path) -> None:
    found = devices.devices(file)

    assert list(found) == ["nano", "pi 5"]
    assert found["nano"] == Device(
        "nano",
        "edge@10.0.0.7",
        2222,
        power_mode="0",
        extras=(),
        packages=("onnxruntime-gpu",),
        pip_args=("--extra-index-url", "https://example.org/jp6"),
        cpus=(0, 1),
        wheelhouse=str(file.parent / "wheels"),
    )
    assert found["pi 5"] == Device("pi 5", "pi", python="/opt/python", install=False)
    assert found["nano"].by_hand == "ssh -p 2222 edge@10.0.0.7"
    assert devices.find("pi 5") == found["pi 5"]


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("ssh://host", "host", None),
        ("ssh://user@host:2222", "user@host", 2222),
        ("ssh://user@host/", "user@host", None),
        ("ssh://user@[fe80::1%eth0]:22", "user@fe80::1%eth0", 22),
        ("ssh://Host-Alias_1", "Host-Alias_1", None),
    ],
)
def test_an_address(text: str, host: str, port: int | None) -> None:
    assert devices.find(text) == Device("", host, port)


@pytest.mark.parametrize(
    "text",
    [
        "ssh://",
        "ssh://-oProxyCommand=date",
        "ssh://user@-oProxyCommand=date",
        "ssh://user:secret@host",
        "ssh://host:0",
        "ssh://host:99999",
        "ssh://host:ssh",
        "ssh://a b",
        "ssh://host/path",
    ],
)
def test_no_address(text: str) -> None:
    with pytest.raises(RecipeError, match="device"):
        devices.find(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[device.a]\nhots = 'x'", "'hots'. Did you mean 'host'?"),
        ("[device.a]\nport = 22", "has no host"),
        ("[devices.a]\nhost = 'x'", "unknown section [devices]"),
        ("[device.a]\nhost = 3", "should be a string"),
        ("[device.a]\nhost = 'x'\nport = true", "should be a whole number"),
        ("[device.a]\nhost = 'x'\npip_args = '-i x'", "should be a list of strings"),
        ("[device.a]\nhost = 'x'\ncpus = ['0']", "should be a list of whole numbers"),
        ("[device.a]\nhost = 'x:1'\nport = 2", "two ports, 1 and 2"),
        ("[device.a]\nhost = 'x'\ninstall = false", "needs python"),
        ("[device.a]\nhost = '-oProxyCommand=date'", "is no address"),
        ("", "names no device"),
        ("device = 3", "names no device"),
        ("[device", "not TOML"),
    ],
)
def test_a_file_that_is_refused(text: str, said: str, file: Path) -> None:
    file.write_text(text)

    with pytest.raises(RecipeError) as caught:
        devices.devices(file)

    assert said in str(caught.value) and "devices.toml" in str(caught.value)


def test_names(file: Path) -> None:
    with pytest.raises(RecipeError, match="'nona' in devices.toml. Did you mean 'nano'"):
        devices.find("nona")
    with pytest.raises(RecipeError, match="given twice"):
        devices.find_all(["nano", "pi 5", "nano"])
    with pytest.raises(RecipeError, match="none.toml"):
        devices.find("nano", file.parent / "none.toml")
    file.unlink()
    with pytest.raises(RecipeError, match="ssh://user@host"):
        devices.find("nano")


@pytest.mark.parametrize(
    ("stderr", "said", "final"),
    [
        ("ssh: connect to host h port 22: No route to host", "No route to host", False),
        ("ssh: connect to host h port 22: Connection timed out\n", "timed out", False),
        ("kex_exchange_identification: Connection closed by remote host", "Connection closed", False),
        ("", "the connection was closed", False),
        (
            "@@@\n@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\n"
            "Host key verification failed.",
            "ssh-keygen -R '[h]:2222'",
            True,
        ),
        ("u@h: Permission denied (publickey).", "ssh-copy-id -p 2222 u@h", True),
        ("/c: line 3: Bad configuration option: frob\r\n", "frob", True),
    ],
)  # fmt: skip
def test_what_ssh_says(stderr: str, said: str, final: bool) -> None:
    found = errors.explained(stderr, Device("d", "u@h", 2222))

    assert said in str(found) and "\n" not in str(found)
    assert found.final is final
