import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from coreimage.errors import BusyError, CoreImageError, NotFoundError
from coreimage.farm.store import Store
from coreimage.lib import run
from coreimage.model.build import Build, BuildResult, BuildStatus
from tests.support.builds import LATER, NOON, add, attempt, claim, finish


def test_requested_build_comes_back_equal(store: Store) -> None:
    (build,) = add(store, fingerprint="f00d")

    assert store.get(build.id) == build
    assert build.id == 1
    assert build.status is BuildStatus.PENDING
    assert build.created_at == NOON
    assert build.request.version == "20261123"


def test_every_field_survives_a_change(store: Store) -> None:
    (build,) = store.request(
        project="core",
        release="13",
        series="trixie",
        arches=["amd64"],
        distribution="debian",
        subproject="system-image",
        priority=-3,
        now=NOON,
        extra={"worker": "one", "cpu": [1, 2]},
    )
    claim(store, build)
    again = store.requeue(build.id, attempt(BuildResult.ERROR, message="ä"), not_before=LATER)
    assert store.get(build.id) == again
    claim(store, build)
    done = store.complete(
        build.id,
        attempt(BuildResult.SUCCESS, number=2),
        artifacts=("livecd.core.manifest", "livecd.core.rootfs.tar.gz"),
        fingerprint="f00d",
    )

    assert store.get(build.id) == done
    assert done.attempts == (
        attempt(BuildResult.ERROR, message="ä"),
        attempt(BuildResult.SUCCESS, number=2),
    )
    assert (done.attempt, done.retries, done.priority) == (2, 1, -3)
    assert done.request.subproject == "system-image"


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


def test_an_arch_and_its_devices_are_builds_of_one_set(store: Store) -> None:
    builds = add(store, arches=["armhf", "armhf.raspi2", "armhf.box"])
    finish(store, builds[1])

    assert [(each.request.arch, each.request.device) for each in builds] == [
        ("armhf", ""),
        ("armhf", "raspi2"),
        ("armhf", "box"),
    ]
    assert {each.request.version for each in builds} == {"20261123"}
    assert [store.get(each.id).request.target for each in builds] == [
        "armhf",
        "armhf.raspi2",
        "armhf.box",
    ]
    newest = store.newest_of_each("core")
    assert [each.request.target for each in newest] == ["armhf", "armhf.box", "armhf.raspi2"]
    assert store.newest_of("core", "trixie", "armhf") is None
    assert store.newest_of("core", "trixie", "armhf.raspi2") is not None
    assert [each.id for each in store.due(now=NOON, arches=["armhf"], limit=9)] == [1, 3]
    assert [each.id for each in store.find(arch="armhf")] == [3, 2, 1]


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
    seen: list[BuildStatus] = []
    store = Store(tmp_path / "coreimage.sqlite", record=lambda build: seen.append(build.status))
    (build,) = add(store)
    with pytest.raises(CoreImageError):
        store.retry(build.id)
    finish(store, build)

    assert seen == [BuildStatus.PENDING, BuildStatus.RUNNING, BuildStatus.COMPLETED]


def test_claim_is_for_one_only(store: Store) -> None:
    (build,) = add(store)
    claimed = store.claim(build.id, worker="me:1", now=LATER)

    assert claimed.status is BuildStatus.RUNNING
    assert claimed.started_at == LATER
    assert (claimed.attempt, claimed.worker) == (1, "me:1")
    with pytest.raises(BusyError, match=r"build '1' cannot be begun, it is running.* 'me:1'"):
        store.claim(build.id, worker="you:2", now=LATER)


Act = Callable[[Store, int], object]
TO: dict[str, Act] = {
    "pending": lambda *_: None,
    "running": lambda store, number: store.claim(number, worker="me:1", now=NOON),
    "success": lambda store, number: finish(store, store.get(number)),
    "failure": lambda store, number: finish(store, store.get(number), BuildResult.FAILURE),
    "error": lambda store, number: finish(store, store.get(number), BuildResult.ERROR),
    "aborted": lambda store, number: store.abort_pending(number, now=LATER, message=""),
}
ACTS: dict[str, Act] = {
    "claim": TO["running"],
    "complete": lambda store, number: store.complete(number, attempt(BuildResult.SUCCESS)),
    "requeue": lambda store, number: store.requeue(
        number, attempt(BuildResult.ERROR), not_before=None
    ),
    "abort_running": lambda store, number: store.abort_running(number, attempt(None)),
    "abort_pending": TO["aborted"],
    "ask_abort": lambda store, number: store.ask_abort(number),
    "retry": lambda store, number: store.retry(number),
    "prioritise": lambda store, number: store.prioritise(number, 5),
}
LEGAL = {
    ("pending", "claim"): BuildStatus.RUNNING,
    ("pending", "abort_pending"): BuildStatus.ABORTED,
    ("pending", "prioritise"): BuildStatus.PENDING,
    ("running", "complete"): BuildStatus.COMPLETED,
    ("running", "requeue"): BuildStatus.PENDING,
    ("running", "abort_running"): BuildStatus.ABORTED,
    ("running", "ask_abort"): BuildStatus.RUNNING,
    ("failure", "retry"): BuildStatus.PENDING,
    ("error", "retry"): BuildStatus.PENDING,
    ("aborted", "retry"): BuildStatus.PENDING,
}


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("begin", TO)
def test_only_legal_transitions_happen(store: Store, begin: str, act: str) -> None:
    (build,) = add(store)
    TO[begin](store, build.id)
    before = store.get(build.id)
    if (begin, act) in LEGAL:
        ACTS[act](store, build.id)
        assert store.get(build.id).status is LEGAL[begin, act]
        return
    with pytest.raises(CoreImageError, match="build '1' cannot be") as raised:
        ACTS[act](store, build.id)
    assert isinstance(raised.value, BusyError) == (begin == "running")
    assert store.get(build.id) == before


def test_who_has_lost_a_build_cannot_end_it(store: Store) -> None:
    (build,) = add(store)
    claim(store, build)
    store.requeue(build.id, attempt(BuildResult.ERROR), not_before=None)
    claim(store, build)

    with pytest.raises(BusyError):
        store.complete(build.id, attempt(BuildResult.SUCCESS))
    assert store.get(build.id).status is BuildStatus.RUNNING


def test_due_builds_by_priority_and_age(store: Store) -> None:
    builds = [add(store)[0] for _ in range(5)]
    store.prioritise(builds[2].id, 3)
    store.prioritise(builds[3].id, -1)
    claim(store, builds[0])
    store.requeue(builds[0].id, attempt(BuildResult.ERROR), not_before=LATER)
    (foreign,) = add(store, arches=["riscv64"])

    def due(now: datetime) -> list[int]:
        return [each.id for each in store.due(now=now, arches=["amd64"], limit=9)]

    assert due(NOON) == [3, 2, 5, 4]
    assert due(LATER) == [3, 1, 2, 5, 4]
    assert foreign.id not in due(LATER)


def test_of_many_who_claim_one_build_one_gets_it(tmp_path: Path) -> None:
    path = tmp_path / "coreimage.sqlite"
    builds = add(Store(path), arches=[f"arch{number}" for number in range(12)])
    script = (
        "import sys; from datetime import datetime, UTC; from pathlib import Path\n"
        "from coreimage.errors import CoreImageError\n"
        "from coreimage.farm.store import Store\n"
        "store = Store(Path(sys.argv[1]))\n"
        "sys.stdin.read()\n"
        "for number in range(1, 13):\n"
        "    try:\n"
        "        store.claim(number, worker=sys.argv[2], now=datetime.now(UTC))\n"
        "        print(number)\n"
        "    except CoreImageError:\n"
        "        pass\n"
    )
    with ExitStack() as stack:
        processes = [
            stack.enter_context(
                run.start(
                    [sys.executable, "-c", script, str(path), str(number)],
                    stdin=run.PIPE,
                    stdout=run.PIPE,
                )
            )
            for number in range(4)
        ]
        for each in processes:  # they begin together, when all are ready
            assert each.stdin is not None
            each.stdin.close()
        taken = [
            int(line)
            for each in processes
            if each.stdout is not None
            for line in each.stdout.read().split()
        ]

    assert sorted(taken) == [build.id for build in builds]
    assert {each.attempt for each in Store(path).find()} == {1}


def test_threads_with_one_store_claim_each_build_once(store: Store) -> None:
    (build,) = add(store)

    def grab(number: int) -> bool:
        try:
            store.claim(build.id, worker=str(number), now=NOON)
        except BusyError:
            return False
        return True

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(grab, range(16))) == 1


def test_find_filters_and_limits_newest_first(store: Store) -> None:
    first, second = add(store, arches=["amd64", "arm64"])
    (third,) = add(store, project="kiosk", release="12", series="bookworm")
    finish(store, second, BuildResult.FAILURE)

    def ids(builds: list[Build]) -> list[int]:
        return [build.id for build in builds]

    assert ids(store.find()) == [third.id, second.id, first.id]
    assert ids(store.find(limit=2)) == [third.id, second.id]
    assert ids(store.find(project="core")) == [second.id, first.id]
    assert ids(store.find(release="12")) == [third.id]
    assert ids(store.find(arch="arm64")) == [second.id]
    assert ids(store.find(results=[BuildResult.FAILURE, BuildResult.ERROR])) == [second.id]
    assert ids(store.find(statuses=[BuildStatus.PENDING])) == [third.id, first.id]
    assert ids(store.find(limit=1, offset=1)) == [second.id]
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
    finish(store, builds[2], BuildResult.FAILURE)

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
