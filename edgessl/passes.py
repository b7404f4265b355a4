"""Passes that make a checkpoint smaller, one on what the other has written: a recipe's, or the one
of ``edgessl compress``."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgessl.errors import RecipeError, nearest
from edgessl.progress import Steps
from edgessl.target import resolve

if TYPE_CHECKING:
    from edgessl.recipe import Recipe

_Say = Callable[[str], str]


@dataclass(frozen=True)
class Row:
    """``run``: what does it. ``options``: key -> type, besides ``data``. ``one_of``: of which
    exactly one is given."""

    run: str
    options: Mapping[str, type]
    one_of: tuple[str, ...] = ()


PASSES: dict[str, Row] = {
    "vocabulary": Row("edgessl.trimming:trim", {"size": int}),
    "layers": Row("edgessl.shortening:shorten", {"keep": int}, ("keep",)),
    "prune": Row(
        "edgessl.pruning:prune",
        {
            **dict.fromkeys(("latency", "flops", "params"), str),  # "0.67x"
            **{"target": str, "shape": str, "samples": int, "signal": str, "label_column": str},
        },
        ("latency", "flops", "params"),
    ),
    "width": Row("edgessl.narrowing:narrow", {"keep": int, "samples": int}, ("keep",)),
    "semi_structured": Row("edgessl.sparsifying:sparsify", {"method": str, "samples": int}),
    "distill": Row(
        "edgessl.distilling:distill",
        {
            **{"teacher": str, "minutes": float, "epochs": int, "objectives": list, "batch": int},
            **{"learning_rate": float, "seed": int, "samples": int},
        },
    ),
}


@dataclass(frozen=True)
class Pass:
    """``name``: of ``PASSES``. ``options``: as a recipe writes them; ``data`` is a tuple."""

    name: str
    options: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        plain = {key: list(v) if isinstance(v, tuple) else v for key, v in self.options.items()}
        return {"pass": self.name, **plain}


def read(name: str, section: Mapping[str, Any], folder: Path, where: str) -> Pass:
    """The section *name* of a recipe; paths in it are relative to *folder*.

    Raises:
        RecipeError: an unknown key (names the nearest), a value of another type, or what ``check``
            finds; *where* says whose it is.
    """
    known = PASSES[name].options
    options: dict[str, Any] = {}
    for key, value in section.items():
        place = f"{where}: {key} in [{name}]"
        if key == "data":
            options[key] = tuple(_path(folder, file) for file in _strings(value, place))
        elif key not in known:
            raise RecipeError(
                f"{where}: unknown key {key!r} in [{name}].{nearest(key, known)} "
                f"Keys: {', '.join(['data', *known])}."
            )
        elif known[key] is list:
            options[key] = _strings(value, place)
        elif type(value) is not known[key] and (type(value), known[key]) != (int, float):
            wanted = {str: "a string", int: "a whole number", float: "a number"}[known[key]]
            raise RecipeError(f"{place} is {value!r}; it should be {wanted}.")
        else:
            options[key] = _path(folder, value) if key == "teacher" else value
    found_pass = Pass(name, options)
    try:
        check(found_pass, lambda key: key)
    except RecipeError as err:
        raise RecipeError(f"{where}: [{name}]: {err}") from err
    return found_pass


def _strings(value: Any, place: str) -> tuple[str, ...]:
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, list) or not all(isinstance(one, str) for one in listed):
        raise RecipeError(f"{place} is {value!r}; it should be a string, or a list of them.")
    return tuple(listed)


def _path(folder: Path, name: str) -> str:
    """*name* is a path relative to *folder*, or something else."""
    return str(folder / name) if (folder / name).exists() else name


def check(one: Pass, say: _Say) -> None:
    """Whether its options are all there, and fit together.

    Args:
        say: how the user writes an option.

    Raises:
        RecipeError: they are not.
    """
    given, row = one.options, PASSES[one.name]
    named = [key for key in row.one_of if key in given]
    if row.one_of and len(named) != 1:
        raise RecipeError(f"give one of {', '.join(map(say, row.one_of))}.")
    if not given.get("data"):
        which = say(named[0] if named else one.name)
        raise RecipeError(f"{which} needs {say('data')}: some texts or images, without labels.")
    if one.name == "prune":
        _share(say(named[0]), str(given[named[0]]))
        if "latency" in given and not given.get("target"):
            raise RecipeError(
                f"{say('latency')} needs {say('target')}: where it is measured, onnx or openvino."
            )
        if "shape" in given and not given.get("target"):
            raise RecipeError(f"{say('shape')} is for {say('target')}, which is not given.")
        if "label_column" in given and given.get("signal") != "labels":
            raise RecipeError(f"{say('label_column')} is for {say('signal')} labels.")


def _share(what: str, text: str) -> float:
    """``0.6x`` -> 0.6"""
    try:
        fraction = float(text.removesuffix("x"))
    except ValueError:
        fraction = -1.0
    if not 0 < fraction < 1:
        raise RecipeError(
            f"{what} {text}: not a share of what it is now; say 0.67x for two thirds of it."
        )
    return fraction


def run(
    one: Pass,
    model: str,
    output: Path,
    *,
    column: str | None = None,
    revision: str | None = None,
    report: Steps | None = None,
) -> Any:
    """Write what *one* makes of *model* to the directory *output*; what it did.

    Raises:
        EdgesslError: see the functions that ``PASSES`` names.
    """
    options = dict(one.options)
    data = options.pop("data")
    if one.name == "prune":
        from edgessl.pruning import Budget

        (what,) = (key for key in PASSES["prune"].one_of if key in options)
        fraction = _share(what, str(options.pop(what)))
        where = options.pop("target", ""), options.pop("shape", "")
        options["budget"] = Budget(what, fraction, *where)
    return resolve(PASSES[one.name].run)(
        model, data, output, **options, column=column, revision=revision, report=report
    )


@contextmanager
def chained(
    recipe: Recipe, output: Path, *, column: str | None = None, report: Steps | None = None
) -> Iterator[tuple[Recipe, list[Any]]]:
    """Run all passes of *recipe*, for what will be written to *output*.

    Each leaves its checkpoint beside *output* until the end: stopped, the next run of the same
    passes goes on where it was.

    Yields:
        the recipe, its model being the last checkpoint, and what each pass did: None, where an
        earlier run had done it.

    Raises:
        EdgesslError: as ``run``.
    """
    if not recipe.passes:
        yield recipe, []
        return
    steps = report or Steps(quiet=True)
    work = output.with_name(f".{output.name}.passes")
    model, revision, found = recipe.model, recipe.revision, []
    name = Path(recipe.model).resolve().name if Path(recipe.model).exists() else recipe.model
    for number, one in enumerate(recipe.passes, 1):
        if len(recipe.passes) > 1:
            steps(f"pass {number} of {len(recipe.passes)}: {one.name}")
        if one.name == "distill":  # what is taught is by default what the encoder once was
            one = replace(one, options={"teacher": recipe.model, **one.options})
        place = work / _key(model, revision, one, column) / name.rpartition("/")[2]
        done = place.is_dir()
        found.append(
            None if done else run(one, model, place, column=column, revision=revision, report=steps)
        )
        model, revision = str(place), None
    yield replace(recipe, model=model, revision=None), found
    shutil.rmtree(work)


def _key(model: str, revision: str | None, one: Pass, column: str | None) -> str:
    """Changes with all that decides what *one* makes."""
    options = {**one.to_json(), "data": [_state(path) for path in one.options["data"]]}
    teacher = _state(options["teacher"]) if "teacher" in options else None
    facts = [_state(model), teacher, revision, column, options]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def _state(path: str) -> list[Any]:
    files = sorted(file for file in (Path(path), *Path(path).rglob("*")) if file.is_file())
    return [path, *((file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files)]


def public(passes: Sequence[Pass]) -> list[dict[str, Any]]:
    """For a manifest: without the paths of the machine that built it."""
    found = [one.to_json() for one in passes]
    for one in found:
        one["data"] = [Path(path).name for path in one["data"]]
        if "teacher" in one:
            one["teacher"] = (
                Path(one["teacher"]).name if Path(one["teacher"]).exists() else one["teacher"]
            )
    return found
