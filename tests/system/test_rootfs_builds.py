"""Long series of real builds: the same bytes whoever builds, and builds that are killed."""

import random
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest

from coreimage.cli.space import host_arch
from coreimage.rootfs.definitions.definition import (
    definition_names,
    load,
    select,
    shipped_definitions,
)
from tests.support.foreign_keys import foreign_gpg
from tests.support.local_archive import LocalArchive, download, served
from tests.support.product import Product, sums
from tests.system.test_interrupted import processes_in, scratch_in
from tests.system.test_rebuild import somebody

pytestmark = [pytest.mark.system, pytest.mark.long]

PLACES = [shipped_definitions()]
BUILDS = [
    (name, release)
    for name in definition_names(PLACES)
    for release in load(name, PLACES)[0].releases
    if host_arch() in load(name, PLACES)[0].architectures
]
KILLS = 10
UBUNTU = """\
[archives.ubuntu]
mirror = "{mirror}"
keyring = "{keyring}"
"""
STAND_IN = 'name = "stand-in"\nextends = "ubuntu-core"\n'
# Debian's base-passwd has a number of its own for this user.
STAND_IN_IDS = "_apt:x:42:65534::/nonexistent:/usr/sbin/nologin\n"
# What stands for Ubuntu's kernel; and what its systemd had in itself before release 23.04.
KERNEL = ("linux-image-cloud-amd64", "systemd-resolved")


@contextmanager
def ubuntu_archive(ground: Path, release: str) -> Iterator[str]:
    """Yield the settings of an archive that has all which a release of Ubuntu Core takes.

    The definition and its release are the shipped ones; the packages are those of the host's
    archive under Ubuntu's suites, as this must work where Ubuntu's own archive is out of reach.
    """
    selection = select("ubuntu-core", release, host_arch(), PLACES)
    (kernel,) = (each for each in selection.packages if each.startswith("linux-image-"))
    others = [each for each in selection.packages if each != kernel]
    place = Path(tempfile.mkdtemp(dir=ground))
    place.chmod(0o755)
    with foreign_gpg() as gpg, served(place / "archive") as mirror:
        archive = LocalArchive(root=place / "archive", gpg=gpg)
        for package in download(place / "download", [*others, *KERNEL]):
            archive.take(package)
        archive.make(place / "made", kernel, "1", Depends=", ".join(KERNEL))
        for suite in selection.release.suites:
            archive.publish(suite, arches=[host_arch()])
        yield UBUNTU.format(mirror=mirror, keyring=archive.keyring)
    shutil.rmtree(place)


@pytest.fixture
def product(ground: Path) -> Iterator[Product]:
    """The product with a cache and a place for temporary files of the test's own."""
    folder = Path(tempfile.mkdtemp(dir=ground))
    folder.chmod(0o755)
    room = folder / "room"
    room.mkdir()
    room.chmod(0o1777)
    surroundings = {"XDG_CACHE_HOME": str(folder / "cache"), "TMPDIR": str(room)}
    yield Product(folder=folder, environment=surroundings)
    shutil.rmtree(folder)


@pytest.mark.parametrize(("name", "release"), BUILDS)
def test_the_same_bytes_whoever_builds_and_whatever_is_cached(
    product: Product, ground: Path, name: str, release: str
) -> None:
    definitions = product.folder / "definitions"
    definitions.mkdir()
    if name == "ubuntu-core":
        name = "stand-in"
        (definitions / name / "ids").mkdir(parents=True)
        (definitions / name / "definition.toml").write_text(STAND_IN)
        (definitions / name / "ids/passwd").write_text(STAND_IN_IDS)
    with ubuntu_archive(ground, release) if name == "stand-in" else nullcontext("") as settings:
        (product.folder / "coreimage.toml").write_text(settings)
        _build_in_all_ways(product, ground, name, release)


def _build_in_all_ways(product: Product, ground: Path, name: str, release: str) -> None:
    words = ["rootfs", "build", name, "--release", release, "--output"]
    cache = product.folder / "cache"

    def built(output: str, *options: str) -> dict[str, str]:
        product.run(*words, product.folder / output, *options)
        found = sums(product.folder / output, "livecd.*")
        shutil.rmtree(product.folder / output)
        return found

    cold = built("cold")
    assert built("warm-packages", "--no-cache") == cold
    shutil.rmtree(cache / "images")
    assert built("warm-stage") == cold
    assert built("nothing-changed") == cold
    shutil.rmtree(cache)
    assert built("no-cache-any-more") == cold
    with somebody(ground) as other:
        settings = other.folder / "coreimage.toml"
        settings.write_bytes((product.folder / "coreimage.toml").read_bytes())
        settings.chmod(0o644)
        shutil.copytree(product.folder / "definitions", other.folder / "definitions")
        other.run(*words, other.folder / "out")
        assert sums(other.folder / "out", "livecd.*") == cold


def mounts_below(folder: Path) -> list[str]:
    return [
        line
        for line in Path("/proc/self/mountinfo").read_text().splitlines()
        if str(folder) in line
    ]


def test_a_build_that_is_killed_leaves_nothing_and_the_next_one_succeeds(product: Product) -> None:
    output, room = product.folder / "out", product.folder / "room"
    words = ["rootfs", "build", "debian-core", "--no-cache", "--output", output]
    begun = time.monotonic()
    product.run(*words)
    duration = time.monotonic() - begun
    whole = sums(output, "livecd.*")
    shutil.rmtree(output)
    moments = random.Random(3)  # noqa: S311  the same moments each time
    for _ in range(KILLS):
        moment = moments.uniform(0.02, 0.95) * duration
        with product.started(*words) as process:
            assert process.stderr is not None
            listener = threading.Thread(target=process.stderr.read)
            listener.start()
            time.sleep(moment)
            process.send_signal(signal.SIGKILL)
            process.wait(60)
            deadline = time.monotonic() + 60
            while processes_in(product.folder) and time.monotonic() < deadline:
                time.sleep(0.1)
            listener.join(60)
        assert processes_in(product.folder) == []
        assert mounts_below(product.folder) == []
        assert not output.exists() or sums(output, "livecd.*") == whole
        shutil.rmtree(output, ignore_errors=True)
    product.run(*words)
    assert sums(output, "livecd.*") == whole
    assert scratch_in(product.folder, room) == []
