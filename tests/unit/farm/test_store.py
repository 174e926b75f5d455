import sqlite3
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from coreimage.errors import BusyError, CoreImageError, DataError, NotFoundError
from coreimage.farm.store import Store
from coreimage.lib import run
from coreimage.model.build import Build, BuildState

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
LATER = NOON + timedelta(minutes=1)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "state/coreimage.sqlite")


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


def finish(store: Store, build: Build, state: BuildState = BuildState.SUCCEEDED) -> Build:
    return store.change(build.id, lambda each: replace(each, state=state, finished_at=LATER))


def test_requested_build_comes_back_equal(store: Store) -> None:
    (build,) = add(store, fingerprint="f00d")

    assert store.get(build.id) == build
    assert build.id == 1
    assert build.state is BuildState.NEEDS_BUILDING
    assert build.created_at == NOON
    assert build.request.version == "20261123"


def test_every_field_survives_a_change(store: Store) -> None:
    (build,) = add(store)
    changed = replace(
        build,
        state=BuildState.SUCCEEDED,
        started_at=NOON,
        finished_at=LATER,
        fingerprint="f00d",
        artifacts=("livecd.core.manifest", "livecd.core.rootfs.tar.gz"),
        message="vältaldigt",
        extra={"worker": "one", "cpu": [1, 2]},
    )

    assert store.change(build.id, lambda _: changed) == changed
    assert store.get(build.id) == changed


def test_versions_count_up_within_a_day_for_each_project_and_series(store: Store) -> None:
    assert [add(store)[0].request.version for _ in range(3)] == [
        "20261123",
        "20261123.1",
        "20261123.2",
    ]
    assert add(store, series="bookworm")[0].request.version == "20261123"
    assert add(store, project="kiosk")[0].request.version == "20261123"
    assert add(store, now=NOON + timedelta(days=1))[0].request.version == "20261124"


def test_builds_of_one_set_share_the_version(store: Store) -> None:
    builds = add(store, arches=["amd64", "arm64"])

    assert [(build.id, build.request.arch) for build in builds] == [(1, "amd64"), (2, "arm64")]
    assert {build.request.version for build in builds} == {"20261123"}


def test_published_versions_are_not_given_again(store: Store) -> None:
    (build,) = store.request(
        project="core",
        release="13",
        series="trixie",
        arches=["amd64"],
        now=NOON,
        taken={"20261123", "20261123.4", "20261122.9"},
    )

    assert build.request.version == "20261123.5"


def test_ids_go_on_after_a_directory_that_the_database_does_not_know(store: Store) -> None:
    assert add(store, after=41)[0].id == 42
    assert add(store)[0].id == 43


def test_a_record_that_cannot_be_written_changes_nothing(tmp_path: Path) -> None:
    def refuse(build: Build) -> None:
        raise OSError(28, "No space left on device", str(build.id))

    path = tmp_path / "coreimage.sqlite"
    with pytest.raises(OSError, match="No space"):
        add(Store(path, record=refuse))

    assert Store(path).find() == []


def test_records_are_written_for_requests_and_for_real_changes_only(tmp_path: Path) -> None:
    seen: list[BuildState] = []
    store = Store(tmp_path / "coreimage.sqlite", record=lambda build: seen.append(build.state))
    (build,) = add(store)
    store.change(build.id, lambda each: each)
    finish(store, build)

    assert seen == [BuildState.NEEDS_BUILDING, BuildState.SUCCEEDED]


def test_claim_is_for_one_only(store: Store) -> None:
    (build,) = add(store)
    claimed = store.claim(build.id, now=LATER)

    assert claimed.state is BuildState.BUILDING
    assert claimed.started_at == LATER
    with pytest.raises(BusyError, match="build '1' is not waiting"):
        store.claim(build.id, now=LATER)


def test_an_ended_build_is_neither_claimed_nor_changed(store: Store) -> None:
    (build,) = add(store)
    ended = finish(store, build)

    with pytest.raises(CoreImageError, match="its state is 'Successfully built'"):
        store.claim(build.id, now=LATER)
    assert finish(store, build, BuildState.FAILED) == ended


def test_find_filters_and_limits_newest_first(store: Store) -> None:
    first, second = add(store, arches=["amd64", "arm64"])
    (third,) = add(store, project="kiosk", release="12", series="bookworm")
    finish(store, second, BuildState.FAILED)

    def ids(builds: list[Build]) -> list[int]:
        return [build.id for build in builds]

    assert ids(store.find()) == [third.id, second.id, first.id]
    assert ids(store.find(limit=2)) == [third.id, second.id]
    assert ids(store.find(project="core")) == [second.id, first.id]
    assert ids(store.find(release="12")) == [third.id]
    assert ids(store.find(arch="arm64")) == [second.id]
    assert ids(store.find(states=[BuildState.FAILED, BuildState.CANCELLED])) == [second.id]
    assert ids(store.find(project="core", arch="riscv64")) == []


def test_unknown_build_names_the_newest(store: Store) -> None:
    with pytest.raises(NotFoundError) as empty:
        store.get(1)
    assert empty.value.hint == "there is none yet"

    add(store, arches=["amd64", "arm64", "armhf", "i386", "riscv64", "s390x"])
    with pytest.raises(NotFoundError, match="there is no build '77'") as unknown:
        store.get(77)
    assert unknown.value.hint == "the newest builds are 6, 5, 4, 3, 2"


def test_newest_successful_by_fingerprint_and_by_target(store: Store) -> None:
    builds = [add(store, fingerprint="f00d")[0] for _ in range(3)]
    finish(store, builds[0])
    finish(store, builds[1])
    finish(store, builds[2], BuildState.FAILED)

    def number(build: Build | None) -> int | None:
        return build.id if build else None

    assert number(store.newest_with("f00d")) == 2
    assert number(store.newest_with("beef")) is None
    assert number(store.newest_of("core", "trixie", "amd64")) == 2
    assert number(store.newest_of("core", "trixie", "arm64")) is None


def test_two_processes_never_get_the_same_id_or_version(tmp_path: Path) -> None:
    path = tmp_path / "coreimage.sqlite"
    script = (
        "import sys; from datetime import datetime, UTC; from pathlib import Path\n"
        "from coreimage.farm.store import Store\n"
        "for _ in range(10):\n"
        "    (build,) = Store(Path(sys.argv[1])).request(project='core', release='13',"
        " series='trixie', arches=['amd64'], now=datetime(2026, 11, 23, tzinfo=UTC))\n"
        "    print(build.id, build.request.version)\n"
    )
    argv = [sys.executable, "-c", script, str(path)]
    with (
        run.start(argv, stdout=run.PIPE) as one,
        run.start(argv, stdout=run.PIPE) as two,
        run.start(argv, stdout=run.PIPE) as three,
    ):
        lines = [
            line
            for process in (one, two, three)
            if process.stdout
            for line in process.stdout.read().decode().splitlines()
        ]

    assert (one.returncode, two.returncode, three.returncode) == (0, 0, 0)
    given = sorted((int(line.split()[0]), line.split()[1]) for line in lines)
    assert [number for number, _ in given] == list(range(1, 31))
    assert len({version for _, version in given}) == 30


def test_database_is_in_wal_mode_and_has_a_schema_version(store: Store, tmp_path: Path) -> None:
    add(store)
    with closing(sqlite3.connect(tmp_path / "state/coreimage.sqlite")) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)


def test_a_newer_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "coreimage.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 9")

    with pytest.raises(DataError, match="has schema 9, this version knows 1"):
        Store(path)


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    path = tmp_path / "coreimage.sqlite"
    path.write_bytes(b"not a database, but long enough to be looked at closely" * 100)

    with pytest.raises(DataError, match=r"coreimage\.sqlite' is not a usable database"):
        Store(path)
