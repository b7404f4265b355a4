"""A real sshd on 127.0.0.1 that plays a device: its sessions have another home and another PATH."""

from __future__ import annotations

import contextlib
import getpass
import importlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from edgessl.gate.remote.devices import Device

psutil: Any = importlib.import_module("psutil")  # by name: it comes without types
SSHD = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")


@dataclass
class Sshd:
    """``home``, ``bin`` (first on its PATH) and ``system`` (its /etc and /proc) of the device;
    ``keys``: of who logs in; ``local``: the folder of the ``ssh`` command to be used with it."""

    folder: Path
    port: int
    pid: int

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def bin(self) -> Path:
        return self.folder / "bin"

    @property
    def system(self) -> Path:
        return self.folder / "system"

    @property
    def root(self) -> Path:
        """Where edgessl keeps its things there."""
        return self.home / ".cache" / "edgessl" / "remote"

    @property
    def url(self) -> str:
        return f"ssh://{getpass.getuser()}@127.0.0.1:{self.port}"

    def device(self, name: str = "box") -> Device:
        """It, with the libraries of this very Python."""
        host = f"{getpass.getuser()}@127.0.0.1"
        return Device(name, host, self.port, python=sys.executable, install=False)

    def drop(self) -> None:
        """Cut every connection, as a network does; what was started stays."""
        for child in psutil.Process(self.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if child.name().startswith("sshd"):
                    child.kill()

    def tool(self, name: str, script: str) -> None:
        """A command of the device."""
        path = self.bin / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)


@contextmanager
def serving(folder: Path) -> Iterator[Sshd]:
    """Start one whose only key is in *folder*; what its sessions started is ended at the end."""
    if SSHD is None or shutil.which("ssh") is None:
        pytest.skip("needs OpenSSH's ssh and sshd")
    for name in ("home", "bin", "system", "local"):
        (folder / name).mkdir(parents=True)
    for name in ("host", "key", "stranger"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(command, check=True)
    shutil.copy(folder / "key.pub", folder / "authorized")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    known = (folder / "host.pub").read_text()
    (folder / "known").write_text(f"[127.0.0.1]:{port} {known}")
    _script(
        folder / "session",
        f"export HOME={folder}/home EDGESSL_SYSTEM_ROOT={folder}/system "
        f"PATH={folder}/bin:/usr/bin:/bin\n"
        "unset XDG_CACHE_HOME\n"
        "cd\n"
        "echo Welcome to the device; printf 'and mind the step'; echo\n"
        'exec sh -c "$SSH_ORIGINAL_COMMAND"',
    )
    _script(folder / "local" / "ssh", f'exec {shutil.which("ssh")} -F {folder}/client "$@"')
    (folder / "client").write_text(
        f"Host *\nIdentityFile {folder}/key\nIdentitiesOnly yes\nIdentityAgent none\n"
        f"UserKnownHostsFile {folder}/known\nGlobalKnownHostsFile /dev/null\n"
    )
    (folder / "server").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\n"
        f"AuthorizedKeysFile {folder}/authorized\nPidFile none\nStrictModes no\nUsePAM no\n"
        f"PasswordAuthentication no\nKbdInteractiveAuthentication no\n"
        f"ForceCommand {folder}/session\n"
    )
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen([SSHD, "-D", "-e", "-f", str(folder / "server")], stderr=log)
    found = Sshd(folder, port, server.pid)
    try:
        _wait_for(port, server, folder / "log")
        yield found
    finally:
        found.drop()
        server.terminate()
        server.wait()
        kill(folder)


def left(folder: Path) -> dict[int, str]:
    """Every process whose home is the device's: number and name."""
    found = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):  # another user's, or gone
            if process.environ().get("HOME") == str(folder / "home"):
                found[process.pid] = process.name()
    return found


def kill(folder: Path) -> None:
    """All of them at once, as a reboot does."""
    for pid in left(folder):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _script(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def _wait_for(port: int, server: subprocess.Popen[bytes], log: Path) -> None:
    limit = time.monotonic() + 10
    while time.monotonic() < limit and server.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.02)
    pytest.skip(f"no sshd can run here: {log.read_text()[-300:]}")
