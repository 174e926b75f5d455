"""Schedules with a real archive on loopback; small programs stand in for the rootfs command."""

import json
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from coreimage import schedule
from coreimage.config import Workspace, load_workspace
from coreimage.errors import ConfigError, NotFoundError
from coreimage.farm import queue
from coreimage.farm.schedule import Ran
from coreimage.lib import run
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
        names = [word for word in extra if word != "--extra-archive"]
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
        ((_, state, reason),) = schedule.look(self.space, wanted, host="amd64", clock=lambda: now)
        return state, reason

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
    assert house.look("fresh", BEGIN) == ("not due", "")
    assert house.tick("fresh", BEGIN).reason == ""

    house.release("2")
    assert house.tick("fresh", BEGIN).reason == "inputs changed for amd64, arm64"
    assert house.states()[2:] == [("20261122.1", "amd64"), ("20261122.1", "arm64")]
    assert house.tick("fresh", BEGIN).reason == ""


def test_a_change_of_an_extra_archive_counts(house: House) -> None:
    settings = house.space.root / "coreimage.toml"
    settings.write_text(f"{settings.read_text()}\n{TRIED}")
    house.space = load_workspace(house.space.root)
    house.propose("1")
    assert house.tick("tried", BEGIN).reason == "inputs changed for amd64"
    assert house.tick("tried", BEGIN).reason == ""
    house.propose("2")
    assert house.look("tried", BEGIN) == ("due", "inputs changed for amd64")
    assert house.tick("tried", BEGIN).error is None
    assert house.look("tried", BEGIN) == ("not due", "")
    assert len(house.states()) == 2


def test_inputs_that_fail_are_built_again_when_they_change(house: House) -> None:
    house.script = FAILS
    assert house.tick("fresh", BEGIN).error is not None
    assert house.tick("fresh", BEGIN) == Ran(name="fresh")
    house.script = WRITES
    assert house.tick("fresh", BEGIN) == Ran(name="fresh")
    house.release("2")
    assert house.tick("fresh", BEGIN).error is None
    assert len(house.states()) == 2


def test_a_calendar_builds_when_something_changed(house: House) -> None:
    assert house.tick("nightly", BEGIN) == Ran(name="nightly")
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


def command_line(space: Workspace, *words: str, script: str = WRITES, status: int = 0) -> str:
    argv = [sys.executable, "-c", MAIN.format(script=script), "schedule", *words]
    done = run.run([*argv, "--workspace", space.root], check=False, timeout=120)
    assert done.status == status, done.stderr.decode()
    return (done.stdout if status == 0 else done.stderr).decode()


def test_the_command_line(house: House) -> None:
    listed = json.loads(command_line(house.space, "list", "--json"))
    assert [each["name"] for each in listed] == ["nightly", "always", "fresh"]
    assert listed[0]["when"] == ["cron 25 3 * * *"]
    assert listed[0]["result"] == ""
    assert command_line(house.space, "run", "--dry-run").splitlines() == [
        "nightly\tnot due",
        "always\tnot due",
        "fresh\tdue\tinputs changed for amd64, arm64",
    ]
    assert house.states() == []

    said = command_line(house.space, "run", "fresh", script=FAILS, status=65)
    assert said.count("was not built") == 2
    assert "coreimage: schedule 'fresh' failed\n" in said
    assert "result:   failure\n" in command_line(house.space, "show", "fresh")

    house.release("2")
    done = command_line(house.space, "run", "fresh")
    assert done == "fresh\tdone\tinputs changed for amd64, arm64\n"
    assert json.loads(command_line(house.space, "show", "fresh", "--json"))["result"] == "success"
    assert "no schedule 'x'" in command_line(house.space, "run", "x", status=66)


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
