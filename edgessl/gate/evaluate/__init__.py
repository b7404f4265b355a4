"""Accuracy: a bundle's vectors against another's, and against labels."""

from __future__ import annotations

from edgessl.gate.evaluate.run import evaluate

__all__ = ["evaluate"]
