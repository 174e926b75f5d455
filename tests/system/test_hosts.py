"""The same bytes on another release of Debian, whose tools are older or newer than those here."""

import importlib.metadata
import os
import platform
import shutil
from pathlib import Path

import pytest

from coreimage.flasher.disk.layout import Layout
from coreimage.flasher.inspect.table import read_layout
from coreimage.lib import run
from tests.support.product import SOURCES
from tests.system.conftest import Road

pytestmark = [pytest.mark.system, pytest.mark.long]

PACKAGES = (
    *("dosfstools", "e2fsprogs", "gpgv", "mtools", "pigz", "xz-utils", "zstd", "util-linux"),
    *("grub-common", "grub-efi-amd64-bin", "grub-pc-bin", "gnupg"),
    *("python3", "python3-pydantic", "python3-rich", "python3-typer", "python3-yaml"),
)
ENTER = """\
mount --rbind /dev "$0/dev"
mount -t proc proc "$0/proc"
exec chroot "$0" "$@"
"""


@pytest.fixture(scope="module")
def other(ground: Path) -> Path:
    """The tree of a release of Debian that is not the one of this machine, with the product."""
    if os.geteuid() != 0:
        pytest.skip("only root can enter another system")
    here = platform.freedesktop_os_release().get("VERSION_CODENAME")
    release = "bookworm" if here == "trixie" else "trixie"
    root = ground / release
    words = ["--variant=minbase", f"--include={','.join(PACKAGES)}", release]
    run.run(["mmdebstrap", *words, root], timeout=1800)
    home = root / "coreimage"
    shutil.copytree(SOURCES / "src", home)
    shutil.copytree(SOURCES / "oem", root / "oem")
    found = importlib.metadata.distribution("coreimage")
    information = f"coreimage-{found.version}.dist-info"
    shutil.copytree(Path(str(found.locate_file(information))), home / information)
    return root


def test_the_same_bytes_but_for_grub(road: Road, other: Path) -> None:
    """GRUB is the machine's own; everything else is ours, or an image's, wherever it is made."""
    shutil.copytree(road.channels, other / "tree", symlinks=True)
    shutil.copy(road.workspace / "trust/archive-master.tar.xz", other / "trust.tar.xz")
    flash = ["core", "13", "--channel", "edge", "--server", "/tree", "--output", "/x.img"]
    argv = ["python3", "-m", "coreimage", "flash", *flash, "--archive-master", "/trust.tar.xz"]
    enter = ["unshare", "--mount", "sh", "-ec", ENTER, str(other)]
    run.run([*enter, "env", "PYTHONPATH=/coreimage", "HOME=/root", *argv], timeout=600)

    theirs, ours = other / "x.img", road.disk
    layout = read_layout(ours)
    assert read_layout(theirs) == layout
    for name in ("system-a", "system-b", "writable"):
        part = layout.partition(name)
        assert same(ours, theirs, part.start, part.end), name
    # Behind the boot code, up to the first partition; and the table at the end.
    assert same(ours, theirs, 440, layout.partitions[0].start)
    assert same(ours, theirs, layout.partitions[-1].end, layout.size)
    found = [boot_files(each, layout, other / f"boot-{each.stem}") for each in (ours, theirs)]
    assert found[0].keys() == found[1].keys()
    different = {name for name in found[0] if found[0][name] != found[1][name]}
    assert different <= {"EFI/BOOT/BOOTX64.EFI"}


def same(one: Path, two: Path, start: int, end: int) -> bool:
    words = ["--ignore-initial", str(start), "--bytes", str(end - start)]
    return run.run(["cmp", *words, one, two], check=False).status == 0


def boot_files(disk: Path, layout: Layout, folder: Path) -> dict[str, bytes]:
    folder.mkdir()
    drive = f"{disk}@@{layout.partition('system-boot').start}"
    run.run(["mcopy", "-s", "-n", "-i", drive, "::/*", folder])
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
