"""Does a runtime library's int8 arithmetic saturate on this machine? Ask it for one product."""

from __future__ import annotations

import base64
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

# An ONNX graph: x (m, 4) float32 -> uint8 -> MatMul with a 4 x 4 int8 matrix of 127 -> y.
# tests/runtimes/test_int8_probe.py builds the same bytes with onnx.helper.
GRAPH = base64.b64decode(
    "CAc6+QEKHAoBeAoBcwoBehIBcSIOUXVhbnRpemVMaW5lYXIKHgoBcQoBcwoBehIBZCIQRGVxdWFudGl6ZUxpbmVh"
    "cgooCgF3CgF0EgF2IhBEZXF1YW50aXplTGluZWFyKgsKBGF4aXMYAaABAgoRCgFkCgF2EgF5IgZNYXRNdWwSAWcq"
    "GwgECAQQA0IBd0oQf39/f39/f39/f39/f39/fyoZCAQQAUIBdEoQAACAPwAAgD8AAIA/AACAPyoLEAFCAXNKBAAA"
    "gD8qCBACQgF6SgEAWhQKAXgSDwoNCAESCQoDEgFtCgIIBGIUCgF5Eg8KDQgBEgkKAxIBbQoCCARCBAoAEA0="
)
EXACT = 4 * 255 * 127  # 129,540; with 16-bit sums of pairs 2 * 32,767


def saturates(run: Callable[[bytes, npt.NDArray[np.float32]], npt.NDArray[np.float32]]) -> bool:
    """Whether *run* (opens a graph, given as bytes, and runs it on x) misses the exact product."""
    y = run(GRAPH, np.full((4, 4), 255, np.float32))
    return bool((y < 0.9 * EXACT).any())
