"""The store of builds: SQLite, one row for each build, ids and versions never given twice.

Rows stay in this module; what goes in and out is `model.build.Build`.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import (
    JSON,
    Connection,
    Dialect,
    Enum,
    Index,
    Select,
    String,
    TypeDecorator,
    UniqueConstraint,
    create_engine,
    event,
    func,
    select,
)
from sqlalchemy.exc import DatabaseError, OperationalError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.pool import NullPool

from coreimage.errors import BusyError, CoreImageError, DataError, NotFoundError
from coreimage.lib import files
from coreimage.model.build import Build, BuildRequest, BuildState
from coreimage.model.publication import next_build_id

_SCHEMA = 1
# How long to wait for another process that writes, in seconds.
_PATIENCE = 30.0
_SHOWN_IDS = 5


class _Time(TypeDecorator[datetime]):
    """Aware UTC times as ISO 8601 text, which sorts as the times do."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> str | None:
        del dialect
        return None if value is None else value.isoformat(timespec="microseconds")

    def process_result_value(self, value: str | None, dialect: Dialect) -> datetime | None:
        del dialect
        return None if value is None else datetime.fromisoformat(value)


class _Base(DeclarativeBase):
    pass


class _Row(_Base):
    __tablename__ = "build"
    __table_args__ = (
        UniqueConstraint("project", "series", "arch", "version"),
        Index("build_by_fingerprint", "fingerprint", "state"),
        Index("build_by_state", "state"),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    project: Mapped[str]
    release: Mapped[str]
    series: Mapped[str]
    arch: Mapped[str]
    version: Mapped[str]
    state: Mapped[BuildState] = mapped_column(
        Enum(
            BuildState,
            native_enum=False,
            create_constraint=True,
            name="state",
            values_callable=lambda states: [state.value for state in states],
        )
    )
    created_at: Mapped[datetime] = mapped_column(_Time)
    started_at: Mapped[datetime | None] = mapped_column(_Time)
    finished_at: Mapped[datetime | None] = mapped_column(_Time)
    fingerprint: Mapped[str]
    artifacts: Mapped[list[str]] = mapped_column(JSON)
    message: Mapped[str]
    extra: Mapped[dict[str, Any]] = mapped_column(JSON)


def _fields(build: Build) -> dict[str, Any]:
    request = build.request
    return {
        "id": build.id,
        "project": request.project,
        "release": request.release,
        "series": request.series,
        "arch": request.arch,
        "version": request.version,
        "state": build.state,
        "created_at": build.created_at,
        "started_at": build.started_at,
        "finished_at": build.finished_at,
        "fingerprint": build.fingerprint,
        "artifacts": list(build.artifacts),
        "message": build.message,
        "extra": dict(build.extra),
    }


def _build(row: _Row) -> Build:
    return Build(
        id=row.id,
        request=BuildRequest(
            project=row.project,
            release=row.release,
            series=row.series,
            arch=row.arch,
            version=row.version,
        ),
        state=row.state,
        created_at=row.created_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
        fingerprint=row.fingerprint,
        artifacts=tuple(row.artifacts),
        message=row.message,
        extra=row.extra,
    )


def _nowhere(_: Build) -> None:
    """Record a build in the database only."""


class Store:
    """The builds of a workspace.

    `record` is called with each new or changed build, inside the transaction, so that what it
    writes comes in the same order as the changes; when it fails, nothing has changed.
    """

    def __init__(self, path: Path, *, record: Callable[[Build], None] = _nowhere) -> None:
        self._path = path
        self._record = record
        # No pool: a connection lives as long as one transaction and is never shared with a fork.
        self._engine = create_engine(
            f"sqlite:///{path}", poolclass=NullPool, connect_args={"timeout": _PATIENCE}
        )
        event.listen(self._engine, "connect", _configure)
        event.listen(self._engine, "begin", _begin)
        self._prepare()

    def request(
        self,
        *,
        project: str,
        release: str,
        series: str,
        arches: Sequence[str],
        now: datetime,
        fingerprint: str = "",
        taken: Collection[str] = (),
        extra: Mapping[str, Any] | None = None,
        after: int = 0,
    ) -> list[Build]:
        """Add builds of one image set, one for each arch, and return them.

        They share the first version of the day that no build of project and series has and that
        is not in `taken`. Ids are higher than any before and than `after`.
        """
        with self._session(write=True) as session:
            query = select(_Row.version).where(_Row.project == project, _Row.series == series)
            versions = {*session.scalars(query), *taken}
            version = next_build_id(versions, today=now.date())
            highest = max(session.scalar(select(func.max(_Row.id))) or 0, after)
            builds = [
                Build(
                    id=number,
                    request=BuildRequest(
                        project=project, release=release, series=series, arch=arch, version=version
                    ),
                    state=BuildState.NEEDS_BUILDING,
                    created_at=now,
                    fingerprint=fingerprint,
                    extra=dict(extra or {}),
                )
                for number, arch in enumerate(arches, highest + 1)
            ]
            session.add_all(_Row(**_fields(build)) for build in builds)
            session.flush()
            for build in builds:
                self._record(build)
        return builds

    def claim(self, build_id: int, *, now: datetime) -> Build:
        """Turn a build that is waiting into one that runs, for one caller only.

        Raises BusyError when another one has it, CoreImageError when it has ended.
        """

        def begin(build: Build) -> Build:
            if build.state is BuildState.NEEDS_BUILDING:
                return replace(build, state=BuildState.BUILDING, started_at=now)
            message = f"build '{build_id}' is not waiting, its state is '{build.state}'"
            raise CoreImageError(message) if build.state.finished else BusyError(message)

        return self._edit(build_id, begin)

    def change(self, build_id: int, edit: Callable[[Build], Build]) -> Build:
        """Replace a build by what `edit` makes of it and return that.

        A build that has ended stays as it is.
        """
        return self._edit(build_id, lambda build: build if build.state.finished else edit(build))

    def find(
        self,
        *,
        project: str | None = None,
        release: str | None = None,
        arch: str | None = None,
        states: Collection[BuildState] = (),
        limit: int | None = None,
    ) -> list[Build]:
        """Return the builds that fit, newest first; no states means all states."""
        query = select(_Row).order_by(_Row.id.desc()).limit(limit)
        for column, wanted in (
            (_Row.project, project),
            (_Row.release, release),
            (_Row.arch, arch),
        ):
            if wanted is not None:
                query = query.where(column == wanted)
        if states:
            query = query.where(_Row.state.in_(states))
        return self._all(query)

    def get(self, build_id: int) -> Build:
        """Return one build; NotFoundError names the newest ones."""
        with self._session() as session:
            return _build(self._row(session, build_id))

    def newest_with(self, fingerprint: str) -> Build | None:
        """Return the newest successful build of the same inputs."""
        return self._newest(select(_Row).where(_Row.fingerprint == fingerprint))

    def newest_of(self, project: str, series: str, arch: str) -> Build | None:
        """Return the newest successful build of a project, series and arch."""
        return self._newest(
            select(_Row).where(_Row.project == project, _Row.series == series, _Row.arch == arch)
        )

    def _newest(self, query: Select[_Row]) -> Build | None:
        done = query.where(_Row.state == BuildState.SUCCEEDED)
        found = self._all(done.order_by(_Row.id.desc()).limit(1))
        return found[0] if found else None

    def _all(self, query: Select[_Row]) -> list[Build]:
        with self._session() as session:
            return [_build(row) for row in session.scalars(query)]

    def _edit(self, build_id: int, edit: Callable[[Build], Build]) -> Build:
        with self._session(write=True) as session:
            row = self._row(session, build_id)
            before = _build(row)
            after = edit(before)
            if after != before:
                for name, value in _fields(after).items():
                    setattr(row, name, value)
                session.flush()
                self._record(after)
            return after

    def _row(self, session: Session, build_id: int) -> _Row:
        row = session.get(_Row, build_id)
        if row is None:
            newest = select(_Row.id).order_by(_Row.id.desc()).limit(_SHOWN_IDS)
            ids = ", ".join(str(number) for number in session.scalars(newest))
            raise NotFoundError(
                f"there is no build '{build_id}'",
                hint=f"the newest builds are {ids}" if ids else "there is none yet",
            )
        return row

    @contextmanager
    def _session(self, *, write: bool = False) -> Iterator[Session]:
        engine = self._engine.execution_options(immediate=write)
        try:
            with Session(engine, expire_on_commit=False) as session, session.begin():
                yield session
        except OperationalError as error:
            raise _complaint(self._path, error) from error
        except DatabaseError as error:
            raise DataError(f"'{self._path}' is not a usable database: {error.orig}") from error

    def _prepare(self) -> None:
        """Make the tables, once, while nobody else does."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        if self._path.exists() and self._schema() == _SCHEMA:
            return
        with files.lock(
            self._path.with_suffix(".lock"), purpose="making the database", wait=_PATIENCE
        ):
            found = self._schema()
            if found > _SCHEMA:
                raise DataError(
                    f"'{self._path}' has schema {found}, this version knows {_SCHEMA}",
                    hint="use the version of coreimage that wrote it, or a newer one",
                )
            if found < _SCHEMA:
                with self._session(write=True) as session:
                    _Base.metadata.create_all(session.connection())
                    session.connection().exec_driver_sql(f"PRAGMA user_version = {_SCHEMA}")

    def _schema(self) -> int:
        with self._session() as session:
            return int(session.connection().exec_driver_sql("PRAGMA user_version").scalar_one())


def _complaint(path: Path, error: OperationalError) -> CoreImageError:
    if "locked" in str(error.orig):
        return BusyError(
            f"'{path}' is in use by another process that does not let go: {error.orig}",
            hint="wait until it has finished and run the command again",
        )
    return CoreImageError(f"'{path}': {error.orig}")


def _configure(connection: Any, _: Any) -> None:
    # The driver would begin transactions when it likes; _begin does it instead.
    connection.isolation_level = None
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")


def _begin(connection: Connection) -> None:
    # A transaction that will write takes the write lock first: two that have read would both
    # hold what the other one needs.
    immediate = connection.get_execution_options().get("immediate", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")
