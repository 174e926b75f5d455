"""Two builds with real .deb files, compared by the command."""

import gzip
import hashlib
import json
import shutil
from pathlib import Path

import pytest

from coreimage.lib import run
from coreimage.model.publication import manifest_name, rootfs_name
from tests.support.product import Product
from tests.unit.rootfs.diff.test_files import tarball
from tests.unit.rootfs.tarballs.test_split import member

ENTRY = """\
shell ({version}) {suite}; urgency={urgency}

  * {text}

 -- Somebody <s@example.org>  Mon, 23 Nov 2026 10:00:00 +0000

"""
SECOND = ENTRY.format(version="2", suite="trixie-security", urgency="high", text="CVE-2026-12345.")
FIRST = ENTRY.format(version="1", suite="unstable", urgency="low", text="First.")
STATUS = """\
Package: {name}
Status: install ok installed
Version: {version}
Architecture: all
Source: shell {source}

"""


class Builds:
    """Makes builds of packages, as artifacts with their bills, and .deb files for them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.product = Product(folder=root)
        self.debs = root / "debs"
        self.debs.mkdir()

    def deb(self, name: str, version: str, changelog: str, rebuilt: str = "") -> tuple[str, Path]:
        tree = self.root / f"tree-{name}-{version}"
        place = tree / "usr/share/doc" / name
        place.mkdir(parents=True)
        (tree / "DEBIAN").mkdir()
        (tree / "DEBIAN/control").write_text(
            f"Package: {name}\nVersion: {version}\nArchitecture: all\n"
            "Maintainer: N <n@example.org>\nDescription: x\n"
        )
        if changelog:
            (place / "changelog.Debian.gz").write_bytes(gzip.compress(changelog.encode()))
            (place / "changelog.gz").write_bytes(gzip.compress(b"of upstream"))
        if rebuilt:
            (place / "changelog.Debian.all.gz").write_bytes(gzip.compress(rebuilt.encode()))
        path = self.debs / f"{name}_{version}_all.deb"
        run.run(["dpkg-deb", "--root-owner-group", "--build", tree, path])
        return hashlib.sha256(path.read_bytes()).hexdigest(), path

    def build(self, number: int, packages: dict[str, tuple[str, str]], **files: bytes) -> Path:
        """Make a build of packages, with version and digest each, and files by path.

        "name (1)" has the version of its source.
        """
        sources = {name.partition(" ")[0]: name.partition(" ")[2] for name in packages}
        packages = {name.partition(" ")[0]: state for name, state in packages.items()}
        place = self.root / f"workspace/builds/{number}/artifacts"
        place.mkdir(parents=True)
        status = "".join(
            STATUS.format(name=name, version=version, source=sources[name])
            for name, (version, _) in packages.items()
        )
        tarball(
            place / "livecd.core.rootfs.tar.gz",
            member("var/lib/dpkg/status", data=status.encode()),
            member("var/lib/dpkg/info/shell.list", data=b"/bin/shell\n"),
            *(member(name.replace("__", "/"), data=data) for name, data in files.items()),
        )
        (place / "livecd.core.manifest").write_text(
            "".join(f"{name}\t{version}\n" for name, (version, _) in packages.items())
        )
        bill = {
            "components": [
                {
                    "name": name,
                    "version": version,
                    "purl": f"pkg:deb/debian/{name}@{version}?arch=all&distro=trixie",
                    "hashes": [{"alg": "SHA-256", "content": digest}],
                }
                for name, (version, digest) in packages.items()
            ]
        }
        (place / "livecd.core.cdx.json").write_text(json.dumps(bill))
        return place

    def diff(self, *words: object, status: int = 0) -> str:
        workspace = ["--workspace", self.root / "workspace"]
        done = self.product.run("rootfs", "diff", *words, *workspace, status=status)
        return (done.stderr if status else done.stdout).decode()


@pytest.fixture
def builds(tmp_path: Path) -> Builds:
    (tmp_path / "workspace").mkdir()
    (tmp_path / "workspace/coreimage.toml").touch()
    made = Builds(tmp_path)
    old, _ = made.deb("shell", "1", FIRST)
    new, _ = made.deb("shell", "2", SECOND + FIRST)
    bare, _ = made.deb("bare", "2", "")
    same = ("1", "0" * 64)
    made.build(
        1,
        {"bare": ("1", "1" * 64), "gone": same, "lost": ("1", "2" * 64), "shell": ("1", old)},
        usr__bin__shell=b"1",
        etc__conf=b"old",
    )
    made.build(
        2,
        {"bare": ("2", bare), "lost": ("2", "3" * 64), "new": same, "shell": ("2", new)},
        usr__bin__shell=b"22",
        etc__conf=b"changed",
    )
    return made


def test_people_see_what_matters_first(builds: Builds) -> None:
    said = builds.diff(1, 2, "--debs", builds.debs)
    lines = said.splitlines()
    assert lines[0] == "build 1 -> build 2"
    assert lines[1] == "packages: 3 upgraded, 1 removed, 1 added"
    assert lines[2].startswith("rootfs: 0.0 -> 0.0 MiB (+")
    begin = lines.index("Packages")
    assert [line.split("\t") for line in lines[begin + 2 : begin + 7]] == [
        ["upgraded", "shell", "1", "2", "CVE-2026-12345"],
        ["removed", "gone", "1", "", ""],
        ["added", "new", "", "1", ""],
        ["upgraded", "bare", "1", "2", ""],
        ["upgraded", "lost", "1", "2", ""],
    ]
    assert "shell has (shell):\n  2, Mon, 23 Nov 2026 10:00:00 +0000\n    * CVE-2026-12345." in said
    assert "First." not in said
    assert "no changelog of bare: its .deb has no changelog of its own" in said
    assert "no changelog of lost: its .deb is not in the package store" in said
    loose = lines.index("Files that no changed package explains")
    assert lines[loose + 2] == "changed\tetc/conf\tcontent\t+4 B\t"
    assert not any("usr/bin/shell" in line for line in lines)
    assert "usr/bin/shell" in builds.diff(1, 2, "--files")


def test_programs_get_everything(builds: Builds) -> None:
    found = json.loads(builds.diff(1, 2, "--debs", builds.debs, "--json"))
    shell = found["packages"][0]
    assert (shell["name"], shell["source"], shell["change"]) == ("shell", "shell", "upgraded")
    assert shell["flaws"] == ["CVE-2026-12345"]
    assert [each["version"] for each in shell["changelog"]] == ["2"]
    assert shell["after"]["sha256"]
    files = {each["path"]: each for each in found["files"]["rootfs"]}
    assert files["etc/conf"]["explained"] is False
    assert files["usr/bin/shell"]["explained"] is True
    assert files["usr/bin/shell"]["package"] == "shell"
    assert found["sizes"]["rootfs"]["growth"] == sum(each["growth"] for each in files.values())
    assert {each["folder"] for each in found["folders"]["rootfs"]} == {"etc", "usr/bin", "var/lib"}


def test_backwards_it_says_what_is_lost(builds: Builds) -> None:
    said = builds.diff(2, 1, "--debs", builds.debs)
    assert "downgraded\tshell\t2\t1\tCVE-2026-12345" in said
    assert "shell goes back over (shell):" in said
    found = json.loads(builds.diff(2, 1, "--debs", builds.debs, "--json"))
    assert found["packages"][0]["change"] == "downgraded"


def test_a_changelog_has_the_versions_of_the_source(builds: Builds) -> None:
    """Signed kernels, and rebuilds for one architecture, have other versions than their source."""
    rebuilt = ENTRY.format(version="5+b2", suite="sid", urgency="low", text="Rebuilt.")
    text = ENTRY.format(version="7", suite="sid", urgency="low", text="Signed.") + FIRST
    deb, _ = builds.deb("kernel", "2-1", text)
    again, _ = builds.deb("again", "5+b2", FIRST, rebuilt)
    for number, version, source, rebuild in ((3, "1-1", "6", "5"), (4, "2-1", "7", "5+b2")):
        builds.build(
            number,
            {f"kernel ({source})": (version, deb), "again (5)": (rebuild, again)},
        )
    said = builds.diff(3, 4, "--debs", builds.debs)
    assert "shell has (kernel):\n  7, " in said
    assert "shell has (again):\n  5+b2, " in said


def test_the_same_build_has_no_difference(builds: Builds) -> None:
    said = builds.diff(1, builds.root / "workspace/builds/1/artifacts")
    assert "packages: the same\nrootfs: 0.0 -> 0.0 MiB (0), 0 entries differ\n" in said
    assert "Packages" not in said


def test_publications_are_compared_by_architecture(builds: Builds) -> None:
    for number, version in ((1, "20261123"), (2, "20261124")):
        place = builds.root / "workspace/www/cdimage/core/trixie/daily-preinstalled" / version
        place.mkdir(parents=True)
        for arch in ("amd64", "arm64"):
            for ending, name in (("manifest", manifest_name), ("rootfs.tar.gz", rootfs_name)):
                source = f"workspace/builds/{number}/artifacts/livecd.core.{ending}"
                shutil.copy(builds.root / source, place / name("trixie", "core", arch))
    first, second = "core/trixie/daily-preinstalled/20261123", "core/trixie/20261124"
    said = builds.diff(first, second, status=66)
    assert "has builds for several architectures" in said
    assert "hint: name one by --arch: amd64, arm64" in said
    said = builds.diff(first, second, "--arch", "arm64")
    assert "upgraded\tshell\t1\t2\t" in said
    assert "no bill of materials says which .deb it came from" in said
    assert "holds no build for 'armhf'" in builds.diff(first, second, "--arch", "armhf", status=66)


def test_a_build_without_a_tarball_is_compared_by_its_packages(builds: Builds) -> None:
    (builds.root / "workspace/builds/1/artifacts/livecd.core.rootfs.tar.gz").unlink()
    said = builds.diff(1, 2)
    assert "build 1 has no rootfs tarball: its files are not compared" in said
    assert "upgraded\tshell\t1\t2\t" in said


def test_what_is_no_build_is_said_so(builds: Builds) -> None:
    for words in ((1, 7), (1, "nonsense"), (1, builds.root)):
        said = builds.diff(*words, status=66)
        assert "holds no build" in said
        assert "hint: name the number of a build, a folder of artifacts, or a publication" in said
