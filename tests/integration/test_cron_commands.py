"""The commands that cron calls: image sets described by words and the environment."""

import sys
from collections.abc import Mapping
from pathlib import Path

from coreimage.config import Workspace
from coreimage.lib import run
from tests.integration.image_sets import (  # noqa: F401  fixtures are found by their names
    FAILS,
    WRITES,
    directory,
    published,
    space_fixture,
    tarballs,
)

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


def test_without_subproject_a_channel_of_devices_is_refused(
    space: Workspace, tmp_path: Path
) -> None:
    cron = Cron(space, tmp_path / "bin", {})
    plain = LINE.replace("SUBPROJECT=system-image ", "")
    _, err = cron.line(f"CHANNEL=edge {plain}", status=2)

    assert "takes a device tarball of 'ubuntu-core'" in err
    assert "(the trigger's SUBPROJECT)" in err
    assert Path(cron.line(plain)[0].strip()).is_dir()
