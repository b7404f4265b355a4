"""devices.toml: the devices that measurements run on, by name."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from edgessl.errors import RecipeError, nearest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DEFAULT = Path("devices.toml")
_ADDRESS = re.compile(
    r"(ssh://)?((?P<user>[^@/:\s]+)@)?(?P<host>\[[0-9A-Za-z:.%]+\]|[^@/:\s\[\]]+)(:(?P<port>\d+))?/?"
)


@dataclass(frozen=True)
class Device:
    """Where to measure. ``host``: as for the ``ssh`` command: a name of ~/.ssh/config, or
    ``user@host``.

    ``python``: of the device; empty: the first that is new enough. ``install``: make an
    environment; false: ``python`` has all that bundles need (edgessl itself is always sent along).
    ``directory``: of all that is kept there. ``extras``: of edgessl; None: those of the bundles'
    targets. ``packages``, ``pip_args``: added to pip's. ``wheelhouse``: a local folder of wheels,
    for a device without network. ``power_mode``: of a Jetson, for the time of the measurement.
    ``cpus``: cores to measure on.
    """

    name: str
    host: str
    port: int | None = None
    python: str = ""
    install: bool = True
    directory: str = ""
    extras: tuple[str, ...] | None = None
    packages: tuple[str, ...] = ()
    pip_args: tuple[str, ...] = ()
    wheelhouse: str = ""
    power_mode: str = ""
    cpus: tuple[int, ...] = ()

    @property
    def by_hand(self) -> str:
        """The command with which a person reaches it."""
        return f"ssh{f' -p {self.port}' if self.port else ''} {self.host}"


_KEYS = {field.name: str(field.type) for field in fields(Device) if field.name != "name"}
_KINDS = {
    "str": (str, "a string"),
    "int": (int, "a whole number"),
    "bool": (bool, "true or false"),
    "tuple[str": (str, "a list of strings"),
    "tuple[int": (int, "a list of whole numbers"),
}


def devices(path: Path) -> Mapping[str, Device]:
    """All devices of a file, by name.

    Raises:
        RecipeError: no such file, not TOML, no devices, an unknown key (names the nearest), or a
            value of the wrong type.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as err:
        raise RecipeError(
            f"devices {str(path)!r}: {err.strerror or err}. Name your devices there "
            "(docs/devices.md), or say where one is: ssh://user@host"
        ) from err
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as err:
        raise RecipeError(f"devices {str(path)!r}: not TOML ({err}).") from err
    for section in data:
        if section != "device":
            raise RecipeError(
                f"{path}: unknown section [{section}]. A device is a section [device.NAME]."
            )
    tables = data.get("device")
    tables = tables if isinstance(tables, dict) else {}
    if not tables or not all(isinstance(table, dict) for table in tables.values()):
        raise RecipeError(f"{path}: names no device. Write: [device.NAME] and host = 'user@host'")
    return {name: _device(path, name, table) for name, table in tables.items()}


def find(where: str, path: Path | None = None) -> Device:
    """The device that ``--on`` means: ``ssh://[user@]host[:port]``, or a name in *path*.

    Args:
        path: a devices.toml; None: the one in the working directory.

    Raises:
        RecipeError: no such address or name (names the nearest).
    """
    if where.startswith("ssh://"):
        host, port = _address(where, "device")
        return Device(name="", host=host, port=port)
    if path is None and not DEFAULT.exists():
        raise RecipeError(
            f"no device {where!r}: there is no {DEFAULT} here to look it up. Name the file with "
            "--devices FILE, or an address: ssh://user@host"
        )
    known = devices(path or DEFAULT)
    if where not in known:
        raise RecipeError(
            f"no device {where!r} in {path or DEFAULT}.{nearest(where, known)} "
            f"Devices: {', '.join(known)}."
        )
    return known[where]


def find_all(where: Sequence[str], path: Path | None = None) -> dict[str, Device]:
    """Several, by what they were called.

    Raises:
        RecipeError: as ``find``; the same one twice.
    """
    for name in where:
        if where.count(name) > 1:
            raise RecipeError(f"device {name!r} is given twice.")
    return {name: find(name, path) for name in where}


def _address(text: str, where: str) -> tuple[str, int | None]:
    """Host with its user, and port."""
    found = _ADDRESS.fullmatch(text)
    # A leading dash would be an option of ssh.
    if found is None or text.removeprefix("ssh://").startswith("-") or "@-" in text:
        raise RecipeError(f"{where}: {text!r} is no address. Write it as ssh://user@host:port")
    port = int(found["port"]) if found["port"] else None
    if port is not None and not 0 < port < 65536:
        raise RecipeError(f"{where}: port {port} does not exist; ports are 1 to 65535.")
    user = f"{found['user']}@" if found["user"] else ""
    return user + found["host"].strip("[]"), port


def _device(path: Path, name: str, table: Mapping[str, Any]) -> Device:
    where = f"{path}: [device.{name}]"
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key not in _KEYS:
            raise RecipeError(
                f"{where} has no key {key!r}.{nearest(key, _KEYS)} Keys: {', '.join(_KEYS)}."
            )
        if key == "power_mode" and type(value) is int:
            value = str(value)
        values[key] = _checked(value, _KEYS[key], f"{where} {key}")
    if not values.get("host"):
        raise RecipeError(f"{where} has no host. Write: host = 'user@host'")
    host, port = _address(values["host"], f"{where} host")
    if port is not None and values.setdefault("port", port) != port:
        raise RecipeError(f"{where} names two ports, {port} and {values['port']}.")
    device = replace(Device(name, host), **{**values, "host": host})
    if device.wheelhouse:
        device = replace(device, wheelhouse=str(path.parent / device.wheelhouse))
    if not device.install and not device.python:
        raise RecipeError(f"{where}: install = false needs python = 'PATH' of what to use there.")
    return device


def _checked(value: Any, annotation: str, where: str) -> Any:
    kind, said = next(_KINDS[start] for start in _KINDS if annotation.startswith(start))
    listed = annotation.startswith("tuple")
    values = value if listed and isinstance(value, list) else [value]
    if listed != isinstance(value, list) or any(type(item) is not kind for item in values):
        raise RecipeError(f"{where} is {value!r}; it should be {said}.")
    return tuple(values) if listed else value
