"""The JSON schema of budgets.toml, for editors.

``python -m edgessl.gate.budget_schema`` prints it; ``budgets.schema.json`` beside this file is the
same text.
"""

from __future__ import annotations

import json
import math
from typing import Any

from edgessl.gate.budget import GLOBS, LIMITS, LOWEST_CONFIDENCE, PERCENT, Budgets, Known


def schema() -> dict[str, Any]:
    """It accepts what ``edgessl.gate.budget.read`` accepts, but for what a schema cannot say:
    numbers that are not finite, names given twice, globs of scenarios."""
    relative = {row.name: _of(row) for row in LIMITS.values() if row.kind == "relative"}
    limits = {
        row.name: _of(row)
        for row in LIMITS.values()
        if row.kind != "relative" and row.name != "max_drop"
    }
    limits["relative"] = _table("At most that much worse than the baseline.", relative)
    limits["max_drop"] = {
        "type": "object",
        "description": "Metric -> the most that may be lost against the reference, in its unit.",
        "propertyNames": {"pattern": r"\S"},
        "additionalProperties": _number(math.inf),
    }
    budget = _table(
        "Limits, and what they are for.",
        {
            "name": _text("How reports call this budget."),
            **{key: _text(f"Only for this: {about}. A glob.") for key, about in GLOBS.items()},
            **limits,
        },
    )
    # an empty table of limits is none
    budget["anyOf"] = [
        {"required": [name], "properties": {name: {"minProperties": 1}}} for name in limits
    ]
    whole = _table(
        "Limits on the latency, memory, size, energy and accuracy of bundles.",
        {
            "confidence": {
                "type": "number",
                "minimum": LOWEST_CONFIDENCE,
                "exclusiveMaximum": 1,
                "default": Budgets.confidence,
                "description": "Of all verdicts of the file together.",
            },
            "job_noise": {
                "description": "How much one bundle differs from job to job, as a share.",
                "default": Budgets.job_noise,
                **_share(1),
            },
            "budget": {"type": "array", "minItems": 1, "items": budget},
        },
    )
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "budgets.toml of edgessl",
        "required": ["budget"],
        **whole,
    }


def text() -> str:
    """``schema`` as the file has it."""
    return json.dumps(schema(), indent=2) + "\n"


def _of(row: Known) -> dict[str, Any]:
    if row.kind == "relative":
        about = f"How much worse, as a share of the baseline's: {row.about}."
        return {"description": about, **_share(row.most)}
    bound = "At least" if row.higher_is_better else "At most"
    about = f"{bound}: {row.about}{', ' if row.unit else ''}{row.unit}."
    return {"description": about, **_number(row.most)}


def _number(most: float) -> dict[str, Any]:
    number: dict[str, Any] = {"type": "number", "exclusiveMinimum": 0}
    return {**number, "maximum": most} if math.isfinite(most) else number


def _share(most: float) -> dict[str, Any]:
    return {"anyOf": [_number(most), {"type": "string", "pattern": PERCENT}]}


def _text(about: str) -> dict[str, Any]:
    return {"type": "string", "pattern": r"\S", "description": about}


def _table(about: str, properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "description": about,
        "properties": properties,
        "additionalProperties": False,
    }


if __name__ == "__main__":
    print(text(), end="")
