"""The database of builds: SQLite, opened for each transaction, by any number of processes."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, create_engine, event
from sqlalchemy.exc import DatabaseError, OperationalError
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from coreimage.errors import BusyError, CoreImageError, DataError
from coreimage.farm.schema import SCHEMA, upgrade
from coreimage.lib import files

# How long to wait for another process that writes, in seconds.
_PATIENCE = 30.0
_PAUSE = 0.02


class Database:
    """A file with the tables that this version knows; raises DataError for one that has others."""

    def __init__(self, path: Path) -> None:
        self._path = path
        # No pool: a connection lives as long as one transaction and is never shared with a fork.
        self._engine = create_engine(
            f"sqlite:///{path}", poolclass=NullPool, connect_args={"timeout": _PATIENCE}
        )
        event.listen(self._engine, "connect", _configure)
        event.listen(self._engine, "begin", _begin)
        self._prepare()

    @contextmanager
    def session(self, *, write: bool = False) -> Iterator[Session]:
        """Yield a transaction; raises BusyError where another one that writes does not end."""
        engine = self._engine.execution_options(immediate=write)
        try:
            with Session(engine, expire_on_commit=False) as session, session.begin():
                yield session
        except OperationalError as error:
            raise _complaint(self._path, error.orig) from error
        except DatabaseError as error:
            raise DataError(f"'{self._path}' is not a usable database: {error.orig}") from error

    def _prepare(self) -> None:
        """Make the tables, once, while nobody else does."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        if self._path.exists() and self._schema() == SCHEMA:
            return
        with files.lock(
            self._path.with_suffix(".lock"), purpose="making the database", wait=_PATIENCE
        ):
            self._use_write_ahead_log()
            found = self._schema()
            if found > SCHEMA:
                raise DataError(
                    f"'{self._path}' has schema {found}, this version knows {SCHEMA}",
                    hint="use the version of coreimage that wrote it, or a newer one",
                )
            if found < SCHEMA:
                with self.session(write=True) as session:
                    upgrade(session.connection(), found)

    def _use_write_ahead_log(self) -> None:
        """Let readers and a writer work at the same time; the file remembers it.

        SQLite does not wait for others when it changes this: whoever has just looked whether there
        are tables would make it fail.
        """
        deadline = time.monotonic() + _PATIENCE
        while True:
            connection = self._engine.raw_connection()
            try:
                connection.cursor().execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise _complaint(self._path, error) from error
            except sqlite3.DatabaseError as error:
                raise DataError(f"'{self._path}' is not a usable database: {error}") from error
            else:
                return
            finally:
                connection.close()
            time.sleep(_PAUSE)

    def _schema(self) -> int:
        with self.session() as session:
            return int(session.connection().exec_driver_sql("PRAGMA user_version").scalar_one())


def _complaint(path: Path, error: BaseException | None) -> CoreImageError:
    """Return the error for what SQLite says."""
    if "locked" in str(error):
        return BusyError(
            f"'{path}' is in use by another process that does not let go: {error}",
            hint="wait until it has finished and run the command again",
        )
    return CoreImageError(f"'{path}': {error}")


def _configure(connection: Any, _: Any) -> None:
    # The driver would begin transactions when it likes; _begin does it instead.
    connection.isolation_level = None
    connection.execute("PRAGMA synchronous = FULL")


def _begin(connection: Connection) -> None:
    # A transaction that will write takes the write lock first: two that have read would both
    # hold what the other one needs.
    immediate = connection.get_execution_options().get("immediate", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")
