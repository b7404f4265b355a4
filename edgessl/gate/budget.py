"""The noun ``Budget``: limits for a device, a scenario and a shape, from a budgets.toml."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from edgessl.errors import RecipeError, nearest
from edgessl.gate.layout import shown
from edgessl.gate.plan import SCENARIOS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

LOWEST_CONFIDENCE = 0.8
PERCENT = r"^[0-9]+(\.[0-9]+)? ?%$"
GLOBS = {
    "device": "the device or its host name",
    "subject": "the name of the bundle",
    "scenario": f"the load: {', '.join(SCENARIOS)}",
    "shape": 'the inputs: "1x32" (items x tokens), "8" (items) or "corpus"',
    "data": "the data set of an accuracy figure",
}


@dataclass(frozen=True)
class Limit:
    """One bound of one quantity.

    ``kind``: ``absolute`` (``p99_ms`` at most 2.0), ``relative`` (``p99`` at most 0.05, that is 5 %,
    worse than the baseline's) or ``accuracy`` (``min_cosine``; ``max_drop`` of ``metric``).
    """

    kind: str
    name: str
    bound: float
    metric: str = ""

    @property
    def called(self) -> str:
        """As in the file: ``p99_ms``, ``relative.p99``, ``max_drop.sts.spearman``."""
        lead = "relative." if self.kind == "relative" else ""
        return f"{lead}{self.name}{'.' if self.metric else ''}{self.metric}"


@dataclass(frozen=True)
class Known:
    """A limit that there is.

    ``name``, ``kind``: as ``Limit`` has them. ``unit``: of the quantity. ``higher_is_better``: of
    the quantity, so the bound of an absolute limit is its least value, otherwise its largest.
    ``quantity``: the figure of a run that is read, and for accuracy a glob of ``Score.metric``.
    ``about``: the quantity in words. ``most``: the largest bound that makes sense.
    """

    kind: str
    name: str
    unit: str
    higher_is_better: bool
    quantity: str
    about: str
    most: float = math.inf


@dataclass(frozen=True)
class Budget:
    """Limits, and what they are for: globs, compared without regard to case.

    ``device``: against the environment's ``device`` and ``host``; ``data``: against the data set
    of a score.
    """

    name: str
    limits: tuple[Limit, ...]
    device: str = "*"
    subject: str = "*"
    scenario: str = "*"
    shape: str = "*"
    data: str = "*"


@dataclass(frozen=True)
class Budgets:
    """A whole file. ``confidence``: that no limit of the file is wrongly said to be broken, nor
    wrongly said to be kept; it is shared out among them. ``job_noise``: standard deviation, as a
    fraction, that a figure is taken to have from one job to the next on the same machine, where
    there are too few baseline reports to tell."""

    path: str
    budgets: tuple[Budget, ...]
    confidence: float = 0.99
    job_noise: float = 0.03


_SUFFIXES = {"ms": "_ms", "MB": "_mb", "mJ": "_mj", "items/s": ""}
_OF_RUNS = (  # figure of a run, unit, whether higher is better, the same in words
    ("p50", "ms", False, "median latency of a query"),
    ("p90", "ms", False, "90th percentile of a query's latency"),
    ("p95", "ms", False, "95th percentile of a query's latency"),
    ("p99", "ms", False, "99th percentile of a query's latency"),
    ("throughput", "items/s", True, "items done in a second"),
    ("cold_start", "ms", False, "from the start of the process to the first vector"),
    ("memory", "MB", False, "peak resident memory, of 10^6 bytes"),
    ("device_memory", "MB", False, "peak memory on the accelerator, of 10^6 bytes"),
    ("size", "MB", False, "all files of the bundle, of 10^6 bytes"),
    ("energy", "mJ", False, "energy of an item"),
)
_OF_SCORES = (  # limit, metric, the same in words
    ("min_cosine", "cosine_mean", "mean cosine to the reference"),
    ("min_cosine_p1", "cosine_p1", "1st percentile of the cosine to the reference"),
    ("min_cosine_min", "cosine_min", "smallest cosine to the reference"),
    ("min_neighbours", "neighbours@*", "share of the reference's nearest neighbours that stay"),
)
_ROWS = [
    *(
        Known("absolute", name + _SUFFIXES[unit], unit, up, name, about)
        for name, unit, up, about in _OF_RUNS
    ),
    *(Known("accuracy", name, "", True, metric, about, 1.0) for name, metric, about in _OF_SCORES),
    Known("accuracy", "max_drop", "", True, "*", "loss against the reference, in its own unit"),
    *(Known("relative", name, unit, up, name, about, 1.0) for name, unit, up, about in _OF_RUNS),
]
# ``Limit.called``, without the metric of ``max_drop`` -> its row; in the order of the docs
LIMITS: dict[str, Known] = {
    f"relative.{row.name}" if row.kind == "relative" else row.name: row for row in _ROWS
}


def known(limit: Limit) -> Known:
    """The row of *limit*."""
    return LIMITS[f"relative.{limit.name}" if limit.kind == "relative" else limit.name]


def for_device(budget: Budget, environment: Mapping[str, Any]) -> bool:
    """Whether *budget* is for the machine of this environment."""
    names = [str(environment.get(name) or "") for name in ("device", "host")]
    return any(matches(budget.device, name) for name in names)


def matches(pattern: str, value: str) -> bool:
    """Whether a glob of a budget fits, without regard to case."""
    return fnmatchcase(value.lower(), pattern.lower())


def read(path: Path) -> Budgets:
    """Read a budgets.toml, as docs/gate.md has it.

    Raises:
        RecipeError: no such file, not TOML, no budget in it, an unknown key (names the nearest),
            a value of the wrong type or out of range, two budgets of one name, or a budget
            without limits; one line that says where.
    """
    data = _toml(path)
    if stray := next((key for key in data if key in (*GLOBS, *LIMITS, "name", "relative")), None):
        raise RecipeError(f"{path}: {stray} stands before the first line [[budget]].")
    _refuse_unknown(data, ("confidence", "job_noise", "budget"), str(path))
    tables = data.get("budget")
    if not isinstance(tables, list) or not tables:
        raise RecipeError(f"{path}: no budgets. Each begins with a line [[budget]].")
    budgets = []
    for number, table in enumerate(tables, 1):
        where = f"{path}: [[budget]] {number}"
        if not isinstance(table, dict):
            raise RecipeError(f"{where} is {shown(table)}; it should be a table.")
        budgets.append(_budget(table, where, f"budget {number}"))
        if budgets[-1].name in [budget.name for budget in budgets[:-1]]:
            raise RecipeError(f"{where}: an earlier one is called {budgets[-1].name!r}, too.")
    confidence = _number(data.get("confidence", Budgets.confidence), f"{path}: confidence")
    if not LOWEST_CONFIDENCE <= confidence < 1:
        raise RecipeError(
            f"{path}: confidence is {confidence:g}; it should be at least {LOWEST_CONFIDENCE} and "
            "below 1, such as 0.99."
        )
    noise = _share(data.get("job_noise", Budgets.job_noise), f"{path}: job_noise")
    return Budgets(str(path), tuple(budgets), confidence, noise)


def _toml(path: Path) -> dict[str, Any]:
    where = f"budgets {str(path)!r}"
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as err:
        raise RecipeError(f"{where}: {err.strerror or err}.") from err
    except UnicodeDecodeError as err:
        raise RecipeError(f"{where}: not UTF-8 text (byte {err.start}).") from err
    except (ValueError, RecursionError) as err:  # also a number of thousands of digits
        raise RecipeError(f"{where}: not TOML: {err}.") from err


def _budget(table: Mapping[str, Any], where: str, name: str) -> Budget:
    if "name" in table:
        name = _text(table["name"], f"{where}: name")
        where += f" ({name!r})"
    own = [key for key, row in LIMITS.items() if row.kind != "relative"]
    _refuse_unknown(table, ("name", *GLOBS, *own, "relative"), where)
    globs = {key: _text(table[key], f"{where}: {key}") for key in GLOBS if key in table}
    scenario = globs.get("scenario", "*")
    if not any(matches(scenario, each) for each in SCENARIOS):
        raise RecipeError(
            f"{where}: no scenario {scenario!r}.{nearest(scenario, SCENARIOS)} "
            f"Scenarios: {', '.join(SCENARIOS)}."
        )
    limits = tuple(_limits(table, where))
    if not limits:
        raise RecipeError(f"{where} has no limits. Add one, such as p99_ms = 2.0.")
    return Budget(name, limits, **globs)


def _limits(table: Mapping[str, Any], where: str) -> Iterable[Limit]:
    for key, value in table.items():
        at = f"{where}: {key}"
        if key == "relative":
            _refuse_unknown(_table(value, at), [figure for figure, *_ in _OF_RUNS], at)
            for name, share in value.items():
                yield _limit(LIMITS[f"relative.{name}"], _share(share, f"{at}.{name}"), at)
        elif key == "max_drop":
            for metric, drop in _table(value, at).items():
                if isinstance(drop, dict):
                    raise RecipeError(f'{at}.{metric}: quote a metric with a dot: "sts.spearman".')
                bound = _number(drop, f"{at}.{_text(metric, at)}")
                yield _limit(LIMITS[key], bound, at, metric)
        elif key in LIMITS:
            yield _limit(LIMITS[key], _number(value, at), at)


def _limit(row: Known, bound: float, where: str, metric: str = "") -> Limit:
    if bound > row.most:
        raise RecipeError(f"{where} is {bound:g}, more than {row.most:g}.")
    return Limit(row.kind, row.name, bound, metric)


def _share(value: Any, where: str) -> float:
    """0.05 and ``"5%"`` alike."""
    if isinstance(value, str) and re.fullmatch(PERCENT, value):
        value = float(value.rstrip(" %")) / 100
    if isinstance(value, str) or (share := _number(value, where)) > 1:
        raise RecipeError(f'{where} is {shown(value)}; write 5 % as 0.05 or "5%".')
    return share


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise RecipeError(f"{where} is {shown(value)}; it should be a number.")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not (math.isfinite(number) and number > 0):
        raise RecipeError(f"{where} is {number:g}; it should be above 0 and finite.")
    return number


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise RecipeError(f"{where} is {shown(value)}; it should be text, on one line.")
    return value


def _table(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise RecipeError(f"{where} is {shown(value)}; it should be a table: {{ NAME = NUMBER }}.")
    return value


def _refuse_unknown(table: Mapping[str, Any], keys: Iterable[str], where: str) -> None:
    for key in table:
        if key not in keys:
            raise RecipeError(
                f"{where}: unknown key {key!r}.{nearest(key, keys)} Keys: {', '.join(keys)}."
            )
