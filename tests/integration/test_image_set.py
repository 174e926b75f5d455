"""Image sets: built by small programs in place of the rootfs command, published with real keys."""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from coreimage import imageset
from coreimage.config import Workspace, load_workspace
from coreimage.errors import (
    BusyError,
    CoreImageError,
    DataError,
    IncompleteError,
    NotFoundError,
    TrustError,
)
from coreimage.farm import executor, folder, queue
from coreimage.farm.voice import Voice
from coreimage.imageset import Order, When, make_set
from coreimage.lib import run
from coreimage.lib.files import lock, sha256_of
from coreimage.lib.progress import Silent
from coreimage.model.build import BuildRequest, BuildStatus
from coreimage.model.publication import Publication, parse_checksums
from coreimage.pipeline.publishing import publish_finished

DEFINITION = """\
name = "ubuntu-core"
title = "Core"
distribution = "ubuntu"
default_release = "15.04"
releases."15.04" = { series = "vivid", suites = ["vivid"] }
architectures.amd64 = { bootloader = "grub" }
architectures.arm64 = { bootloader = "grub" }
"""
# What a builder leaves, with the words that it was called with in place of a tree.
WRITES = """
import hashlib, json, pathlib, sys
output, text = pathlib.Path(sys.argv[1]), sys.argv[2]
digests = {}
for kind in ("rootfs.tar.gz", "device.tar.gz", "manifest", "cdx.json"):
    path = output / f"livecd.ubuntu-core.{kind}"
    path.write_text(f"{kind} {text}")
    digests[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
record = {"product": "core", "sha256": digests, "fingerprint": text}
(output / "livecd.ubuntu-core.build.json").write_text(json.dumps(record))
"""
FAILS = "import sys; print('coreimage: error: no hook'); sys.exit(65)"
TODAY = "20150511"


def noon() -> datetime:
    return datetime(2015, 5, 11, 12, 0, tzinfo=UTC)


class Builder:
    """Stands in for the rootfs command; remembers what it was asked for."""

    def __init__(self, failing: Mapping[str, str] | None = None, text: str = "one") -> None:
        self._failing = failing or {}
        self._text = text
        self.asked: list[tuple[str, list[str]]] = []

    def __call__(self, request: BuildRequest, output: Path, extra: Sequence[str]) -> list[str]:
        self.asked.append((request.arch, list(extra)))
        script = self._failing.get(request.arch, WRITES)
        return [sys.executable, "-c", script, str(output), f"{request.arch} {self._text}"]


class Hearer(Silent):
    """Remembers the stages that it hears of."""

    def __init__(self) -> None:
        self.stages: list[str] = []

    def stage(self, title: str) -> None:
        self.stages.append(title)


@pytest.fixture
def space(workspace: Workspace) -> Workspace:
    definition = workspace.root / "definitions/ubuntu-core/definition.toml"
    definition.parent.mkdir(parents=True)
    definition.write_text(DEFINITION)
    config = workspace.root / "coreimage.toml"
    config.write_text(f"{config.read_text()}\n[farm]\nretry_delay = 0\n")
    return load_workspace(workspace.root)


def trigger(
    space: Workspace,
    builder: Builder,
    *,
    arches: Sequence[str] = ("amd64", "arm64"),
    when: When = When.ALWAYS,
    extra: Sequence[str] = (),
) -> imageset.Outcome:
    return make_set(
        space,
        Order(project="ubuntu-core", arches=arches, extra_archives=extra),
        when=when,
        host="amd64",
        progress=Silent(),
        command=builder,
        clock=noon,
    )


def directory(space: Workspace, version: str = TODAY) -> Path:
    place = Publication(project="ubuntu-core", series="vivid", version=version)
    return space.publications / place.path


def published(space: Workspace, version: str = TODAY) -> dict[str, str]:
    """Return the texts of what was published, after a look at the checksums."""
    place = directory(space, version)
    sums = parse_checksums((place / "SHA256SUMS").read_text(), source="")
    assert {path.name for path in place.glob("vivid-*")} == set(sums)
    assert all(sha256_of(place / name) == digest for name, digest in sums.items())
    return {
        name.removeprefix("vivid-preinstalled-core-"): (place / name).read_text() for name in sums
    }


def tarballs(**texts: str) -> dict[str, str]:
    return {
        f"{arch}.{kind}": f"{kind if kind != 'tar.gz' else 'rootfs.tar.gz'} {arch} {text}"
        for arch, text in texts.items()
        for kind in ("tar.gz", "device.tar.gz", "manifest", "cdx.json")
    }


def test_all_arches_share_one_build_id_and_publication(space: Workspace) -> None:
    builder = Builder()
    outcome = trigger(space, builder, extra=["snappy-dev/image:1001", "a/b"])

    assert outcome.version == TODAY
    assert outcome.complaint() is None
    assert [each.version for each in outcome.published] == [TODAY]
    assert published(space) == tarballs(amd64="one", arm64="one")
    options = ["--extra-archive", "snappy-dev/image:1001", "--extra-archive", "a/b"]
    assert builder.asked == [("amd64", options), ("arm64", options)]
    builds = queue.list_builds(space)
    assert {each.request.version for each in builds} == {TODAY}
    assert builds[0].extra["extra_archives"] == ["snappy-dev/image:1001", "a/b"]
    assert builds[0].fingerprint == "arm64 one"


def test_later_sets_of_a_day_have_numbers(space: Workspace) -> None:
    for version in (TODAY, f"{TODAY}.1", f"{TODAY}.2"):
        assert trigger(space, Builder()).version == version
    assert (directory(space).parent / "pending").readlink() == Path(f"{TODAY}.2")


def test_a_failed_arch_is_carried_over(space: Workspace) -> None:
    trigger(space, Builder())
    told: list[tuple[str, CoreImageError]] = []
    outcome = make_set(
        space,
        Order(project="ubuntu-core", arches=["amd64", "arm64"]),
        when=When.ALWAYS,
        host="amd64",
        progress=Silent(),
        complain=lambda arch, error: told.append((arch, error)),
        command=Builder({"arm64": FAILS}, text="two"),
        clock=noon,
    )

    second = f"{TODAY}.1"
    assert [arch for arch, _ in told] == ["arm64"]
    assert isinstance(told[0][1], DataError)
    assert "no hook" in told[0][1].message
    assert "coreimage build log 4" in told[0][1].hint
    complaint = outcome.complaint()
    assert isinstance(complaint, IncompleteError)
    assert complaint.exit_code == 3
    assert published(space, second) == tarballs(amd64="two", arm64="one")
    name = "vivid-preinstalled-core-arm64.tar.gz"
    assert (directory(space) / name).samefile(directory(space, second) / name)
    info = json.loads((directory(space, second) / ".publish_info").read_text())
    assert info["carried_over"] == {"arm64": TODAY}
    assert info["builds"] == [3]


def test_what_was_carried_over_is_carried_on(space: Workspace) -> None:
    trigger(space, Builder())
    for text in ("two", "three"):
        trigger(space, Builder({"arm64": FAILS}, text=text))

    assert published(space, f"{TODAY}.2") == tarballs(amd64="three", arm64="one")


def test_a_failed_arch_that_never_was_published_is_left_out(space: Workspace) -> None:
    outcome = trigger(space, Builder({"arm64": FAILS}))

    assert set(outcome.failures) == {"arm64"}
    assert published(space) == tarballs(amd64="one")


def test_nothing_is_published_when_nothing_was_built(space: Workspace) -> None:
    outcome = trigger(space, Builder({"amd64": FAILS, "arm64": FAILS}))

    complaint = outcome.complaint()
    assert complaint is not None
    assert complaint.exit_code == 65
    assert "nothing was built for: amd64, arm64" in complaint.message
    assert outcome.published == []
    assert not directory(space).parent.exists()


def test_different_failures_have_the_common_exit_code(space: Workspace) -> None:
    outcome = trigger(space, Builder({"amd64": FAILS, "arm64": "raise SystemExit(69)"}))

    complaint = outcome.complaint()
    assert complaint is not None
    assert complaint.exit_code == 1


def test_a_publication_that_was_changed_is_not_signed_again(space: Workspace) -> None:
    trigger(space, Builder())
    place = directory(space)
    sums = place / "SHA256SUMS"
    sums.write_text(sums.read_text().replace("arm64.manifest", "arm64.x"))

    with pytest.raises(TrustError):
        trigger(space, Builder({"arm64": FAILS}, text="two"))
    assert not directory(space, f"{TODAY}.1").exists()


def test_files_that_were_changed_are_not_carried_over(space: Workspace) -> None:
    trigger(space, Builder())
    path = directory(space) / "vivid-preinstalled-core-arm64.tar.gz"
    path.unlink()
    path.write_text("other")

    with pytest.raises(DataError, match="is not what was built"):
        trigger(space, Builder({"arm64": FAILS}, text="two"))
    assert not directory(space, f"{TODAY}.1").exists()


def test_without_builds_what_was_built_is_published(space: Workspace) -> None:
    (requested,) = queue.request(
        space,
        project="ubuntu-core",
        release="15.04",
        series="vivid",
        arches=["amd64"],
        clock=noon,
    )
    place = folder.folder_of(space, requested.id)
    argv = Builder()(requested.request, place.partial, [])
    executor.run_build(space, requested.id, argv=argv, progress=Silent())

    builder = Builder()
    outcome = trigger(space, builder, when=When.NEVER)
    assert builder.asked == []
    assert [each.version for each in outcome.published] == [TODAY]
    assert published(space) == tarballs(amd64="one")
    assert trigger(space, builder, when=When.NEVER).published == []


def test_a_set_that_is_not_finished_is_not_published(space: Workspace) -> None:
    arches = ["amd64", "arm64"]
    first, second = queue.request(
        space, project="ubuntu-core", release="15.04", series="vivid", arches=arches, clock=noon
    )
    place = folder.folder_of(space, first.id)
    argv = Builder()(first.request, place.partial, [])
    executor.run_build(space, first.id, argv=argv, progress=Silent())

    assert publish_finished(space, progress=Silent()) == []
    queue.abort(space, second.id)
    assert [each.version for each in publish_finished(space, progress=Silent())] == [TODAY]
    assert published(space) == tarballs(amd64="one")


KILLED_TRIGGER = f"""
import os, sys, threading, time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from coreimage import imageset
from coreimage.config import load_workspace
from coreimage.farm import queue
from coreimage.lib.progress import Silent

space = load_workspace(Path(sys.argv[1]))

def command(request, output, extra):
    if request.arch == "arm64":
        return ["sleep", "600"]
    return [sys.executable, "-c", {WRITES!r}, str(output), "amd64 one"]

def die():
    store = queue.open_store(space)
    while not (store.find(results=["success"]) and store.find(statuses=["running"])):
        time.sleep(0.05)
    os.kill(os.getpid(), 9)

threading.Thread(target=die).start()
imageset.make_set(
    space,
    imageset.Order(project="ubuntu-core", arches=["amd64", "arm64"]),
    when=imageset.When.ALWAYS, host="amd64", progress=Silent(), command=command,
    clock=lambda: datetime(2015, 5, 11, 12, 0, tzinfo=UTC),
)
"""


def kill_a_trigger(space: Workspace) -> None:
    """Leave a set whose first build succeeded, and whose second ran when its maker was killed."""
    argv = [sys.executable, "-c", KILLED_TRIGGER, str(space.root)]
    assert run.run(argv, check=False, timeout=60).status == -9
    with lock(folder.folder_of(space, 2).lock, purpose="test", wait=30):
        pass  # its guard has let go: all of the build's processes have ended
    builds = queue.list_builds(space)
    assert [each.status for each in builds] == [BuildStatus.PENDING, BuildStatus.COMPLETED]


def test_a_set_whose_maker_was_killed_is_taken_up_again(space: Workspace) -> None:
    kill_a_trigger(space)
    builder = Builder()
    outcome = trigger(space, builder)

    assert outcome.version == TODAY
    assert [each.version for each in outcome.published] == [TODAY]
    assert published(space) == tarballs(amd64="one", arm64="one")
    (resumed, _) = queue.list_builds(space)
    assert [each.message for each in resumed.attempts] == ["the builder was killed", ""]


@pytest.mark.parametrize("change", ["other arches", "other day", "no builds"])
def test_what_is_left_of_another_set_is_aborted(space: Workspace, change: str) -> None:
    kill_a_trigger(space)
    outcome = make_set(
        space,
        Order(
            project="ubuntu-core",
            arches=["arm64"] if change == "other arches" else ["amd64", "arm64"],
        ),
        when=When.NEVER if change == "no builds" else When.ALWAYS,
        host="amd64",
        progress=Silent(),
        command=Builder(text="two"),
        clock=lambda: noon() + timedelta(days=change == "other day"),
    )

    assert queue.get(space, 2).status is BuildStatus.ABORTED
    assert published(space) == tarballs(amd64="one")
    assert len(outcome.published) == (1 if change == "no builds" else 2)


def test_a_runner_takes_up_what_a_killed_trigger_left(space: Workspace) -> None:
    kill_a_trigger(space)
    runner = executor.run_queue(
        space,
        arches=["arm64"],
        parallel=1,
        command=Builder(),
        voice_of=lambda _: Voice(progress=Silent()),
        until_idle=True,
    )
    assert [(each.id, each.succeeded) for each in runner] == [(2, True)]
    assert [each.version for each in publish_finished(space, progress=Silent())] == [TODAY]
    assert published(space) == tarballs(amd64="one", arm64="one")


# Each waits until the other one runs: built one after the other, they would wait for ever.
MEETS = """
import pathlib, sys, time
here = pathlib.Path(sys.argv[1]).parent
(here / "met").touch()
while not all((here.parent / name / "met").exists() for name in "12"):
    time.sleep(0.05)
"""


def test_architectures_are_built_at_the_same_time(space: Workspace) -> None:
    heard = Hearer()
    outcome = make_set(
        space,
        Order(project="ubuntu-core", arches=["amd64", "arm64"]),
        when=When.ALWAYS,
        host="amd64",
        progress=heard,
        command=Builder(dict.fromkeys(["amd64", "arm64"], "print('== unpack')\n" + MEETS + WRITES)),
        clock=noon,
    )

    assert outcome.complaint() is None
    assert {"amd64: unpack", "arm64: unpack"} <= set(heard.stages)


def test_never_more_at_once_than_configured(space: Workspace) -> None:
    (space.root / "coreimage.toml").write_text("[farm]\nparallel = 1\n")
    alone = """
import pathlib, sys
here = pathlib.Path(sys.argv[1]).parent
running = [path for path in here.parent.glob("*/artifacts.partial")]
assert len(running) == 1, running
"""
    builder = Builder(dict.fromkeys(["amd64", "arm64"], alone + WRITES))
    assert trigger(load_workspace(space.root), builder).complaint() is None


def test_an_interrupted_set_leaves_nothing_waiting(space: Workspace) -> None:
    def interrupted(*_: object) -> list[str]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_set(
            space,
            Order(project="ubuntu-core", arches=["amd64", "arm64"]),
            when=When.ALWAYS,
            host="amd64",
            progress=Silent(),
            command=interrupted,
        )
    assert {each.status for each in queue.list_builds(space)} == {BuildStatus.ABORTED}


def test_one_set_at_a_time(space: Workspace) -> None:
    place = space.state / "locks/imageset-ubuntu-core-vivid-daily-preinstalled.lock"
    builder = Builder()
    with (
        lock(place, purpose="image set ubuntu-core vivid daily-preinstalled"),
        pytest.raises(BusyError, match=rf"by process {os.getpid()} since .*image set ubuntu-core"),
    ):
        trigger(space, builder)
    assert builder.asked == []
    assert queue.list_builds(space) == []


def test_an_unknown_arch_is_refused_before_anything_is_asked_for(space: Workspace) -> None:
    with pytest.raises(NotFoundError, match="no architecture 'sparc'"):
        trigger(space, Builder(), arches=["amd64", "sparc"])
    assert queue.list_builds(space) == []


# The commands as cron calls them, with the small program in place of the rootfs command.
PROGRAM = """\
#!{python}
import sys
from coreimage.farm import executor

def argv(request, output, extra=()):
    script = {scripts!r}.get(request.arch, {writes!r})
    return [sys.executable, "-c", script, str(output), " ".join([request.arch, *extra])]

executor.rootfs_argv = argv
from coreimage.cli.{module} import main
main()
"""


class Cron:
    """A folder with the two commands, and a shell that runs lines of a crontab."""

    def __init__(self, space: Workspace, bin_folder: Path, failing: Mapping[str, str]) -> None:
        self._space = space
        self._bin = bin_folder
        bin_folder.mkdir()
        for name, module in (
            ("for-project", "for_project"),
            ("cron.daily-preinstalled", "daily_preinstalled"),
        ):
            path = bin_folder / name
            path.write_text(
                PROGRAM.format(
                    python=sys.executable, scripts=dict(failing), writes=WRITES, module=module
                )
            )
            path.chmod(0o755)

    def line(self, text: str, *, path: str | None = None, status: int = 0) -> tuple[str, str]:
        """Run a line with our commands in PATH, or with `path` as PATH."""
        done = run.run(
            ["/bin/sh", "-c", text],
            env={"PATH": path or f"{self._bin}:/usr/bin:/bin"},
            cwd=self._space.root,
            check=False,
            timeout=120,
        )
        out, err = done.stdout.decode(), done.stderr.decode()
        assert done.status == status, err
        return out, err


LINE = (
    "SUBPROJECT=system-image EXTRA_PPAS=snappy-dev/image "
    "for-project ubuntu-core cron.daily-preinstalled --live"
)


def test_the_line_of_the_page(space: Workspace, tmp_path: Path) -> None:
    cron = Cron(space, tmp_path / "bin", {})
    out, _ = cron.line(LINE)

    (place,) = out.splitlines()
    assert Path(place).samefile(directory(space, Path(place).name))
    assert published(space, Path(place).name)["amd64.tar.gz"] == (
        "rootfs.tar.gz amd64 --extra-archive snappy-dev/image"
    )


def test_the_command_is_found_beside_for_project(space: Workspace, tmp_path: Path) -> None:
    cron = Cron(space, tmp_path / "bin", {})
    line = LINE.replace("for-project", str(tmp_path / "bin/for-project"), 1)
    out, _ = cron.line(line, path="/usr/bin:/bin")

    assert Path(out.strip()).is_dir()


def test_for_project_sets_the_names_and_passes_options_on(space: Workspace, tmp_path: Path) -> None:
    cron = Cron(space, tmp_path / "bin", {})
    out, _ = cron.line(
        "for-project ubuntu-core sh -c 'echo $PROJECT $CAPPROJECT \"$@\"' -- --live -h"
    )

    assert out == "ubuntu-core Ubuntu-Core --live -h\n"


def test_for_project_complains_of_what_is_not_there(space: Workspace, tmp_path: Path) -> None:
    cron = Cron(space, tmp_path / "bin", {})
    assert (
        "'no-such-program' is not installed"
        in cron.line("for-project ubuntu-core no-such-program", status=77)[1]
    )
    assert "PROJECT is '../x'" in cron.line("for-project ../x true", status=2)[1]
    assert "PROJECT is not set" in cron.line("cron.daily-preinstalled --live", status=2)[1]


def test_a_partial_failure_shows_log_and_last_lines_and_exits_with_3(
    space: Workspace, tmp_path: Path
) -> None:
    cron = Cron(space, tmp_path / "bin", {"arm64": FAILS})
    out, err = cron.line(f"ARCHES='amd64 arm64' {LINE}", status=3)

    built = {"amd64": "--extra-archive snappy-dev/image"}
    assert published(space, Path(out.strip()).name) == tarballs(**built)
    assert "coreimage: arm64 was not built\n" in err
    assert "  coreimage: error: no hook\n" in err
    assert "hint: the whole log: coreimage build log 2\n" in err
    assert f"image set {Path(out.strip()).name} is published without new builds for: arm64" in err


def test_debug_shows_what_builds_say(space: Workspace, tmp_path: Path) -> None:
    script = "print('Unpacking dash')\n" + WRITES
    cron = Cron(space, tmp_path / "bin", {"amd64": script})

    assert "Unpacking dash\n" not in cron.line(LINE)[1]
    assert "Unpacking dash\n" in cron.line(f"DEBUG=1 {LINE}")[1]
