"""One ``Core`` a process: what OpenVINO does to signals and threads otherwise ends the process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Bundle = Callable[..., Path]

CLOSED_ELSEWHERE = """
import gc, os, signal, sys, threading
import edgessl

sessions = [edgessl.load(sys.argv[1])]
sessions[0].embed(["abc"])

def close():
    sessions.pop().close()
    gc.collect()

thread = threading.Thread(target=close)
thread.start()
thread.join()
signal.signal(signal.SIGTERM, lambda *_: print("handled", flush=True))
os.kill(os.getpid(), signal.SIGTERM)
"""

OPENED_AT_ONCE = """
import sys, threading
import edgessl

started = threading.Barrier(6)

def work():
    started.wait()
    with edgessl.load(sys.argv[1], cache=False) as session:
        found.append(session.embed(["abc"]).tobytes())

found = []
threads = [threading.Thread(target=work) for _ in range(6)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(len(found), len(set(found)))
"""


@pytest.mark.parametrize(
    ("code", "said"), [(CLOSED_ELSEWHERE, "handled\n"), (OPENED_AT_ONCE, "6 1\n")]
)
def test_threads_and_signals(code: str, said: str, built: Bundle) -> None:
    path = built("bert", "openvino")
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, said), done.stderr
