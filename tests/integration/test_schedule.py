"""Schedules with a real archive on loopback; small programs stand in for the rootfs command."""

import json
import re
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from coreimage import schedule
from coreimage.config import Workspace, load_workspace
from coreimage.errors import ConfigError, NotFoundError
from coreimage.farm import queue
from coreimage.farm.schedule import Memories, Ran, State
from coreimage.lib import run
from coreimage.lib.files import lock
from coreimage.lib.progress import Silent
from coreimage.model.build import BuildRequest, BuildResult
from coreimage.pipeline import builds
from coreimage.rootfs.definitions.definition import definition_places, select
from tests.integration.image_sets import DEFINITION, FAILS, WRITES
from tests.support.foreign_keys import foreign_gpg
from tests.support.local_archive import LocalArchive, served

BEGIN = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
NIGHT = datetime(2026, 11, 23, 3, 26, tzinfo=UTC)
SETTINGS = """\
[archives.ubuntu]
mirror = "{mirror}"
keyring = "{keyring}"

[schedules.nightly]
project = "ubuntu-core"
arches = ["amd64"]
cron = "25 3 * * *"

[schedules.always]
project = "ubuntu-core"
arches = ["amd64"]
cron = "25 3 * * *"
force = true

[schedules.fresh]
project = "ubuntu-core"
arches = ["amd64", "arm64"]
when_changed = true
"""
TRIED = """\
[schedules.tried]
project = "ubuntu-core"
arches = ["amd64"]
when_changed = true
extra_archives = ["proposed"]
"""


class House:
    """A workspace whose packages come from an archive of the test's own."""

    def __init__(self, space: Workspace, archive: LocalArchive, scratch: Path) -> None:
        self.space = space
        self._archive = archive
        self._scratch = scratch
        self.script = WRITES
        self.release("1")

    def release(self, version: str) -> None:
        """Publish a version of the one package that the definition names."""
        self._archive.make(self._scratch, "thing", version)
        self._archive.publish("vivid", arches=["amd64", "arm64"])

    def propose(self, version: str) -> None:
        """Publish a version of it where updates are tried."""
        self._archive.make(self._scratch, "thing", f"1.{version}")
        self._archive.publish("vivid-proposed")

    def command(self, request: BuildRequest, output: Path, extra: Sequence[str]) -> list[str]:
        """Stand in for the rootfs command: record the fingerprint of the inputs."""
        places = definition_places(self.space.root)
        selection = select(request.project, request.release, request.arch, places)
        options = zip(extra[::2], extra[1::2], strict=True)
        names = [value for option, value in options if option == "--extra-archive"]
        fingerprint, _build = builds.look_for_build(self.space, selection, names)
        return [sys.executable, "-c", self.script, str(output), fingerprint]

    def tick(self, name: str, now: datetime) -> Ran:
        (ran,) = schedule.run(
            self.space,
            schedule.entries(self.space, [name]),
            host="amd64",
            clock=lambda: now,
            progress=Silent(),
            command=self.command,
        )
        return ran

    def look(self, name: str, now: datetime) -> tuple[str, str]:
        wanted = schedule.entries(self.space, [name])
        (found,) = schedule.look(self.space, wanted, host="amd64", clock=lambda: now)
        return found.state, found.reason

    def states(self) -> list[tuple[str, str]]:
        """Return build id and arch of the builds that succeeded."""
        builds = queue.list_builds(self.space, results=[BuildResult.SUCCESS])
        return sorted((each.request.version, each.request.arch) for each in builds)


@pytest.fixture
def house(workspace: Workspace, tmp_path: Path) -> Iterator[House]:
    definition = workspace.root / "definitions/ubuntu-core/definition.toml"
    definition.parent.mkdir(parents=True)
    suites = 'suites = ["vivid"]'
    both = f'{suites}, proposed_suites = ["vivid-proposed"]'
    definition.write_text(f'packages = ["thing"]\n{DEFINITION.replace(suites, both)}')
    scratch = tmp_path / "packages"
    with foreign_gpg() as gpg, served(tmp_path / "archive") as mirror:
        archive = LocalArchive(root=tmp_path / "archive", gpg=gpg)
        archive.make(scratch, "base", "1", Essential="yes")
        archive.make(scratch, "apt", "1", Priority="required")
        (workspace.root / "coreimage.toml").write_text(
            SETTINGS.format(mirror=mirror, keyring=archive.keyring)
        )
        yield House(load_workspace(workspace.root), archive, scratch)


def test_changed_inputs_are_built_once(house: House) -> None:
    assert house.look("fresh", BEGIN) == ("due", "inputs changed for amd64, arm64")
    assert house.tick("fresh", BEGIN).reason == "inputs changed for amd64, arm64"
    assert house.states() == [("20261122", "amd64"), ("20261122", "arm64")]
    assert house.look("fresh", BEGIN) == ("not due", "no input changed")
    assert house.tick("fresh", BEGIN).state is State.NOT_DUE

    house.release("2")
    assert house.tick("fresh", BEGIN).reason == "inputs changed for amd64, arm64"
    assert house.states()[2:] == [("20261122.1", "amd64"), ("20261122.1", "arm64")]
    assert house.tick("fresh", BEGIN).state is State.NOT_DUE


def test_a_change_of_an_extra_archive_counts(house: House) -> None:
    settings = house.space.root / "coreimage.toml"
    settings.write_text(f"{settings.read_text()}\n{TRIED}")
    house.space = load_workspace(house.space.root)
    house.propose("1")
    assert house.tick("tried", BEGIN).reason == "inputs changed for amd64"
    assert house.tick("tried", BEGIN).state is State.NOT_DUE
    house.propose("2")
    assert house.look("tried", BEGIN) == ("due", "inputs changed for amd64")
    assert house.tick("tried", BEGIN).error is None
    assert house.look("tried", BEGIN) == ("not due", "no input changed")
    assert len(house.states()) == 2


def test_inputs_that_fail_are_built_again_when_they_change(house: House) -> None:
    house.script = FAILS
    assert house.tick("fresh", BEGIN).error is not None
    failed = (
        "the inputs as they are were built already and failed (amd64, arm64): "
        "waits for another change"
    )
    assert house.look("fresh", BEGIN) == ("not due", failed)
    assert house.tick("fresh", BEGIN) == Ran(name="fresh", state=State.NOT_DUE, reason=failed)
    house.script = WRITES
    assert house.tick("fresh", BEGIN).state is State.NOT_DUE
    house.release("2")
    assert house.tick("fresh", BEGIN).error is None
    assert len(house.states()) == 2


def test_a_calendar_builds_when_something_changed(house: House) -> None:
    assert house.tick("nightly", BEGIN).reason == "next at 2026-11-23 03:25 UTC"
    assert house.states() == []
    assert house.look("nightly", NIGHT) == ("due", "due at 2026-11-23 03:25 UTC")
    assert house.tick("nightly", NIGHT).error is None
    assert house.states() == [("20261123", "amd64")]

    tomorrow = NIGHT + timedelta(days=1)
    assert house.tick("nightly", tomorrow).reason == "due at 2026-11-24 03:25 UTC"
    assert house.states() == [("20261123", "amd64")]


def test_force_builds_always(house: House) -> None:
    for day in range(3):
        house.tick("always", BEGIN + timedelta(days=day))
    assert house.states() == [("20261123", "amd64"), ("20261124", "amd64")]


MAIN = """
import sys
from coreimage.cli.main import main
from coreimage.farm import executor
executor.rootfs_argv = lambda request, output, extra=(): [
    sys.executable, "-c", {script!r}, str(output), "text"]
main()
"""


def run_command(space: Workspace, *words: str, script: str = WRITES) -> run.Completed:
    argv = [sys.executable, "-c", MAIN.format(script=script), "schedule", *words]
    return run.run([*argv, "--workspace", space.root], check=False, timeout=120)


def command_line(space: Workspace, *words: str, script: str = WRITES, status: int = 0) -> str:
    done = run_command(space, *words, script=script)
    assert done.status == status, done.stderr.decode()
    return (done.stdout if status == 0 else done.stderr).decode()


def test_the_command_line(house: House) -> None:
    listed = json.loads(command_line(house.space, "list", "--json"))
    assert [each["name"] for each in listed] == ["nightly", "always", "fresh"]
    assert listed[0]["when"] == ["cron 25 3 * * *"]
    assert listed[0]["result"] == ""
    nightly, always, fresh = command_line(house.space, "run", "--dry-run").splitlines()
    assert re.fullmatch(r"nightly\tnot due\tnext at \d{4}-\d\d-\d\d 03:25 UTC", nightly)
    assert always.startswith("always\tnot due\tnext at ")
    assert fresh == "fresh\tdue\tinputs changed for amd64, arm64"
    assert house.states() == []

    said = command_line(house.space, "run", "fresh", script=FAILS, status=65)
    assert said.count("was not built") == 2
    assert "coreimage: schedule 'fresh' failed\n" in said
    assert "result:     failure\n" in command_line(house.space, "show", "fresh")

    house.release("2")
    done = command_line(house.space, "run", "fresh")
    assert done == "fresh\tdone\tinputs changed for amd64, arm64\n"
    assert json.loads(command_line(house.space, "show", "fresh", "--json"))["result"] == "success"
    assert "no schedule 'x'" in command_line(house.space, "run", "x", status=66)


def test_the_command_line_for_machines(house: House) -> None:
    nightly, _, fresh = json.loads(command_line(house.space, "run", "--dry-run", "--json"))
    following = datetime.fromisoformat(nightly.pop("next"))
    assert (following.hour, following.minute, following.tzinfo) == (3, 25, UTC)
    reason = f"next at {following:%Y-%m-%d %H:%M} UTC"
    assert nightly == {"name": "nightly", "state": "not due", "reason": reason}
    due = "inputs changed for amd64, arm64"
    assert fresh == {"name": "fresh", "state": "due", "reason": due, "next": None}

    said = command_line(house.space, "run", "--json")
    nightly, always, fresh = json.loads(said)
    assert nightly.pop("reason").startswith("next at ")
    assert nightly == {"name": "nightly", "state": "not due", "error": None}
    assert always["state"] == "not due"
    assert fresh == {"name": "fresh", "state": "done", "reason": due, "error": None}

    house.release("2")
    with lock(Memories(house.space.state).entry_lock("fresh"), purpose="schedule run fresh"):
        (looked,) = json.loads(command_line(house.space, "run", "fresh", "--dry-run", "--json"))
    assert looked == {"name": "fresh", "state": "running", "reason": "", "next": None}
    done = run_command(house.space, "run", "fresh", "--json", script=FAILS)
    assert done.status == 65
    (failed,) = json.loads(done.stdout)
    assert (failed["state"], failed["reason"]) == ("failed", due)
    assert "is not published, nothing was built for: amd64, arm64" in failed["error"]
    assert "coreimage: schedule 'fresh' failed\n" in done.stderr.decode()


BROKEN = """\
[schedules.typo]
project = "ubuntu-cor"
cron = "25 3 * * *"

[schedules.release]
project = "ubuntu-core"
release = "99"
cron = "25 3 * * *"

[schedules.arch]
project = "ubuntu-core"
arches = ["mips"]
cron = "25 3 * * *"

[schedules.extra]
project = "ubuntu-core"
cron = "25 3 * * *"
extra_archives = ["nowhere"]

[schedules.kernel]
project = "ubuntu-core"
arches = ["amd64"]
cron = "25 3 * * *"
subproject = "none"
channel = "edge"

[schedules.elsewhere]
project = "ubuntu-core"
arches = ["arm64"]
when_changed = true
channel = "edge"
"""
COMPLAINTS = {
    "typo": "there is no definition 'ubuntu-cor'",
    "release": "no release '99'",
    "arch": "no architecture 'mips'",
    "extra": "there is no extra archive 'nowhere'",
    "kernel": "takes a device tarball of 'ubuntu-core'",
    "elsewhere": "takes nothing of 'ubuntu-core' vivid for arm64",
}


def test_entries_that_cannot_be_run_are_named_and_hide_no_others(house: House) -> None:
    settings = house.space.root / "coreimage.toml"
    text = f"{BROKEN}\n{settings.read_text()}"
    settings.write_text(text)
    for words in (["run", "--dry-run"], ["list"]):
        done = run_command(house.space, *words)
        assert done.status == 66
        names = [line.partition("\t")[0] for line in done.stdout.decode().splitlines()]
        assert names[-9:] == [*COMPLAINTS, "nightly", "always", "fresh"]
        told = [line for line in done.stderr.decode().splitlines() if "error:" in line]
        assert len(told) == len(COMPLAINTS)
        for line, (name, complaint) in zip(told, COMPLAINTS.items(), strict=True):
            place = f"{settings}:{text.splitlines().index(f'[schedules.{name}]') + 1}"
            assert line.startswith(f"coreimage: error: {place}: schedule '{name}': ")
            assert complaint in line

    done = run_command(house.space, "run", "--dry-run", "--json")
    assert done.status == 66
    looked = {each["name"]: each for each in json.loads(done.stdout)}
    assert all(looked[name]["state"] == "failed" for name in COMPLAINTS)
    assert all(complaint in looked[name]["reason"] for name, complaint in COMPLAINTS.items())
    assert looked["typo"]["next"] is not None
    assert looked["nightly"]["state"] == "not due"
    assert looked["fresh"]["state"] == "due"
    listed = json.loads(run_command(house.space, "list", "--json").stdout)
    assert [bool(each["problem"]) for each in listed] == [True] * 6 + [False] * 3
    shown = run_command(house.space, "show", "kernel").stdout.decode()
    assert "subproject: none\n" in shown
    assert "takes a device tarball" in shown


def test_an_archive_that_does_not_answer_hides_no_other_entry(house: House) -> None:
    settings = house.space.root / "coreimage.toml"
    settings.write_text(settings.read_text().replace('mirror = "', 'mirror = "http://127.0.0.1:9/'))
    house.space = load_workspace(house.space.root)
    wanted = dict(reversed(schedule.entries(house.space).items()))
    looks = list(schedule.look(house.space, wanted, host="amd64", clock=lambda: BEGIN))
    assert [each.state for each in looks] == [State.FAILED, State.NOT_DUE, State.NOT_DUE]
    assert looks[0].error is not None
    assert looks[0].error.exit_code == 69


def test_an_entry_needs_a_reason(workspace: Workspace) -> None:
    (workspace.root / "coreimage.toml").write_text('[schedules.x]\nproject = "core"\n')
    with pytest.raises(ConfigError, match=r"'schedules.x': value error, neither 'cron' nor"):
        load_workspace(workspace.root)


@pytest.mark.parametrize("word", ["amd64+", "+box", "amd64.box", "AMD64", "a b"])
def test_an_arch_that_cannot_be_one_is_refused(workspace: Workspace, word: str) -> None:
    text = (
        f'[schedules.x]\nproject = "core"\nwhen_changed = true\narches = ["amd64+box", "{word}"]\n'
    )
    (workspace.root / "coreimage.toml").write_text(text)
    with pytest.raises(ConfigError, match=r"'schedules.x.arches.1' is .*as in 'armhf\+box'"):
        load_workspace(workspace.root)


def test_without_entries_nothing_is_due(workspace: Workspace) -> None:
    assert schedule.entries(workspace) == {}
    with pytest.raises(NotFoundError, match="no schedule 'nightly'"):
        schedule.entries(workspace, ["nightly"])
