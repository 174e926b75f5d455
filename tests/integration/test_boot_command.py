"""The commands boot and doctor as processes, with real QEMU."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.guests import HEALTHY, Action, make_disk

COMMAND = [sys.executable, "-m", "coreimage"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


def coreimage(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, words)], env=ENVIRONMENT, capture_output=True, text=True, check=False
    )


def test_a_passed_test_as_json(tmp_path: Path) -> None:
    disk = make_disk(tmp_path / "core.img", HEALTHY)
    done = coreimage("boot", disk, "--test", "--firmware", "bios", "--accel", "tcg", "--json")
    assert done.returncode == 0, done.stderr
    (report,) = json.loads(done.stdout)
    assert report["outcome"] == "passed"
    assert report["accelerator"] == {"name": "tcg", "reason": "asked for"}
    assert list(report["seconds"]) == ["firmware", "bootloader", "report"]
    assert Path(report["console_log"]).is_file()


def test_a_failed_test_shows_why_and_exits_1(tmp_path: Path) -> None:
    # The firmware may still be at its last line when the disk begins to speak.
    disk = make_disk(tmp_path / "core.img", "\r\nit is starting\r\n", Action.RESET)
    log = tmp_path / "console"
    done = coreimage("boot", disk, "--test", "--firmware", "bios", "--console-log", log)
    assert done.returncode == 1, done.stderr
    assert "the machine restarted or switched off" in done.stdout
    assert "starting" in done.stdout
    assert str(log) in done.stdout
    assert "accelerator: " in done.stdout
    assert "starting" in log.read_text()


@pytest.mark.parametrize("options", [[], ["--snapshot"]])
def test_a_persons_machine_owns_the_terminal_and_is_left_with_ctrl_a_x(
    tmp_path: Path, options: list[str]
) -> None:
    disk = make_disk(tmp_path / "core.img", HEALTHY)
    ours, theirs = pty.openpty()
    words = ["boot", str(disk), "--accel", "tcg", "--memory", "128", *options]
    with subprocess.Popen(
        [*COMMAND, *words], env=ENVIRONMENT, stdin=theirs, stdout=theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        seen = read_until(ours, b"debian-core/13/edge")
        os.write(ours, b"\x01x")
        assert process.wait(60) == 0
    os.close(ours)
    assert b"leave with Ctrl-A X" in seen
    assert (b"is lost when it ends" in seen) is bool(options)


def read_until(descriptor: int, text: bytes) -> bytes:
    seen = b""
    while text not in seen:
        seen += os.read(descriptor, 4096)
    return seen


def test_doctor_agrees_with_itself() -> None:
    done = coreimage("doctor", "--json")
    document = json.loads(done.stdout)
    missing = [each["name"] for each in document["checks"] if each["status"] == "missing"]
    assert document["works"] is not bool(missing)
    assert done.returncode == (77 if missing else 0)
    assert {"mke2fs", "accelerator", "mapped ids", "memory"} <= {
        each["name"] for each in document["checks"]
    }


def test_doctor_without_programs_says_what_to_install(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            *("unshare", "--user", "--map-root-user", "--mount", "sh", "-c"),
            # An empty directory in place of the one with most programs; no rights are needed.
            'mount --bind "$1" /usr/sbin && shift && exec "$@"',
            *("sh", str(tmp_path), *COMMAND, "doctor"),
        ],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 77, done.stderr
    last = done.stdout.strip().splitlines()[-1]
    assert last.startswith("apt-get install ")
    assert {"dosfstools", "e2fsprogs"} <= set(last.split())
