"""How items become inputs of the graph: what a call may change, each for its kind of input."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

from edgessl.errors import RecipeError, nearest

LONG = ("cut", "chunk", "refuse")
PATCHES = ("grid", "random", "saliency")


@dataclass(frozen=True)
class InputOptions:
    """What ``Session.embed`` and ``Session.using`` take by name. None: as the bundle says.

    Texts:

    - ``prompt``: put before every text; ``prompt_name``: one of the model's own, by name.
    - ``max_length``: tokens, at most the bundle's.
    - ``long``: a text beyond that is ``"cut"``, embedded in pieces of which the vectors are
      averaged (``"chunk"``), or an error (``"refuse"``).
    - ``batch_tokens``: tokens in a batch, padding included.

    Images, of an encoder that takes fewer patches (MAE):

    - ``keep_patches``: the share that is looked at, above 0 and at most 1; ``patches``: which ones,
      and ``seed`` for ``"random"``.
    """

    prompt: str | None = None
    prompt_name: str | None = None
    max_length: int | None = None
    long: str = "cut"
    batch_tokens: int | None = None
    keep_patches: float | None = None
    patches: str = "grid"
    seed: int = 0

    def changed(self, task: str, changes: dict[str, Any]) -> InputOptions:
        """These options with *changes*, for inputs of *task*.

        Raises:
            RecipeError: an unknown option, one that is not for *task*, or a value that it lacks.
        """
        names = [field.name for field in fields(self)]
        for name, value in changes.items():
            if name not in names:
                raise RecipeError(f"there is no option {name!r}.{nearest(name, names)}")
            if name not in _OF.get(task, ()) and value != getattr(InputOptions, name):
                kinds = [kind for kind, able in _OF.items() if name in able]
                raise RecipeError(f"{name} is for {' and '.join(kinds)} bundles, this is {task}.")
        for name, choices in (("long", LONG), ("patches", PATCHES)):
            if changes.get(name, choices[0]) not in choices:
                given = changes[name]
                raise RecipeError(
                    f"{name} {given!r} is none of {', '.join(choices)}.{nearest(str(given), choices)}"
                )
        for name in ("max_length", "batch_tokens"):
            given = changes.get(name)
            if given is not None and (type(given) is not int or given < 1):
                raise RecipeError(f"{name} must be a whole number of at least 1, not {given!r}.")
        if changes.get("prompt") is not None and changes.get("prompt_name") is not None:
            raise RecipeError("give prompt or prompt_name, not both.")
        changes = dict(changes)
        if changes.get("prompt_name") is not None:
            changes.setdefault("prompt", None)  # of the two, what was said last
        elif changes.get("prompt") is not None:
            changes.setdefault("prompt_name", None)
        return replace(self, **changes)


_OF = {
    "text": ("prompt", "prompt_name", "max_length", "long", "batch_tokens"),
    "image": ("keep_patches", "patches", "seed"),
}
