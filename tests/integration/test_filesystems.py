"""File systems: e2fsprogs and mtools agree with what we made, and make the same bytes again."""

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from uuid import UUID

import pytest

from coreimage.errors import DataError
from coreimage.flasher.disk.filesystems import make_ext4, make_fat
from coreimage.flasher.disk.normal import crc32c, normalise
from coreimage.flasher.disk.space import Space
from coreimage.flasher.tree.staging import Staging
from coreimage.lib.files import sha256_of
from coreimage.lib.run import run
from tests.support.spaces import new_space

MIB = 1 << 20
NOW = 1_700_000_000
CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")
ACL = bytes.fromhex(
    "0200000001000700ffffffff04000500ffffffff080005000400000010000500ffffffff20000500ffffffff"
)
ODD_NAMES = ["a b", 'quo"te', "back\\slash", "<2>", "ünï", "-rf", "'", "$HOME", "tab\t", "n" * 255]


def fill(tree: Staging, *, backwards: bool = False) -> None:
    names = [f"many/file-{number:04}" for number in range(300)] + ODD_NAMES
    for name in reversed(names) if backwards else names:
        tree.put_file(name, name.encode(), mtime=1)
    tree.put_directory("", mode=0o755, mtime=2)
    tree.put_file("bin/su", b"su", mode=0o4755, uid=100_000, gid=70_000, mtime=1_600_000_000)
    tree.put_hard_link("bin/su2", "bin/su")
    tree.put_file("bin/ping", b"ping", mode=0o755, xattrs={"security.capability": CAPABILITY})
    tree.put_directory(
        "var/log/journal",
        mode=0o2755,
        gid=999,
        xattrs={"system.posix_acl_access": ACL, "system.posix_acl_default": ACL},
    )
    tree.put_symlink("short", "../up", uid=5, gid=6)
    tree.put_symlink("long", "x" * 3000, mtime=3)
    tree.put_file("future", b"", mode=0, mtime=5_000_000_000)
    tree.put_file("past", b"", mtime=-5)
    tree.put_file("zeros", bytes(MIB) + b"x")


def ext4(directory: Path, tree: Staging, *, size: int = 32 * MIB, journal: bool = False) -> Path:
    space = new_space(directory / "fs.img", size)
    ext4_in(space, tree, directory, journal=journal)
    return space.image


def ext4_in(space: Space, tree: Staging, scratch: Path, *, journal: bool = False) -> None:
    make_ext4(
        tree,
        space,
        label="system-a",
        uuid=UUID(int=1),
        hash_seed=UUID(int=2),
        time=NOW,
        scratch=scratch,
        journal=journal,
    )


def debugfs(image: Path, command: str) -> str:
    return run(["debugfs", "-R", command, image]).stdout.decode()


def check(image: Path) -> None:
    run(["e2fsck", "-f", "-n", image])


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("ext4")
    tree = Staging(directory / "tree")
    fill(tree)
    return ext4(directory, tree)


def test_e2fsck_finds_nothing_to_complain_about(image: Path) -> None:
    check(image)


def test_owners_modes_and_times_are_those_of_the_tree(image: Path) -> None:
    stat = debugfs(image, "stat /bin/su")

    assert re.search(r"Type: regular +Mode: +04755", stat)
    assert re.search(r"User: 100000 +Group: 70000", stat)
    assert "Links: 2" in stat
    assert f"mtime: 0x{1_600_000_000:08x}:00000000" in stat
    for name in ("atime", "ctime", "crtime"):
        assert f"{name}: 0x{NOW:08x}:00000000" in stat


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/", rf"Mode: +0755.*mtime: 0x{2:08x}:"),
        ("/short", r"Type: symlink +Mode: +0777.*User: +5 +Group: +6.*Fast link dest: \"../up\""),
        ("/long", r"Type: symlink.*Size: 3000"),
        ("/future", rf"Mode: +0000.*mtime: 0x{5_000_000_000 - (1 << 32):08x}:00000001"),
        ("/past", rf"mtime: 0x{0:08x}:00000000"),
        ("/bin", rf"Mode: +0755.*User: +0 .*mtime: 0x{NOW:08x}:"),
        ("/lost+found", rf"Mode: +0700.*mtime: 0x{NOW:08x}:"),
        ("/var/log/journal", r"Mode: +02755.*Group: +999"),
    ],
)
def test_each_kind_of_entry(image: Path, path: str, expected: str) -> None:
    assert re.search(expected, debugfs(image, f"stat {path}"), re.DOTALL)


def test_hard_links_share_an_inode(image: Path) -> None:
    inodes = [debugfs(image, f"stat /bin/{name}").split()[1] for name in ("su", "su2")]

    assert inodes[0] == inodes[1]


def test_capabilities_and_access_lists_are_there(image: Path) -> None:
    # On the disk an access list has its own form: version 1, ids only where they mean something.
    acl = "01000000 01000700 04000500 0800050004000000 10000500 20000500"

    assert f"security.capability (20) = {spaced(CAPABILITY)}" in debugfs(image, "ea_list /bin/ping")
    listed = debugfs(image, "ea_list /var/log/journal")
    for name in ("system.posix_acl_access", "system.posix_acl_default"):
        assert f"{name} (28) = {spaced(bytes.fromhex(acl))}" in listed


def spaced(value: bytes) -> str:
    return " ".join(f"{byte:02x}" for byte in value)


def test_odd_names_come_out_as_they_went_in(image: Path, tmp_path: Path) -> None:
    debugfs(image, f"rdump / {tmp_path}")

    for name in ODD_NAMES:
        assert (tmp_path / name).read_bytes() == name.encode()
    assert (tmp_path / "zeros").read_bytes() == bytes(MIB) + b"x"


def test_the_same_tree_gives_the_same_bytes(image: Path, tmp_path: Path) -> None:
    tree = Staging(tmp_path / "tree")
    fill(tree, backwards=True)

    assert sha256_of(ext4(tmp_path, tree)) == sha256_of(image)


def test_a_place_on_a_disk_gets_the_same_bytes_and_nothing_around_it(
    image: Path, tmp_path: Path
) -> None:
    tree = Staging(tmp_path / "tree")
    fill(tree)
    disk = tmp_path / "disk"
    disk.write_bytes(b"A" * MIB + bytes(32 * MIB) + b"Z" * MIB)
    ext4_in(Space(image=disk, start=MIB, size=32 * MIB), tree, tmp_path)

    found = disk.read_bytes()
    assert found[MIB:-MIB] == image.read_bytes()
    assert (found[:MIB], found[-MIB:]) == (b"A" * MIB, b"Z" * MIB)


def test_what_is_zero_takes_no_space(tmp_path: Path) -> None:
    tree = Staging(tmp_path / "tree")
    tree.put_file("file", b"x" * 100)
    image = ext4(tmp_path, tree, size=1024 * MIB, journal=True)

    assert image.stat().st_blocks * 512 < 4 * MIB


def test_an_ordinary_user_makes_the_same_bytes(image: Path, tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; sys.path[:0] = sys.argv[2:]\n"
        "from coreimage.flasher.tree.staging import Staging\n"
        "from tests.integration import test_filesystems as t\n"
        "home = Path(sys.argv[1]); tree = Staging(home / 'tree')\n"
        "t.fill(tree); t.ext4(home, tree)\n"
    )
    home = tmp_path / "home"
    home.mkdir()
    argv: list[str | Path] = [sys.executable, "-B", "-c", script, home, *sys.path]
    if os.geteuid() == 0:
        os.chown(home, 65534, 65534)
        argv[:0] = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        for parent in home.parents:
            if parent.stat().st_mode & 0o011 == 0:
                parent.chmod(0o711)
    run(argv, cwd=Path(__file__).parents[2], env={"TZ": "Asia/Tokyo", "LC_ALL": "C"})

    assert sha256_of(home / "fs.img") == sha256_of(image)


def test_a_journal_and_room_to_grow_when_they_are_asked_for(tmp_path: Path, image: Path) -> None:
    writable = ext4(tmp_path, Staging(tmp_path / "tree"), size=256 * MIB, journal=True)
    check(writable)

    features = debugfs(writable, "features")
    assert "has_journal" in features
    assert "resize_inode" in features
    assert "has_journal" not in debugfs(image, "features")
    os.truncate(writable, 512 * MIB)
    run(["resize2fs", writable])
    check(writable)


def test_groups_without_files_have_one_form(tmp_path: Path) -> None:
    tree = Staging(tmp_path / "tree")
    tree.put_file("file", b"file")
    image = ext4(tmp_path, tree, size=1280 * MIB)
    check(image)
    wanted = sha256_of(image)
    assert "Lifetime writes" not in run(["dumpe2fs", "-h", image]).stdout.decode()

    # What later versions of mke2fs leave: the bitmaps of groups with nothing but copies.
    places = dict(re.findall(r"Group +(\d+): block bitmap at (\d+),", debugfs(image, "stats")))
    commands = ["ssv kbytes_written 1234"]
    for group in (3, 5, 7):
        commands += [f"set_bg {group} flags 5", f"zap_block -o 0 -l 1 -p 3 {places[str(group)]}"]
    later = tmp_path / "commands"
    later.write_text("\n".join(commands) + "\n")
    run(["debugfs", "-w", "-f", later, image], env={"E2FSPROGS_FAKE_TIME": str(NOW)})
    assert sha256_of(image) != wanted
    normalise(Space(image=image, size=1280 * MIB))
    assert sha256_of(image) == wanted
    check(image)


def test_what_we_do_not_make_has_no_normal_form(tmp_path: Path) -> None:
    image = tmp_path / "fs.img"
    image.write_bytes(bytes(MIB))
    with pytest.raises(DataError, match="no ext4 file system"):
        normalise(Space(image=image, size=MIB))


def test_the_checksum_is_the_one_of_the_standard() -> None:
    # Source: RFC 3720, B.4, and the check value that catalogues of CRCs give.
    assert crc32c(0xFFFFFFFF, b"123456789") ^ 0xFFFFFFFF == 0xE3069283
    assert crc32c(0xFFFFFFFF, bytes(32)) ^ 0xFFFFFFFF == 0x8A9136AA


@pytest.mark.parametrize("what", ["bytes", "entries"])
def test_a_tree_that_does_not_fit_is_refused_by_name(tmp_path: Path, what: str) -> None:
    tree = Staging(tmp_path / "tree")
    if what == "bytes":
        tree.put_file("x", b"x" * (9 * MIB))
    else:
        for number in range(600):
            tree.put_file(str(number), b"")

    with pytest.raises(DataError, match=r"'system-a' of 8 MiB is too small for \d+ entries"):
        ext4(tmp_path, tree, size=8 * MIB)


def fat(directory: Path, files: dict[str, bytes | Path], *, size: int = 128 * MIB) -> Path:
    space = new_space(directory / "boot.img", size)
    fat_in(space, files, directory)
    return space.image


def fat_in(space: Space, files: Mapping[str, bytes | Path], scratch: Path) -> None:
    make_fat(files, space, label="system-boot", volume_id=0x5EED0001, time=NOW, scratch=scratch)


FILES: dict[str, bytes | Path] = {
    "EFI/BOOT/BOOTX64.EFI": b"loader",
    "EFI/ubuntu/grub/a/vmlinuz": b"k" * 100_000,
    "EFI/ubuntu/grub/b/initrd.img": b"",
    "EFI/ubuntu/grub/grubenv": b"#" * 1024,
    "a long name.txt": b"long",
}


def test_files_are_on_the_fat_with_label_and_volume_id(tmp_path: Path) -> None:
    (tmp_path / "kernel").write_bytes(b"k" * 100_000)
    target = fat(tmp_path, FILES | {"EFI/ubuntu/grub/a/vmlinuz": tmp_path / "kernel"})

    run(["fsck.vfat", "-n", target])
    listed = run(["mdir", "-i", target, "-/", "-b", "::"]).stdout.decode().split("\n")
    assert {f"::/{path}" for path in FILES} <= set(listed)
    head = run(["mdir", "-i", target, "::"]).stdout.decode()
    assert "system-boot" in head
    assert "5EED-0001" in head
    for path, content in FILES.items():
        assert run(["mtype", "-i", target, f"::/{path}"]).stdout == content


def test_neither_time_nor_zone_nor_order_changes_the_fat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    first = fat(one, FILES)
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".mtoolsrc").write_text("MTOOLS_NO_VFAT=1\n")

    assert sha256_of(fat(two, dict(reversed(FILES.items())))) == sha256_of(first)
    listing = run(["mdir", "-i", first, "::/EFI"], env={"TZ": "UTC"}).stdout.decode()
    assert "2023-11-14" in listing


@pytest.mark.parametrize("path", ["a:b", "a?", "a//b", "/a", "dot.", "space ", "ä/b", "", "a\nb"])
def test_names_that_fat_cannot_have_are_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(DataError, match="not a path that a FAT"):
        fat(tmp_path, {path: b""})


def test_o1_names_that_fat_cannot_tell_apart_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot tell"):
        fat(tmp_path, {"a/X": b"", "a/x": b""})


def test_files_that_do_not_fit_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'system-boot' of 72 MiB is too small for 1 files of 73"):
        fat(tmp_path, {"x": b"x" * (73 * MIB)}, size=72 * MIB)


_ON_A_SMALL_DISK = """
import sys; from pathlib import Path; sys.path[:0] = sys.argv[3:]
from coreimage.errors import CoreImageError
from coreimage.flasher.tree.staging import Staging
from tests.integration import test_filesystems as t
small, home = Path(sys.argv[1]), Path(sys.argv[2])
tree = Staging(home / "tree")
tree.put_file("file", b"x" * 400_000)
for make in (
    lambda: t.fat_in(t.new_space(small / "boot", 128 * t.MIB), {"a": b"a"}, home),
    lambda: t.ext4_in(t.new_space(small / "system", 32 * t.MIB), tree, home),
):
    try:
        make()
    except CoreImageError as error:
        print(error.message, error.hint, sep=": ")
    [path.unlink() for path in small.iterdir()]
"""


def test_a_disk_that_is_full_is_named_whichever_tool_finds_out(tmp_path: Path) -> None:
    small, home = tmp_path / "small", tmp_path / "home"
    small.mkdir()
    home.mkdir()
    shell = 'mount -t tmpfs -o size=200k none "$1"; shift; exec "$@"'
    argv: list[str | Path] = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-ec"]
    argv += [shell, "sh", small, sys.executable, "-B", "-c", _ON_A_SMALL_DISK, small, home]
    done = run([*argv, *sys.path], cwd=Path(__file__).parents[2])

    line = "there is no space left for the disk image: free some space and try again"
    assert done.stdout.decode().splitlines() == [line, line]
