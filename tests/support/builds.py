"""Builds in a store, at fixed times."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from coreimage.farm.store import Store
from coreimage.model.build import Attempt, Build, BuildResult

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
LATER = NOON + timedelta(minutes=1)


def add(
    store: Store,
    *,
    project: str = "core",
    release: str = "13",
    series: str = "trixie",
    arches: Sequence[str] = ("amd64",),
    now: datetime = NOON,
    fingerprint: str = "",
    after: int = 0,
) -> list[Build]:
    return store.request(
        project=project,
        release=release,
        series=series,
        arches=arches,
        now=now,
        fingerprint=fingerprint,
        after=after,
    )


def claim(store: Store, build: Build) -> Build:
    return store.claim(build.id, worker="me:1", now=NOON)


def attempt(result: BuildResult | None, *, number: int = 1, message: str = "") -> Attempt:
    return Attempt(
        number=number,
        worker="me:1",
        started_at=NOON,
        finished_at=LATER,
        result=result,
        message=message,
        exit_code=0,
    )


def finish(store: Store, build: Build, result: BuildResult = BuildResult.SUCCESS) -> Build:
    number = claim(store, build).attempt
    return store.complete(build.id, attempt(result, number=number))
