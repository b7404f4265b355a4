"""Questions to a device: ``python -I -S CODE COMMAND``, the request on standard input as JSON."""

from __future__ import annotations

import errno
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgessl.errors import EdgesslError
from edgessl.gate.remote.device import environments, jobs, store, supervise, system
from edgessl.gate.remote.device.landing import MARK

_Answer = Callable[[Path, dict[str, Any]], dict[str, Any]]
_COMMANDS: dict[str, _Answer] = {
    "facts": lambda root, _request: system.facts(root),
    "want": store.want,
    "put": lambda root, request: store.put(root, request, sys.stdin.buffer),
    "ready": environments.ready,
    "environment": environments.make,
    "start": jobs.start,
    "result": jobs.result,
    "stop": jobs.stop,
    "clean": jobs.clean,
}


def main() -> None:
    """Answer one question; can be asked again when the answer was lost on the way."""
    command, *words = sys.argv[1:]
    if command == "supervise":
        supervise.supervise(Path(words[0]))
        return
    root = Path(sys.argv[0]).absolute().parents[1]
    request = json.loads(sys.stdin.buffer.readline())
    try:
        if command == "follow":
            jobs.follow(root, request, _emit)
        else:
            _emit(_COMMANDS[command](root, request))
    except BrokenPipeError:
        sys.exit(1)  # nobody is there any more
    except (EdgesslError, OSError) as err:
        line, code = _explained(err, root)
        print(f"error: {line}", file=sys.stderr, flush=True)
        _emit({"error": line, "exit_code": code})
        sys.exit(code)


def _emit(answer: dict[str, Any]) -> None:
    print(MARK + json.dumps(answer), flush=True)


def _explained(err: Exception, root: Path) -> tuple[str, int]:
    if isinstance(err, EdgesslError):
        return str(err), err.exit_code
    assert isinstance(err, OSError)
    if err.errno in (errno.ENOSPC, errno.EDQUOT):
        free = shutil.disk_usage(root).free / 1e6
        return f"no space left on the device: {free:.1f} MB are free in {root}", 2
    return f"{err.strerror or err}: {err.filename or root}", 2
