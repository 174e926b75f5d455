"""The store of builds: SQLite, one row for each build, ids and versions never given twice.

Rows stay in this module; what goes in and out is `model.build.Build`. A build changes its status
in one statement that names the statuses it may come from, so that of two who want to change it
only one can.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import fields as fields_of
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Select,
    func,
    or_,
    select,
    update,
)
from sqlalchemy.orm import Session

from coreimage.errors import BusyError, CoreImageError, NotFoundError
from coreimage.farm.database import Database
from coreimage.farm.schema import Row
from coreimage.model.build import (
    Attempt,
    Build,
    BuildRequest,
    BuildResult,
    BuildStatus,
    attempt_fields,
    attempt_from,
    split_target,
)
from coreimage.model.publication import next_build_id

_SHOWN_IDS = 5
_MAX_ID = 2**63 - 1  # the greatest number that SQLite knows
_REQUEST = tuple(each.name for each in fields_of(BuildRequest))
_OWN = tuple(each.name for each in fields_of(Build) if each.name not in ("request", "attempts"))

# From which statuses a build may come to each. A success is never tried again.
SOURCES: Mapping[BuildStatus, frozenset[BuildStatus]] = {
    BuildStatus.RUNNING: frozenset({BuildStatus.PENDING}),
    BuildStatus.COMPLETED: frozenset({BuildStatus.RUNNING}),
    BuildStatus.ABORTED: frozenset({BuildStatus.PENDING, BuildStatus.RUNNING}),
    BuildStatus.PENDING: frozenset(
        {BuildStatus.RUNNING, BuildStatus.COMPLETED, BuildStatus.ABORTED}
    ),
}


def _fields(build: Build) -> dict[str, Any]:
    return {
        **{name: getattr(build.request, name) for name in _REQUEST},
        **{name: getattr(build, name) for name in _OWN},
        "artifacts": list(build.artifacts),
        "attempts": [attempt_fields(each) for each in build.attempts],
        "extra": dict(build.extra),
    }


def _build(row: Row) -> Build:
    own = {name: getattr(row, name) for name in _OWN}
    return Build(
        **{
            **own,
            "request": BuildRequest(**{name: getattr(row, name) for name in _REQUEST}),
            "attempts": tuple(attempt_from(each) for each in row.attempts),
            "artifacts": tuple(row.artifacts),
        }
    )


def _nowhere(_: Build) -> None:
    """Record a build in the database only."""


class Store:
    """The builds of a workspace.

    `record` is called with each new or changed build, inside the transaction, so that what it
    writes comes in the same order as the changes; when it fails, nothing has changed.
    """

    def __init__(self, path: Path, *, record: Callable[[Build], None] = _nowhere) -> None:
        self._record = record
        self._database = Database(path)

    def request(
        self,
        *,
        project: str,
        release: str,
        series: str,
        arches: Sequence[str],
        now: datetime,
        distribution: str = "",
        subproject: str = "",
        priority: int = 0,
        fingerprint: str = "",
        taken: Collection[str] = (),
        extra: Mapping[str, Any] | None = None,
        after: int = 0,
    ) -> list[Build]:
        """Add builds of one image set and return them.

        There is one for each of `arches`, such as amd64 or, for a device, armhf.raspi2. They share
        the first version of the day that no build of project and series has and that is not in
        `taken`. Ids are higher than any before and than `after`.
        """
        with self._database.session(write=True) as session:
            query = select(Row.version).where(Row.project == project, Row.series == series)
            versions = {*session.scalars(query), *taken}
            version = next_build_id(versions, today=now.date())
            highest = max(session.scalar(select(func.max(Row.id))) or 0, after)
            builds = [
                Build(
                    id=number,
                    request=BuildRequest(
                        project=project,
                        release=release,
                        series=series,
                        arch=arch,
                        version=version,
                        distribution=distribution,
                        subproject=subproject,
                        device=device,
                    ),
                    status=BuildStatus.PENDING,
                    priority=priority,
                    created_at=now,
                    fingerprint=fingerprint,
                    extra=dict(extra or {}),
                )
                for number, (arch, device) in enumerate(map(split_target, arches), highest + 1)
            ]
            session.add_all(Row(**_fields(build)) for build in builds)
            session.flush()
            for build in builds:
                self._record(build)
        return builds

    def claim(self, build_id: int, *, worker: str, now: datetime) -> Build:
        """Turn a build that is pending into one that runs, for one caller only."""
        return self._move(
            build_id,
            BuildStatus.RUNNING,
            lambda build: replace(
                build,
                attempt=build.attempt + 1,
                worker=worker,
                started_at=now,
                finished_at=None,
                not_before=None,
                message="",
            ),
            what="begun",
        )

    def complete(
        self,
        build_id: int,
        ended: Attempt,
        *,
        artifacts: Sequence[str] = (),
        fingerprint: str = "",
    ) -> Build:
        """End a build with the result of its attempt."""
        return self._move(
            build_id,
            BuildStatus.COMPLETED,
            lambda build: replace(
                _with_attempt(build, ended),
                result=ended.result,
                artifacts=tuple(artifacts),
                fingerprint=fingerprint or build.fingerprint,
                finished_at=ended.finished_at,
            ),
            attempt=ended.number,
            what="completed",
        )

    def requeue(
        self, build_id: int, ended: Attempt, *, not_before: datetime | None, counts: bool = True
    ) -> Build:
        """Put a build whose attempt came to nothing back into the queue.

        `counts` says whether that is one of the retries that it has.
        """
        return self._move(
            build_id,
            BuildStatus.PENDING,
            lambda build: replace(
                _with_attempt(build, ended),
                retries=build.retries + counts,
                not_before=not_before,
                started_at=None,
                worker="",
            ),
            attempt=ended.number,
            what="put back",
        )

    def abort_running(self, build_id: int, ended: Attempt) -> Build:
        """End a running build without a result."""
        return self._move(
            build_id,
            BuildStatus.ABORTED,
            lambda build: replace(_with_attempt(build, ended), finished_at=ended.finished_at),
            attempt=ended.number,
            what="aborted",
        )

    def abort_pending(self, build_id: int, *, now: datetime, message: str) -> Build:
        """End a build that nobody has begun."""
        return self._move(
            build_id,
            BuildStatus.ABORTED,
            lambda build: replace(build, message=message, finished_at=now, not_before=None),
            where=[Row.status == BuildStatus.PENDING],
            what="aborted",
        )

    def ask_abort(self, build_id: int) -> Build:
        """Ask whoever carries a build out to end it."""
        return self._move(
            build_id,
            BuildStatus.RUNNING,
            lambda build: replace(build, abort_asked=True),
            stay=True,
            what="aborted",
        )

    def retry(self, build_id: int) -> Build:
        """Put a build that is over, and was no success, back into the queue."""
        return self._move(
            build_id,
            BuildStatus.PENDING,
            lambda build: replace(
                build,
                result=None,
                retries=0,
                not_before=None,
                started_at=None,
                finished_at=None,
                worker="",
                message="",
                abort_asked=False,
            ),
            where=[
                Row.status.in_([BuildStatus.COMPLETED, BuildStatus.ABORTED]),
                or_(Row.result.is_(None), Row.result != BuildResult.SUCCESS),
            ],
            what="tried again",
        )

    def prioritise(self, build_id: int, priority: int) -> Build:
        """Change the priority of a build that is pending."""
        return self._move(
            build_id,
            BuildStatus.PENDING,
            lambda build: replace(build, priority=priority),
            stay=True,
            what="prioritised",
        )

    def find(
        self,
        *,
        project: str | None = None,
        release: str | None = None,
        arch: str | None = None,
        statuses: Collection[BuildStatus] = (),
        results: Collection[BuildResult] = (),
        limit: int | None = None,
        offset: int = 0,
        running_first: bool = False,
    ) -> list[Build]:
        """Return the builds that fit, newest first; no statuses or results means all of them."""
        order: list[ColumnElement[Any]] = [Row.id.desc()]
        if running_first:
            order.insert(0, (Row.status == BuildStatus.RUNNING).desc())
        query = select(Row).order_by(*order).limit(limit).offset(offset)
        for column, wanted in (
            (Row.project, project),
            (Row.release, release),
            (Row.arch, arch),
        ):
            if wanted is not None:
                query = query.where(column == wanted)
        if statuses:
            query = query.where(Row.status.in_(statuses))
        if results:
            query = query.where(Row.result.in_(results))
        return self._all(query)

    def due(self, *, now: datetime, arches: Collection[str], limit: int) -> list[Build]:
        """Return builds that may begin now, in the order in which they should."""
        return self._all(
            select(Row)
            .where(
                Row.status == BuildStatus.PENDING,
                Row.arch.in_(arches),
                or_(Row.not_before.is_(None), Row.not_before <= now),
            )
            .order_by(Row.priority.desc(), Row.id)
            .limit(limit)
        )

    def newest_of_each(self, project: str) -> list[Build]:
        """Return the newest build of a project for each release, arch and device.

        The newest release comes first.
        """
        newest = (
            select(func.max(Row.id))
            .where(Row.project == project)
            .group_by(Row.release, Row.series, Row.arch, Row.device)
        )
        return self._all(
            select(Row).where(Row.id.in_(newest)).order_by(Row.release.desc(), Row.arch, Row.device)
        )

    def projects(self) -> list[str]:
        """Return the projects that have builds."""
        with self._database.session() as session:
            return list(session.scalars(select(Row.project).distinct().order_by(Row.project)))

    def get(self, build_id: int) -> Build:
        """Return one build; NotFoundError names the newest ones."""
        with self._database.session() as session:
            return _build(self._row(session, build_id))

    def newest_with(self, fingerprint: str) -> Build | None:
        """Return the newest successful build of the same inputs."""
        return self._newest(select(Row).where(Row.fingerprint == fingerprint))

    def newest_of(self, project: str, series: str, target: str) -> Build | None:
        """Return the newest successful build of a project and series for amd64 or armhf.raspi2."""
        arch, device = split_target(target)
        return self._newest(
            select(Row).where(
                Row.project == project,
                Row.series == series,
                Row.arch == arch,
                Row.device == device,
            )
        )

    def _newest(self, query: Select[Row]) -> Build | None:
        done = query.where(Row.result == BuildResult.SUCCESS)
        found = self._all(done.order_by(Row.id.desc()).limit(1))
        return found[0] if found else None

    def _all(self, query: Select[Row]) -> list[Build]:
        with self._database.session() as session:
            return [_build(row) for row in session.scalars(query)]

    def _move(
        self,
        build_id: int,
        status: BuildStatus,
        edit: Callable[[Build], Build],
        *,
        attempt: int | None = None,
        where: Sequence[ColumnElement[bool]] = (),
        stay: bool = False,
        what: str,
    ) -> Build:
        """Bring a build to a status, in one statement that does nothing if it may not come there.

        With `attempt` it must be in that attempt still; with `stay` it must have the status. Raises
        BusyError when it runs, CoreImageError when it is over or has not begun; `what` says what
        cannot be done to it.
        """
        with self._database.session(write=True) as session:
            row = self._row(session, build_id)
            before = _build(row)
            after = replace(edit(before), status=status)
            allowed = [Row.status.in_([status] if stay else SOURCES[status]), *where]
            if attempt is not None:
                allowed += [Row.status == BuildStatus.RUNNING, Row.attempt == attempt]
            statement = update(Row).where(Row.id == build_id, *allowed).values(_fields(after))
            done = session.connection().execute(statement)
            if done.rowcount != 1:
                raise _refusal(before, what)
            self._record(after)
            return after

    def _row(self, session: Session, build_id: int) -> Row:
        row = session.get(Row, build_id) if 0 < build_id <= _MAX_ID else None
        if row is None:
            newest = select(Row.id).order_by(Row.id.desc()).limit(_SHOWN_IDS)
            ids = ", ".join(str(number) for number in session.scalars(newest))
            raise NotFoundError(
                f"there is no build '{build_id}'",
                hint=f"the newest builds are {ids}" if ids else "there is none yet",
            )
        return row


def _with_attempt(build: Build, ended: Attempt) -> Build:
    return replace(
        build, attempts=(*build.attempts, ended), message=ended.message, abort_asked=False
    )


def _refusal(build: Build, what: str) -> CoreImageError:
    message = f"build '{build.id}' cannot be {what}, it is {build.status}"
    if build.status is BuildStatus.RUNNING:
        return BusyError(f"{message}, carried out by '{build.worker}'")
    return CoreImageError(f"{message}: {build.label}" if build.result else message)
