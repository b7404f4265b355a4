"""JSON as frozen dataclasses: every value is held against the type that its field declares."""

from __future__ import annotations

import functools
import re
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, TypeVar

from edgessl.errors import nearest

_T = TypeVar("_T")
_LARGEST = 2**63  # of whole numbers: what numpy holds
_HUGE = 1e100  # sums and squares of anything below are finite, too
_SURROGATES = re.compile(r"[\ud800-\udfff]")


def build(kind: type[_T], value: Any, where: str = "") -> _T:
    """A *kind* of what ``json.loads`` gave: text, whole numbers, finite numbers, true and false,
    ``X | None``, tuples of one type or of a fixed length, ``dict[str, Any]``, other dataclasses.

    Raises:
        ValueError: one line that says where, and what should be there.
    """
    if not isinstance(value, dict):
        raise ValueError(f"{where or 'it'} is {shown(value)}; it should be an object")
    declared = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]
    for name in value:
        if name not in declared:
            place = f"{where} has an" if where else "an"
            raise ValueError(f"{place} unknown field {shown(name)}.{nearest(name, declared)}")
    for name, field in declared.items():
        if name not in value and field.default is MISSING and field.default_factory is MISSING:
            raise ValueError(f"{where or 'it'} has no {name!r}")
    lead = f"{where}." if where else ""
    hints: Mapping[str, Any] = _hints(kind)  # type: ignore[arg-type]  # a type can be hashed
    return kind(**{name: _value(hints[name], item, lead + name) for name, item in value.items()})


def shown(value: Any) -> str:
    """*value* as a message has it: short, on one line."""
    try:
        text = repr(value)
    except ValueError:  # Python writes no whole number of thousands of digits
        return "a very large number"
    return text if len(text) <= 60 else f"{text[:57]}..."


@functools.cache
def _hints(kind: type) -> Mapping[str, Any]:
    return typing.get_type_hints(kind)


def _value(kind: Any, value: Any, where: str) -> Any:
    if kind in _SCALARS:
        return _scalar(kind, value, where)
    if is_dataclass(kind):
        return build(typing.cast(type, kind), value, where)
    arguments = typing.get_args(kind)
    if typing.get_origin(kind) is types.UnionType:  # X | None
        return None if value is None else _value(arguments[0], value, where)
    if typing.get_origin(kind) is tuple:
        return _tuple(arguments, value, where)
    if not isinstance(value, dict):
        raise ValueError(f"{where} is {shown(value)}; it should be an object")
    _check_any(value, where)
    return value


def _tuple(kinds: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    several = kinds[-1] is Ellipsis
    if not isinstance(value, list) or not (several or len(value) == len(kinds)):
        count = "" if several else f" of {len(kinds)}"
        raise ValueError(f"{where} is {shown(value)}; it should be a list{count}")
    if several and kinds[0] in _SCALARS:  # samples: there are many
        fine = _SCALARS[kinds[0]][0]
        if all(map(fine, value)):
            return tuple(value)
    each = [kinds[0]] * len(value) if several else kinds
    return tuple(
        _value(kind, item, f"{where}[{index}]")
        for index, (kind, item) in enumerate(zip(each, value, strict=True))
    )


def _check_any(value: Any, where: str) -> None:
    """What has no declared type is JSON that can be written again."""
    if isinstance(value, dict):
        for key, item in value.items():
            _scalar(str, key, f"a name in {where}")
            _check_any(item, f"{where}.{key}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _check_any(item, f"{where}[{index}]")
    elif value is not None:
        _scalar(type(value), value, where)


def _scalar(kind: type, value: Any, where: str) -> Any:
    fine, name = _SCALARS[kind]
    if not fine(value):
        raise ValueError(f"{where} is {shown(value)}; it should be {name}")
    return value


def _is_text(value: Any) -> bool:
    # half of a surrogate pair cannot be written to any file
    return isinstance(value, str) and (value.isascii() or not _SURROGATES.search(value))


def _is_whole(value: Any) -> bool:
    return type(value) is int and -_LARGEST < value < _LARGEST


def _is_number(value: Any) -> bool:
    return _is_whole(value) or (type(value) is float and abs(value) < _HUGE)  # nor NaN


_SCALARS: dict[Any, tuple[Callable[[Any], bool], str]] = {
    str: (_is_text, "text"),
    int: (_is_whole, "a whole number"),
    float: (_is_number, "a finite number"),
    bool: (lambda value: type(value) is bool, "true or false"),
}
