"""The store: one SQLite file to which reports are appended and never changed.

One file, because CI caches and artefacts carry files; a rollback journal and not a write-ahead
log, because the latter is two more files and does not work on network disks. Every append is one
transaction: a process that is killed leaves the store as it was.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
import zlib
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from edgessl.errors import OutputError, RecipeError
from edgessl.gate import quantities
from edgessl.gate.budget import LIMITS
from edgessl.gate.report import Report, loads

VERSION = 1
_APPLICATION = 0x45445353  # "EDSS", in the file's header
_WAIT_S = 60.0  # for other processes
_SCHEMA = f"""
CREATE TABLE report (
    id INTEGER PRIMARY KEY,
    sha256 TEXT NOT NULL UNIQUE,
    created TEXT NOT NULL,
    "commit" TEXT NOT NULL,
    environment TEXT NOT NULL,  -- JSON
    content BLOB NOT NULL  -- the report's JSON, zlib
);
CREATE TABLE figure (  -- what series are made of, so that they need no report unpacked
    report INTEGER NOT NULL REFERENCES report (id),
    subject TEXT NOT NULL,
    scenario TEXT NOT NULL,
    shape TEXT NOT NULL,
    data TEXT NOT NULL,
    metric TEXT NOT NULL,
    unit TEXT NOT NULL,
    higher_is_better INTEGER NOT NULL,
    settings TEXT NOT NULL,  -- JSON: what the session was opened with
    value REAL NOT NULL,
    low REAL NOT NULL,  -- of the rounds
    high REAL NOT NULL,
    PRIMARY KEY (report, subject, scenario, shape, data, metric)
) WITHOUT ROWID;
PRAGMA application_id = {_APPLICATION};
PRAGMA user_version = {VERSION};
"""
_FIGURES = 'SELECT figure.*, created, "commit", environment FROM figure JOIN report ON report = id'


def append(store: Path, report: Report) -> int:
    """Put *report* into the file *store*, which is made where there is none.

    Returns:
        its id; that of the first time where the same report is there already.

    Raises:
        OutputError: the store cannot be written (a full disk, no right to); it is as it was.
        RecipeError: *store* is not a store, is damaged, or of a newer edgessl.
    """
    text = report.dumps()
    digest = hashlib.sha256(text.encode()).hexdigest()
    row = (
        digest,
        report.created,
        report.commit,
        json.dumps(report.environment, sort_keys=True),
        zlib.compress(text.encode(), 6),
    )
    with _opened(store, write=True) as database:
        known = database.execute("SELECT id FROM report WHERE sha256 = ?", (digest,)).fetchone()
        if known is not None:
            return int(known[0])
        number = database.execute(
            'INSERT INTO report (sha256, created, "commit", environment, content) '
            "VALUES (?, ?, ?, ?, ?)",
            row,
        ).lastrowid
        found = [(number, *figure) for figure in _figures(report)]
        database.executemany(f"INSERT INTO figure VALUES ({', '.join('?' * 12)})", found)
    assert number is not None
    return number


def count(store: Path) -> int:
    """How many reports there are. Raises as ``figures``."""
    with _opened(store) as database:
        return int(database.execute("SELECT count(*) FROM report").fetchone()[0])


def report(store: Path, number: int) -> Report:
    """The whole report of that id.

    Raises:
        RecipeError: there is none; and as ``figures``.
    """
    with _opened(store) as database:
        row = database.execute("SELECT content FROM report WHERE id = ?", (number,)).fetchone()
    if row is None:
        raise RecipeError(f"{store} has no report {number}.")
    try:
        text = zlib.decompress(row[0]).decode()
    except (zlib.error, UnicodeDecodeError) as err:
        raise _damaged(store, err) from err
    return loads(text, f"{store}, report {number}")


def figures(store: Path, wanted: Mapping[str, str]) -> list[dict[str, Any]]:
    """Rows of the table ``figure`` with their report's created, commit and environment, by time.

    Args:
        wanted: column -> value, of ``subject``, ``scenario``, ``shape``, ``data``, ``metric``.

    Raises:
        RecipeError: no such file, not a store, damaged, or of a newer edgessl.
    """
    asked = " AND ".join(f"figure.{column} = ?" for column in wanted) or "1"
    with _opened(store) as database:
        found = database.execute(
            f"{_FIGURES} WHERE {asked} ORDER BY created, report", tuple(wanted.values())
        )
        names = [column[0] for column in found.description]
        return [dict(zip(names, row, strict=True)) for row in found]


def _figures(report: Report) -> Iterator[tuple[Any, ...]]:
    """Rows for the table ``figure``, without the report's id."""
    for run in report.runs:
        settings = json.dumps(run.settings, sort_keys=True)
        for name in quantities.QUANTITIES:
            if name == "size":
                continue
            value = quantities.value(run, name)
            if value is not None:
                visits = quantities.by_round(run, name).values()
                kind = LIMITS[f"relative.{name}"]
                about = (name, kind.unit, kind.higher_is_better, settings)
                where = (run.subject, run.scenario, run.shape, "")
                yield *where, *about, value, min(visits), max(visits)
    for subject in report.subjects:
        size = quantities.size_mb(subject)
        if size is not None:
            yield subject.name, "", "", "", "size", "MB", False, "{}", size, size, size
    for score in report.scores:
        about = (score.metric, "", score.higher_is_better, "{}")
        yield score.subject, "", "", score.data, *about, score.value, score.value, score.value


@contextlib.contextmanager
def _opened(store: Path, write: bool = False) -> Iterator[sqlite3.Connection]:
    """A connection inside one transaction, which is kept when the block ends without an error."""
    if not write and not store.is_file():
        raise RecipeError(f"no history at {str(store)!r}. Begin one with: edgessl history add")
    # Readers, too, have to be able to write: what a killed process began is undone by the next.
    address = f"{store.absolute().as_uri()}?mode={'rwc' if write else 'rw'}"
    try:
        connection = sqlite3.connect(address, timeout=_WAIT_S, isolation_level=None, uri=True)
        with closing(connection) as database:
            database.execute("PRAGMA synchronous = FULL")
            database.execute("BEGIN IMMEDIATE" if write else "BEGIN")
            try:
                _check(store, database, write)
                yield database
                database.execute("COMMIT")
            finally:
                if database.in_transaction:
                    database.execute("ROLLBACK")
    except sqlite3.Error as err:
        raise _explained(store, err, write) from err


def _check(store: Path, database: sqlite3.Connection, write: bool) -> None:
    """See that it is a store of this version; an empty file becomes one."""
    application, version, tables = (
        database.execute(query).fetchone()[0]
        for query in (
            "PRAGMA application_id",
            "PRAGMA user_version",
            "SELECT count(*) FROM sqlite_master",
        )
    )
    if application == 0 and version == 0 and tables == 0 and write:
        for statement in _SCHEMA.split(";"):  # executescript would end the transaction
            database.execute(statement)
    elif application != _APPLICATION:
        raise RecipeError(f"{store} is not a history of edgessl; name another file.")
    elif version != VERSION:
        raise RecipeError(
            f"{store} is history version {version}, this edgessl knows {VERSION}. Use the edgessl "
            "that wrote it: pip install --upgrade edgessl"
        )


def _explained(store: Path, err: sqlite3.Error, write: bool) -> RecipeError | OutputError:
    said = str(err)
    if isinstance(err, sqlite3.OperationalError):
        if "locked" in said:
            return OutputError(
                f"{store} is in use by another process for more than {_WAIT_S:.0f} s. Try again."
            )
        if write:
            hint = "Make room" if "full" in said else "Name a file that can be written"
            return OutputError(f"cannot write {store}: {said}; it is as it was. {hint}.")
        return RecipeError(f"cannot read {store}: {said}.")
    return _damaged(store, err)


def _damaged(store: Path, err: Exception) -> RecipeError:
    return RecipeError(
        f"{store} is damaged, or no history at all ({err}). Bring back a copy, or add the reports "
        "to a new file."
    )
