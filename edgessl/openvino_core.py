"""``openvino`` as edgessl imports it, and the one ``Core`` that a process has."""

from __future__ import annotations

import functools
import importlib
import sys
import threading
from types import ModuleType
from typing import Any

import numpy as np

from edgessl.errors import require

_CONVERTER = "openvino.tools.ovc"
_LOCK = threading.Lock()


def library(purpose: str) -> ModuleType:
    """``openvino`` without its model converter, which is half of the time and of the memory that
    the import takes, and imports a client that reports usage over the network. ``openvino``
    itself does without it where it cannot be imported; whoever calls it later gets it then.

    Raises:
        MissingDependency: openvino is not installed; *purpose* is what needs it.
    """
    if "openvino" in sys.modules or _CONVERTER in sys.modules:
        return require("openvino", "openvino", purpose)
    sys.modules[_CONVERTER] = None  # type: ignore[assignment]  # Python's way to say: not there
    try:
        found = require("openvino", "openvino", purpose)
    finally:
        del sys.modules[_CONVERTER]

    def convert_model(*arguments: Any, **options: Any) -> Any:
        return importlib.import_module(_CONVERTER).convert_model(*arguments, **options)

    found.__dict__.setdefault("convert_model", convert_model)
    return found


def core(purpose: str) -> Any:
    """The process's ``openvino.Core``, never given back; *purpose* as for ``library``.

    When its last ``Core`` goes, OpenVINO unmaps the signal stack that it gave to the thread which
    loaded its CPU plugin; where another thread lets go of it, that thread keeps the address, and
    the next signal (Ctrl-C) kills the process (2026.4).
    """
    found = library(purpose)
    with _LOCK:
        return _make(found)


@functools.cache
def _make(openvino: ModuleType) -> Any:
    # The first tensors that a process makes of arrays deadlock when two threads make them at once:
    # one holds the lock of a C++ static and waits for the GIL, the other the reverse (2026.4).
    openvino.Tensor(np.zeros(1, np.float32))
    return openvino.Core()
