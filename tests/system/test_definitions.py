"""A definition with every kind of file, built for real."""

import os
import re
import shutil
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from coreimage.cli.space import host_arch
from tests.support.apt_archive import AptArchive, Key, served
from tests.support.product import Product, sums
from tests.system.test_rebuild import somebody

pytestmark = pytest.mark.system

ARCH = host_arch()
FILES = {
    "definition.toml": f"""\
name = "tiny"
title = "Tiny"
distribution = "debian"
default_release = "13"
subproject = "none"
packages = ["adduser", "tcpdump"]
exclude_paths = ["/usr/share/doc/*", "/usr/share/locale/*", "/usr/share/man/*"]
[releases.13]
series = "trixie"
suites = ["trixie"]
[architectures.{ARCH}]
bootloader = "grub"
[devices.box]
arch = "{ARCH}"
""",
    "package-lists/10-base.list.chroot": f"""\
# What is on every device.
hello-local
#if ARCHITECTURES {ARCH}
pinned
#endif
#if ARCHITECTURES powerpc
does-not-exist
#endif
""",
    "archives/local.pref.chroot": "Package: *\nPin: release o=Local\nPin-Priority: 900\n",
    "preseed/10-hello.cfg": "hello-local hello-local/word string preseeded\n",
    "hooks/10-early.chroot_early": """\
#!/bin/sh
set -e
[ ! -e /usr/share/hello-local ]
grep -q "^tcpdump:[x*]:151:" /etc/passwd && pinned=yes
echo "$COREIMAGE_DEFINITION $COREIMAGE_SERIES pinned=$pinned" > /etc/early
""",
    "hooks/10-late.chroot": """\
#!/bin/sh
set -e
[ -e /usr/share/hello-local ]
echo "$COREIMAGE_RELEASE $COREIMAGE_DEVICE" > /etc/late
""",
    "hooks/10-outside.binary": """\
#!/bin/sh
set -e
[ "$PWD" = "$1" ]
[ ! -e .coreimage-build ]
[ ! -e etc/apt/sources.list.d/coreimage-local.sources ]
cat etc/early etc/late > etc/outside
""",
    "includes.chroot_before_packages/etc/first": "first\n",
    "includes.chroot/etc/which": "common\n",
    "series/trixie/includes.chroot/etc/which": "series\n",
    f"arch/{ARCH}/includes.chroot/etc/which": "arch\n",
    "device/box/includes.chroot/etc/which": "device\n",
}
FIELDS = {"Depends": "debconf, adduser"}
DATA = {"usr/share/hello-local": "hello\n"}
CONTROL = {
    "templates": "Template: hello-local/word\nType: string\nDefault: default\nDescription: word\n",
    "postinst": """\
#!/bin/sh
set -e
. /usr/share/debconf/confmodule
db_get hello-local/word
echo "$RET" > /etc/hello-local
adduser --system --group --no-create-home --quiet hello-local
""",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """A workspace with the definition `tiny`, and the archives that it takes packages from."""

    product: Product
    folder: Path
    definition: Path

    def build(
        self, output: Path, *words: str | Path, status: int = 0, product: Product | None = None
    ) -> str:
        """Build `tiny` and return what was said."""
        argv = ["rootfs", "build", "tiny", "--device", "box", "--output", output, *words]
        workspace = ["--workspace", self.folder / "workspace"]
        done = (product or self.product).run(*argv, *workspace, status=status)
        return done.stderr.decode()


@pytest.fixture(scope="module")
def tiny(ground: Path) -> Iterator[Ground]:
    folder = ground / "definitions-test"
    definition = folder / "workspace/definitions/tiny"
    for name, text in FILES.items():
        path = definition / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        if name.startswith("hooks/"):
            path.chmod(0o755)
    key = Key.make(folder / "key")
    other = Key.make(folder / "other-key")
    old = Key.make(folder / "old-key", expires="1d")
    for name, signer, born in (
        ("local", key, None),
        ("named", other, None),
        ("stale", old, "20260101T010000"),
        ("forged", other, None),
        ("unsigned", key, None),
    ):
        archive = AptArchive(root=folder / "www" / name, suite="trixie", origin=name.capitalize())
        if name == "local":
            archive.add("hello-local", fields=FIELDS, control=CONTROL, data=DATA)
        archive.add("pinned", version="1.0" if name == "local" else "2.0")
        archive.publish(signer, arch=ARCH, born=born)
    (folder / "www/unsigned/dists/trixie/InRelease").unlink()
    (folder / "workspace/keys").mkdir()
    for name, signer in (("named", other), ("stale", old), ("forged", key), ("unsigned", key)):
        (folder / f"workspace/keys/{name}.gpg").write_bytes(signer.public(armoured=False))
    (definition / "archives/local.key.chroot").write_bytes(key.public(armoured=True))
    with served(folder / "www") as address:
        (definition / "archives/local.list.chroot").write_text(f"deb {address}/local trixie main\n")
        (folder / "workspace/coreimage.toml").write_text(
            "".join(
                f'[extra_archives.{name}]\nuri = "{address}/{name}"\nkeyring = "keys/{name}.gpg"\n'
                for name in ("named", "stale", "forged", "unsigned")
            )
        )
        yield Ground(product=Product(folder=folder), folder=folder, definition=definition)


def content(tarball: Path) -> dict[str, bytes]:
    """Return the files below etc/ of a tarball."""
    with tarfile.open(tarball) as archive:
        return {
            member.name: reader.read()
            for member in archive
            if member.isreg()
            and member.name.startswith("etc/")
            and (reader := archive.extractfile(member)) is not None
        }


def test_archives_with_bad_signatures_stop_the_build(tiny: Ground) -> None:
    for name in ("stale", "forged", "unsigned"):
        said = tiny.build(tiny.folder / "refused", "--extra-archive", name, status=76)
        assert f"/{name} trixie " in said
    assert not (tiny.folder / "refused").exists()


def test_a_definition_with_every_kind_of_file(tiny: Ground, ground: Path) -> None:
    pins = tiny.definition / "series/trixie/ids"
    shipped = Path(__file__).parents[2] / "definitions/debian-core/series/trixie/ids"
    pins.mkdir()
    for name in ("passwd", "group"):
        lines = (shipped / name).read_text().splitlines(keepends=True)
        ids = [line for line in lines if line.startswith("#") or int(line.split(":")[2]) < 100]
        (pins / name).write_text("".join(ids))
    said = tiny.build(tiny.folder / "unpinned", status=65)
    assert not (tiny.folder / "unpinned").exists()
    wanted = {}
    for name in ("passwd", "group"):
        found = [
            line.split(f"{pins / name}: ")[1]
            for line in said.splitlines()
            if f"{pins / name}: " in line
        ]
        wanted[name] = {line.split(":")[0]: line for line in found}
    assert {"tcpdump", "hello-local"} <= wanted["passwd"].keys() & wanted["group"].keys()

    # Pinned to other numbers than the packages would take.
    for number, name in ((151, "tcpdump"), (150, "hello-local")):
        parts = wanted["passwd"][name].split(":")
        wanted["passwd"][name] = ":".join([*parts[:2], str(number), str(number), *parts[4:]])
        wanted["group"][name] = f"{name}:x:{number}:"
    for name, added in wanted.items():
        with (pins / name).open("a") as file:
            file.writelines(f"{line}\n" for line in added.values())

    words = ("--extra-archive", "named:950")
    tiny.build(tiny.folder / "out", *words)
    assert sorted(path.name for path in (tiny.folder / "out").iterdir()) == [
        "livecd.tiny.build.json",
        "livecd.tiny.cdx.json",
        "livecd.tiny.lock.json",
        "livecd.tiny.manifest",
        "livecd.tiny.rootfs.tar.gz",
    ]
    files = content(tiny.folder / "out/livecd.tiny.rootfs.tar.gz")
    assert files["etc/first"] == b"first\n"
    assert files["etc/which"] == b"device\n"
    assert files["etc/hello-local"] == b"preseeded\n"
    assert files["etc/outside"] == b"tiny trixie pinned=yes\n13 box\n"
    passwd = files["etc/passwd"].decode()
    assert "\ntcpdump:x:151:151:" in passwd
    assert "\nhello-local:x:150:150:" in passwd
    assert re.search(r"^tcpdump:!?\*:", files["etc/shadow"].decode(), re.MULTILINE)
    assert b"coreimage-" not in b"".join(name.encode() for name in files)
    manifest = (tiny.folder / "out/livecd.tiny.manifest").read_text()
    assert "hello-local\t1.0\n" in manifest
    assert "pinned\t2.0\n" in manifest  # the archive of the command line has the higher pin

    with somebody(ground) as other:
        for folder in (tiny.folder, tiny.folder / "workspace"):
            folder.chmod(0o755)
        (tiny.folder / "workspace/cache").mkdir(exist_ok=True)
        (tiny.folder / "workspace/cache").chmod(0o1777)
        output = other.folder / "out"
        tiny.build(output, *words, "--no-cache", product=other)
        assert sums(output, "livecd.*") == sums(tiny.folder / "out", "livecd.*")


def test_the_cache_a_lock_and_what_they_say(tiny: Ground) -> None:
    words = ("--extra-archive", "named:950")
    workspace = ["--workspace", tiny.folder / "workspace"]
    first = sums(tiny.folder / "out", "livecd.*")
    lock = tiny.folder / "out/livecd.tiny.lock.json"

    said = tiny.build(tiny.folder / "again", *words)
    assert "nothing changed" in said
    assert sums(tiny.folder / "again", "livecd.*") == first

    shutil.rmtree(tiny.folder / "workspace/cache/images")
    said = tiny.build(tiny.folder / "locked", "--locked", lock, *words)
    assert "packages did not change" in said
    assert sums(tiny.folder / "locked", "livecd.*") == first

    hook = tiny.definition / "hooks/10-late.chroot"
    before = hook.read_text()
    hook.write_text(f"{before}echo changed > /etc/changed\n")
    explain = ["rootfs", "explain-cache", "tiny", "--device", "box", *words, *workspace]
    verdicts = {each["stage"]: each for each in tiny.product.json(*explain)}
    assert [verdicts[name]["hit"] for name in ("packages", "package stage", "image")] == [
        *(True, True, False)
    ]
    found = [line.partition(" was ")[0] for line in verdicts["image"]["differences"]]
    # The nearest one was made from a lock, which names its time.
    assert found == ["hooks/10-late.chroot", "time"]
    said = tiny.build(tiny.folder / "refused", "--locked", lock, *words, status=65)
    assert "file 'hooks/10-late.chroot' has changed" in said
    said = tiny.build(tiny.folder / "changed", *words)
    assert "packages did not change" in said
    files = content(tiny.folder / "changed/livecd.tiny.rootfs.tar.gz")
    assert files["etc/changed"] == b"changed\n"
    hook.write_text(before)


def test_a_full_disk_is_named(tiny: Ground) -> None:
    mount = 'mkdir -p small; mount -t tmpfs -o size=8m none small; exec "$@"'
    users = [] if os.geteuid() == 0 else ["--user", "--map-auto", "--map-root-user"]
    full = replace(tiny.product, prefix=["unshare", *users, "--mount", "sh", "-ec", mount, "sh"])
    said = tiny.build(tiny.folder / "small/out", "--no-cache", status=74, product=full)
    assert "no space" in said
    assert "hint: free some space" in said
    full = replace(full, environment={"TMPDIR": str(tiny.folder / "small")})
    said = tiny.build(tiny.folder / "out-of-room", "--no-cache", status=74, product=full)
    assert "no space for the tree" in said
    assert not (tiny.folder / "out-of-room").exists()
