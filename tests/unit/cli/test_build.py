"""The command line as a person uses it, with a small program in place of the rootfs command."""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from coreimage.cli.build import parse_state
from coreimage.config import load_workspace
from coreimage.errors import CoreImageError, UsageError
from coreimage.farm import queue
from coreimage.lib import run
from coreimage.model.build import BuildResult, BuildStatus

# The command `coreimage` in which a build is this program.
MAIN = """
import sys
from coreimage.cli.main import main
from coreimage.farm import executor

def argv(request, output, extra=()):
    return [sys.executable, "-c", {script!r}, str(output), *extra]

executor.rootfs_argv = argv
main()
"""
WRITES = """
import pathlib, sys
pathlib.Path(sys.argv[1], "livecd.core.manifest").write_text("dash 1")
print("== bootstrap")
print("   from archive.example")
print("Unpacking dash")
"""
FAILS = "import sys; print('coreimage: error: no hook'); sys.exit(65)"
WAITS = "import time; print('begun', flush=True); time.sleep(600)"


DEFINITION = """\
name = "core"
title = "Core"
distribution = "debian"
default_release = "13"
releases.13 = { series = "trixie", suites = ["trixie"], proposed_suites = ["trixie-next"] }
architectures.amd64 = { bootloader = "grub" }
architectures.armhf = { bootloader = "u-boot" }
devices.box = { arch = "amd64" }
devices.raspi2 = { arch = "armhf" }
"""


class Shell:
    def __init__(self, root: Path, script: str = WRITES) -> None:
        self._root = root
        self._command = [sys.executable, "-c", MAIN.format(script=script)]

    def argv(self, *words: str) -> list[str]:
        return [*self._command, *words, "--workspace", str(self._root)]

    def run(self, *words: str, status: int = 0) -> tuple[str, str]:
        done = run.run(self.argv(*words), check=False, timeout=60)
        out, err = done.stdout.decode(), done.stderr.decode()
        assert done.status == status, err
        return out, err

    def request(self, *words: str, status: int = 0) -> tuple[str, str]:
        target = ["core", "--release", "13", "--arch", "amd64"]
        return self.run("build", "request", *target, *words, status=status)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "coreimage.toml").write_text("")
    definition = tmp_path / "definitions/core/definition.toml"
    definition.parent.mkdir(parents=True)
    definition.write_text(DEFINITION)
    return tmp_path


@contextmanager
def waiting_build(root: Path) -> Iterator[Shell]:
    """Yield a shell in whose workspace build 1 runs until it is cancelled."""
    shell = Shell(root, WAITS)
    out, _ = shell.request("--detach")
    assert out == "1\n"
    try:
        yield shell
    finally:
        run.run(shell.argv("build", "cancel", "1"), check=False)


def test_request_waits_and_prints_the_artifacts(root: Path) -> None:
    out, err = Shell(root).request()

    assert out.splitlines()[0].startswith("build 1: Successfully built in ")
    assert out.splitlines()[1] == str(root / "builds/1/artifacts/livecd.core.manifest")
    assert err.splitlines() == [
        f"build 1: log in '{root}/builds/1/log'",
        "== bootstrap",
        "   from archive.example",
    ]


ECHOES = f"{WRITES}print(*sys.argv[2:])"


def test_extra_archives_of_a_request_reach_its_build(root: Path) -> None:
    shell = Shell(root, ECHOES)
    words = ["--extra-archive", "proposed:900"]
    for number, more in enumerate(([], ["--detach"], ["--queue"]), 1):
        shell.request(*words, *more)
        if more == ["--queue"]:
            shell.run("build", "run", "--until-idle")
        assert shell.run("build", "log", str(number), "--follow")[0].endswith(
            " ".join(words) + "\n"
        )

    assert (
        "there is no extra archive 'none'" in shell.request("--extra-archive", "none", status=66)[1]
    )
    assert len(queue.list_builds(load_workspace(root))) == 3


def test_request_as_json(root: Path) -> None:
    build = json.loads(Shell(root).request("--json")[0])

    assert build["id"] == 1
    assert build["state"] == "Successfully built"
    assert build["request"]["series"] == "trixie"
    assert build["artifacts"] == ["livecd.core.manifest"]


def test_a_failed_request_shows_the_log_and_has_the_childs_exit_code(root: Path) -> None:
    out, err = Shell(root, FAILS).request(status=65)

    assert out == ""
    assert "coreimage: error: build '1' failed, exit status 65\n" in err
    assert "  coreimage: error: no hook\n" in err
    assert "hint: the whole log: coreimage build log 1\n" in err


def test_request_of_an_unknown_definition_names_the_ones_there_are(root: Path) -> None:
    _, err = Shell(root).run("build", "request", "kiosk", status=66)

    assert "there is no definition 'kiosk'" in err
    assert "hint: the definitions are core, debian-core, ubuntu-core" in err


def test_request_without_a_release_takes_the_definitions_own(root: Path) -> None:
    out, _ = Shell(root).run("build", "request", "core", "--arch", "amd64", "--json")

    assert json.loads(out)["request"]["release"] == "13"


def test_a_device_tells_its_architecture(root: Path) -> None:
    shell = Shell(root)
    out, _ = shell.run("build", "request", "core", "--device", "raspi2", "--queue", "--json")
    asked = json.loads(out)["request"]
    assert (asked["arch"], asked["device"]) == ("armhf", "raspi2")
    shell.request("--device", "box")
    shell.request("--device", "generic_amd64", "--queue")

    rows = [line.split("\t") for line in shell.run("build", "list")[0].splitlines()]
    assert [row[3] for row in rows[1:]] == ["amd64", "amd64.box", "armhf.raspi2"]
    listed = json.loads(shell.run("build", "list", "--arch", "amd64", "--json")[0])
    assert [each["request"]["device"] for each in listed] == ["", "box"]
    shown, _ = shell.run("build", "show", "2")
    assert "arch:       amd64\ndevice:     box\n" in shown
    assert "buildlog_debian_trixie_amd64.box_core-system-image_BUILDING.txt.gz" in shown
    assert "device:" not in shell.run("build", "show", "3")[0]


def test_a_device_that_there_is_not_is_refused(root: Path) -> None:
    _, err = Shell(root).request("--device", "bix", status=66)
    assert "has no device 'bix' of architecture 'amd64'" in err
    assert "hint: its devices are generic_amd64, box, raspi2 (armhf)" in err
    _, err = Shell(root).request("--device", "raspi2", status=66)
    assert "has no device 'raspi2' of architecture 'amd64'" in err


def test_a_road_of_a_device_makes_no_disk_of_another(root: Path) -> None:
    words = ["pipeline", "run", "core", "--device", "box", "--output", "x.img"]
    _, err = Shell(root).run(*words, status=2)
    assert "--output makes the disk of a generic machine, not of 'box'" in err
    _, err = Shell(root).run(*words[:5], status=66)
    assert "'core/13/edge' has no device of architecture 'amd64.box'" in err
    assert 'box_amd64 = "amd64.box" }' in err


def test_detached_build_is_followed_and_cancelled(root: Path) -> None:
    with (
        waiting_build(root) as shell,
        run.start(shell.argv("build", "log", "1", "--follow"), stdout=run.PIPE) as follower,
    ):
        assert follower.stdout is not None
        assert follower.stdout.readline() == b"begun\n"
        assert "Currently building" in shell.run("build", "list")[0]
        assert shell.run("build", "abort", "1")[0] == "build 1: Cancelled\n"
        assert follower.stdout.read() == b""
        assert follower.wait(30) == 0

    assert shell.run("build", "log", "1")[0] == "begun\n"
    shown, _ = shell.run("build", "show", "1")
    assert "state:      Cancelled\n" in shown
    name = "buildlog_debian_trixie_amd64_core-system-image_BUILDING.txt.gz"
    assert f"log:        {root}/builds/1/{name}\n" in shown
    assert "attempt:    1 by " in shown


def test_what_makes_no_sense_is_refused_before_anything_is_asked_for(root: Path) -> None:
    shell = Shell(root)
    for words in (
        ["--queue", "--detach"],
        ["--queue", "--priority", "9" * 20],
        ["--queue", "--priority", "-1000001"],
    ):
        _, err = shell.request(*words, status=2)
        assert "Traceback" not in err
    assert "exclude each other" in shell.request("--queue", "--detach", status=2)[1]
    assert json.loads(shell.run("build", "list", "--json")[0]) == []
    shell.request("--queue")
    assert "Traceback" not in shell.run("build", "prioritise", "1", "9" * 20, status=2)[1]
    assert shell.run("build", "prioritise", "1", "1000000")[0].endswith(" 1000000\n")


def test_show_says_what_was_asked_for(root: Path) -> None:
    shell = Shell(root)
    asked = ["--queue", "--extra-archive", "proposed:7", "--new-ids", "--subproject", "none"]
    shell.request(*asked)
    shell.request("--queue")
    shown, _ = shell.run("build", "show", "1")
    assert "subproject: none\narchives:   proposed:7\nnew ids:    yes\n" in shown
    shown, _ = shell.run("build", "show", "2")
    assert "archives:" not in shown
    assert "new ids:" not in shown


def test_the_tree_of_a_build_that_there_is_not(root: Path) -> None:
    shell = Shell(root)
    assert "there is no build '99'" in shell.run("rootfs", "ids", "99", status=66)[1]
    shell.request("--queue")
    assert "there is no build '99'" in shell.run("rootfs", "shell", "99", status=66)[1]
    assert "build 1 has no rootfs tarball" in shell.run("rootfs", "ids", "1", status=66)[1]


def test_detach_returns_at_once_and_leaves_our_pipes(root: Path) -> None:
    begun = time.monotonic()
    with waiting_build(root):
        # The pipes that `run` reads to their end would stay open for ten minutes otherwise.
        assert time.monotonic() - begun < 60


def test_list_filters_by_state_and_limits(root: Path) -> None:
    Shell(root, FAILS).request(status=65)
    shell = Shell(root)
    shell.request()
    shell.request()

    rows = [line.split("\t") for line in shell.run("build", "list")[0].splitlines()]
    assert rows[0][:6] == ["build", "project", "release", "arch", "version", "priority"]
    assert [row[0] for row in rows[1:]] == ["3", "2", "1"]
    assert rows[3][1:4] == ["core", "13", "amd64"]
    assert rows[3][5:7] == ["0", "Failed to build"]

    failed = json.loads(shell.run("build", "list", "--state", "failed to build", "--json")[0])
    assert [(build["id"], build["message"]) for build in failed] == [(1, "no hook")]
    limited = ["--status", "completed", "--result", "success", "--limit", "1"]
    last = json.loads(shell.run("build", "list", *limited, "--json")[0])
    assert [build["id"] for build in last] == [3]


def test_the_queue_is_carried_out_by_priority_and_age(root: Path) -> None:
    shell = Shell(root)
    for _ in range(3):
        queue.request(
            load_workspace(root), project="core", release="13", series="trixie", arches=["amd64"]
        )
    assert shell.request("--queue", "--priority", "7")[0] == "4\n"
    assert shell.run("build", "prioritise", "3", "8")[0] == "build 3: priority 8\n"
    queue.abort(load_workspace(root), 1)
    out, err = shell.run("build", "run", "--until-idle", "--parallel", "1")

    assert [line.split("\t")[0] for line in out.splitlines()] == ["3", "4", "2"]
    assert {line.split("\t")[6] for line in out.splitlines()} == {"Successfully built"}
    assert "== 3 core amd64: bootstrap\n" in err
    assert "   2 core amd64: from archive.example\n" in err
    with pytest.raises(CoreImageError, match="build '3' cannot be prioritised, it is completed"):
        queue.prioritise(load_workspace(root), 3, 1)


def test_a_failed_build_is_tried_again_by_hand(root: Path) -> None:
    Shell(root, FAILS).request(status=65)
    shell = Shell(root)
    assert shell.run("build", "retry", "1")[0] == "build 1: Needs building\n"
    shell.run("build", "run", "--until-idle")

    shown, _ = shell.run("build", "show", "1")
    assert "result:     success\n" in shown
    assert shown.count("attempt:    ") == 2
    said, _ = shell.run("build", "log", "1")
    assert said.startswith("coreimage: error: no hook\n== Attempt 2, by ")
    assert said.endswith("Unpacking dash\n")
    _, err = shell.run("build", "retry", "1", status=1)
    assert "build '1' cannot be tried again: it has succeeded\nhint: ask for a new one" in err


def test_what_changes_a_build_prints_it_as_json(root: Path) -> None:
    shell = Shell(root)
    shell.request("--queue")

    def changed(*words: str) -> Any:
        said = shell.run("build", *words, "--json")[0]
        assert json.loads(said) == json.loads(shell.run("build", "show", "1", "--json")[0])
        return json.loads(said)

    assert changed("prioritise", "1", "8")["priority"] == 8
    aborted = changed("abort", "1")
    assert (aborted["state"], aborted["status"]) == ("Cancelled", "aborted")
    assert changed("retry", "1")["state"] == "Needs building"
    out, err = shell.run("build", "retry", "1", "--json", status=1)
    assert out == ""
    assert "build '1' cannot be tried again" in err


def test_unknown_build_and_unstarted_follow(root: Path) -> None:
    _, err = Shell(root).run("build", "show", "12", status=66)

    assert "coreimage: error: there is no build '12'\nhint: there is none yet\n" in err


@pytest.mark.parametrize("text", ["Chroot problem", "chroot PROBLEM", " chroot problem"])
def test_parse_state(text: str) -> None:
    assert parse_state(text) == (BuildStatus.COMPLETED, BuildResult.ERROR)


def test_unknown_state_names_all_states() -> None:
    with pytest.raises(UsageError, match="there is no build state 'lost'") as raised:
        parse_state("lost")

    assert "'Needs building', 'Currently building'" in raised.value.hint
