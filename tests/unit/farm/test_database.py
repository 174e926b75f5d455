"""The database below the store: its schema, and those of earlier versions."""

import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

from coreimage.errors import DataError
from coreimage.farm.store import Store
from coreimage.model.build import BuildResult, BuildStatus
from tests.support.builds import NOON, add, finish


def test_database_is_in_wal_mode_and_has_a_schema_version(store: Store, tmp_path: Path) -> None:
    add(store)
    with closing(sqlite3.connect(tmp_path / "state/coreimage.sqlite")) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA user_version").fetchone() == (3,)


def test_a_newer_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "coreimage.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 9")

    with pytest.raises(DataError, match="has schema 9, this version knows 3"):
        Store(path)


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    path = tmp_path / "coreimage.sqlite"
    path.write_bytes(b"not a database, but long enough to be looked at closely" * 100)

    with pytest.raises(DataError, match=r"coreimage\.sqlite' is not a usable database"):
        Store(path)


# The database of a workspace of the first version, with a build in each state.
OLD_STATES = {
    "Needs building": (BuildStatus.PENDING, None),
    "Currently building": (BuildStatus.RUNNING, None),
    "Uploading build": (BuildStatus.RUNNING, None),
    "Successfully built": (BuildStatus.COMPLETED, BuildResult.SUCCESS),
    "Failed to build": (BuildStatus.COMPLETED, BuildResult.FAILURE),
    "Chroot problem": (BuildStatus.COMPLETED, BuildResult.ERROR),
    "Cancelled": (BuildStatus.ABORTED, None),
}
OLD_SCHEMA = """
CREATE TABLE build (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, project VARCHAR NOT NULL,
    release VARCHAR NOT NULL, series VARCHAR NOT NULL, arch VARCHAR NOT NULL,
    version VARCHAR NOT NULL, state VARCHAR(18) NOT NULL, created_at VARCHAR NOT NULL,
    started_at VARCHAR, finished_at VARCHAR, fingerprint VARCHAR NOT NULL,
    artifacts JSON NOT NULL, message VARCHAR NOT NULL, extra JSON NOT NULL,
    UNIQUE (project, series, arch, version),
    CONSTRAINT state CHECK (state IN ({states}))
);
CREATE INDEX build_by_fingerprint ON build (fingerprint, state);
CREATE INDEX build_by_state ON build (state);
PRAGMA user_version = 1;
"""


def test_a_workspace_of_the_first_version_keeps_its_builds(tmp_path: Path) -> None:
    path = tmp_path / "coreimage.sqlite"
    states = ", ".join(f"'{state}'" for state in OLD_STATES)
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(OLD_SCHEMA.format(states=states))
        for number, state in enumerate(OLD_STATES, 3):
            row = (number, "core", "13", "trixie", "amd64", f"20261123.{number}", state)
            times = (NOON.isoformat(), NOON.isoformat(), None)
            rest = ("f00d", '["livecd.core.manifest"]', "words", '{"image_set": "x"}')
            marks = ", ".join("?" * 14)
            connection.execute(f"INSERT INTO build VALUES ({marks})", (*row, *times, *rest))  # noqa: S608
        connection.commit()

    store = Store(path)
    builds = store.find()[::-1]
    assert [(each.status, each.result) for each in builds] == list(OLD_STATES.values())
    assert [each.id for each in builds] == list(range(3, 10))
    assert {each.label for each in builds} == {*OLD_STATES} - {"Uploading build"}
    found = store.newest_with("f00d")
    assert found is not None
    assert found.id == 6
    assert found.artifacts == ("livecd.core.manifest",)
    assert found.extra == {"image_set": "x"}
    assert found.created_at == NOON
    assert add(store)[0].id == 10
    assert Store(path).find()[1:] == builds[::-1]


# The table of a workspace from before builds were for devices.
SCHEMA_2 = """
CREATE TABLE build (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, project VARCHAR NOT NULL,
    release VARCHAR NOT NULL, series VARCHAR NOT NULL, arch VARCHAR NOT NULL,
    version VARCHAR NOT NULL, distribution VARCHAR NOT NULL, subproject VARCHAR NOT NULL,
    status VARCHAR(9) NOT NULL, result VARCHAR(7), priority INTEGER NOT NULL,
    attempt INTEGER NOT NULL, attempts JSON NOT NULL, retries INTEGER NOT NULL,
    not_before VARCHAR, worker VARCHAR NOT NULL, abort_asked BOOLEAN NOT NULL,
    created_at VARCHAR NOT NULL, started_at VARCHAR, finished_at VARCHAR,
    fingerprint VARCHAR NOT NULL, artifacts JSON NOT NULL, message VARCHAR NOT NULL,
    extra JSON NOT NULL,
    UNIQUE (project, series, arch, version),
    CONSTRAINT status CHECK (status IN ('pending', 'running', 'completed', 'aborted')),
    CONSTRAINT result CHECK (result IN ('success', 'failure', 'error'))
);
CREATE INDEX build_by_fingerprint ON build (fingerprint, result);
CREATE INDEX build_by_status ON build (status, priority);
PRAGMA user_version = 2;
"""


def test_a_workspace_from_before_devices_keeps_its_builds(store: Store, tmp_path: Path) -> None:
    for result in (BuildResult.SUCCESS, BuildResult.FAILURE):
        finish(store, add(store, arches=["amd64"], fingerprint="f00d")[0], result)
    add(store, arches=["arm64"])
    before = store.find()
    old = tmp_path / "old.sqlite"
    with closing(sqlite3.connect(old)) as connection:
        connection.executescript(SCHEMA_2)
        names = [row[1] for row in connection.execute("PRAGMA table_info(build)")]
        connection.execute("ATTACH ? AS new", (str(tmp_path / "state/coreimage.sqlite"),))
        columns = ", ".join(names)
        connection.execute(f"INSERT INTO build ({columns}) SELECT {columns} FROM new.build")  # noqa: S608
        connection.commit()

    upgraded = Store(old)
    assert upgraded.find() == before
    assert {each.request.device for each in before} == {""}
    again = add(upgraded, arches=["arm64", "arm64.box"])
    assert [each.id for each in again] == [4, 5]
    assert Store(old).find()[2:] == before
    with closing(sqlite3.connect(old)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (3,)
        tables = "SELECT name FROM sqlite_master WHERE type = 'table' AND name LIKE 'build%'"
        assert connection.execute(tables).fetchall() == [("build",)]


def test_whoever_looks_at_the_same_time_does_not_make_it_fail(tmp_path: Path) -> None:
    path = tmp_path / "builds.sqlite"
    with closing(sqlite3.connect(path, check_same_thread=False)) as other:
        other.isolation_level = None
        other.execute("CREATE TABLE other (field)")
        other.execute("BEGIN")
        other.execute("SELECT * FROM other").fetchall()
        leave = threading.Timer(0.3, other.rollback)
        leave.start()
        assert Store(path).find() == []
        leave.join()


def test_readers_do_not_wait_for_a_writer(tmp_path: Path) -> None:
    store = Store(tmp_path / "builds.sqlite")
    with store._database.session(write=True):
        assert Store(tmp_path / "builds.sqlite").find() == []
