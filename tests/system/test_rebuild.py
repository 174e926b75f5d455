"""The same packages give the same bytes, whoever builds and wherever."""

import os
import pwd
import shutil
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from coreimage.lib import run
from coreimage.lib.temporary import temporary_places
from tests.support.product import SOURCES, Product, sums
from tests.system.conftest import Road

pytestmark = pytest.mark.system

# Several runs on one machine have users of their own.
USER = f"coreimage-test-{os.getpid()}"


@contextmanager
def somebody(ground: Path) -> Iterator[Product]:
    """Yield the product as another user runs it, on a host with another name.

    Only root can become somebody else; everybody else is another user than the road's already
    when the road was gone as root, and builds in other surroundings at least.
    """
    # Not below the road's own folder: commands look upwards for a workspace.
    home = Path(tempfile.mkdtemp(prefix="coreimage-somebody-", dir=ground.parent)) / "home"
    home.parent.chmod(0o755)
    surroundings = {
        "TZ": "Asia/Kathmandu",
        "LC_ALL": "C",
        "HOME": str(home),
        # The tests' own is where others cannot go.
        "XDG_STATE_HOME": str(home / ".local/state"),
    }
    if os.geteuid() != 0:
        home.mkdir()
        yield Product(folder=home, environment=surroundings)
        shutil.rmtree(home.parent)
        return
    run.run(["useradd", "--create-home", "--home-dir", home, USER])
    try:
        home.chmod(0o700)
        # Our own checkout may lie where others cannot go.
        code = home.parent / "code"
        for name in ("src", "definitions", "oem"):
            shutil.copytree(SOURCES / name, code / name)
        packages = Path(sysconfig.get_paths()["purelib"])
        shutil.copytree(packages, code / "packages", symlinks=True)
        path = f"{code / 'src'}:{code / 'packages'}"
        shell = f"hostname elsewhere; umask 027; exec setpriv --reuid={USER} --regid={USER} "
        shell += '--init-groups --inh-caps=-all -- "$@"'
        yield Product(
            folder=home,
            python=Path("/usr/bin/python3"),
            prefix=["unshare", "--uts", "sh", "-c", shell, "sh"],
            environment={**surroundings, "PYTHONPATH": path},
        )
    finally:
        run.run(["userdel", USER], check=False)
        shutil.rmtree(home.parent)


def test_a_newer_package_leaves_the_device_tarball_as_it_is(road: Road, tmp_path: Path) -> None:
    product = Product(folder=tmp_path, environment={"SOURCE_DATE_EPOCH": str(_epoch(road) + 86400)})
    output = tmp_path / "out"
    product.run("rootfs", "build", "debian-core", "--release", "13", "--output", output)
    name = "livecd.*.device.tar.gz"
    assert sums(output, name) == sums(road.artifacts, name)
    name = "livecd.*.rootfs.tar.gz"
    assert sums(output, name) != sums(road.artifacts, name)


def test_another_user_on_another_host_gets_the_same_image_and_disk(
    road: Road, ground: Path
) -> None:
    with somebody(ground) as other:
        output = other.folder / "out"
        epoch = str(_epoch(road))
        product = Product(
            folder=other.folder,
            python=other.python,
            prefix=other.prefix,
            environment={**other.environment, "SOURCE_DATE_EPOCH": epoch},
        )
        product.run("rootfs", "build", "debian-core", "--release", "13", "--output", output)
        assert sums(output, "livecd.*.tar.gz") == sums(road.artifacts, "livecd.*.tar.gz")

        trust = shutil.copyfile(
            road.workspace / "trust/archive-master.tar.xz", ground / "archive-master.tar.xz"
        )
        trust.chmod(0o644)
        words = ["core", "13", "--channel", "edge", "--output", "x86.img"]
        server = ["--server", road.channels, "--archive-master", trust]
        _open_tree(road)
        product.run("flash", *words, *server)
        disk = other.folder / "x86.img"
        if os.geteuid() == 0:
            assert disk.stat().st_uid == pwd.getpwnam(USER).pw_uid
        assert run.run(["cmp", road.disk, disk], check=False).status == 0
        leftovers = [each for each in other.folder.iterdir() if each.name.startswith(".scratch-")]
        assert not leftovers
        if os.geteuid() == 0:
            # In memory or on disk, as there was room.
            own = f"coreimage-{pwd.getpwnam(USER).pw_uid}"
            rooms = [place / own for place in temporary_places() if (place / own).exists()]
            assert rooms
            assert not [each for room in rooms for each in room.iterdir()]


def _epoch(road: Road) -> int:
    import json

    record = json.loads((road.artifacts / "livecd.debian-core.build.json").read_text())
    return int(record["source_date_epoch"])


def _open_tree(road: Road) -> None:
    """Let others read the served tree, as an administrator would."""
    for folder in (road.workspace, road.workspace / "www"):
        folder.chmod(0o755)
