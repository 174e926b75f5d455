"""The tables of the store, and how those of older versions become today's."""

from collections.abc import Callable, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    JSON,
    Connection,
    Dialect,
    Enum,
    Index,
    String,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from coreimage.model.build import BuildResult, BuildStatus, status_of_label

SCHEMA = 3


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


def _words(kind: type[StrEnum], name: str) -> Enum:
    return Enum(
        kind,
        native_enum=False,
        create_constraint=True,
        name=name,
        values_callable=lambda members: [each.value for each in members],
    )


class Base(DeclarativeBase):
    """All tables."""


class Row(Base):
    """A build; the fields are those of `model.build.Build` and its request."""

    __tablename__ = "build"
    __table_args__ = (
        UniqueConstraint("project", "series", "arch", "device", "version"),
        Index("build_by_fingerprint", "fingerprint", "result"),
        Index("build_by_status", "status", "priority"),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    project: Mapped[str]
    release: Mapped[str]
    series: Mapped[str]
    arch: Mapped[str]
    device: Mapped[str]
    version: Mapped[str]
    distribution: Mapped[str]
    subproject: Mapped[str]
    status: Mapped[BuildStatus] = mapped_column(_words(BuildStatus, "status"))
    result: Mapped[BuildResult | None] = mapped_column(_words(BuildResult, "result"))
    priority: Mapped[int]
    attempt: Mapped[int]
    attempts: Mapped[list[dict[str, Any]]] = mapped_column(JSON)
    retries: Mapped[int]
    not_before: Mapped[datetime | None] = mapped_column(_Time)
    worker: Mapped[str]
    abort_asked: Mapped[bool]
    created_at: Mapped[datetime] = mapped_column(_Time)
    started_at: Mapped[datetime | None] = mapped_column(_Time)
    finished_at: Mapped[datetime | None] = mapped_column(_Time)
    fingerprint: Mapped[str]
    artifacts: Mapped[list[str]] = mapped_column(JSON)
    message: Mapped[str]
    extra: Mapped[dict[str, Any]] = mapped_column(JSON)


_COPY_BUILDS = """
INSERT INTO build (
    id, project, release, series, arch, version, created_at, started_at, finished_at, fingerprint,
    artifacts, message, extra, distribution, subproject, status, priority, attempt, attempts,
    retries, worker, abort_asked, device
) SELECT
    id, project, release, series, arch, version, created_at, started_at, finished_at, fingerprint,
    artifacts, message, extra, '', '', 'pending', 0, started_at IS NOT NULL, '[]',
    0, '', 0, ''
FROM build_1
"""
_COLUMNS_2 = (
    "id, project, release, series, arch, version, distribution, subproject, status, result, "
    "priority, attempt, attempts, retries, not_before, worker, abort_asked, created_at, "
    "started_at, finished_at, fingerprint, artifacts, message, extra"
)


def _create(connection: Connection) -> None:
    Base.metadata.create_all(connection)


def _split_state(connection: Connection) -> None:
    """From 1: one column `state`, in Launchpad's words, becomes status and result."""
    _set_aside(connection, "build_1")
    connection.exec_driver_sql(_COPY_BUILDS)
    for (label,) in connection.exec_driver_sql("SELECT DISTINCT state FROM build_1").all():
        status, result = status_of_label(label)
        connection.exec_driver_sql(
            "UPDATE build SET status = ?, result = ? "
            "WHERE id IN (SELECT id FROM build_1 WHERE state = ?)",
            (status.value, result and result.value, label),
        )
    connection.exec_driver_sql("DROP TABLE build_1")


def _add_device(connection: Connection) -> None:
    """From 2: builds for devices; all that there are were generic ones."""
    _set_aside(connection, "build_2")
    connection.exec_driver_sql(
        f"INSERT INTO build ({_COLUMNS_2}, device) SELECT {_COLUMNS_2}, '' FROM build_2"  # noqa: S608
    )
    connection.exec_driver_sql("DROP TABLE build_2")


def _set_aside(connection: Connection, name: str) -> None:
    """Give the table of an older schema another name, and make today's in its place.

    SQLite cannot change what must be unique in a table that is there.
    """
    for index in ("build_by_fingerprint", "build_by_state", "build_by_status"):
        connection.exec_driver_sql(f"DROP INDEX IF EXISTS {index}")
    connection.exec_driver_sql(f"ALTER TABLE build RENAME TO {name}")
    _create(connection)


# What leads from each schema to today's.
_STEPS: Mapping[int, Callable[[Connection], None]] = {
    0: _create,
    1: _split_state,
    2: _add_device,
}


def upgrade(connection: Connection, found: int) -> None:
    """Bring tables of the schema `found`, 0 when there are none, to today's."""
    _STEPS[found](connection)
    connection.exec_driver_sql(f"PRAGMA user_version = {SCHEMA}")
