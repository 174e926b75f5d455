"""File systems inside of plain files: ext4 from a staged tree, FAT from a few files.

Neither needs a right that an ordinary user lacks, and both are the same bytes whoever makes them,
wherever and whenever.
"""

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

from coreimage.errors import CoreImageError, DataError, NoSpaceError
from coreimage.flasher.disk.inodes import finish_inodes
from coreimage.flasher.disk.normal import normalise
from coreimage.flasher.disk.space import Space
from coreimage.flasher.tree.staging import Staging
from coreimage.lib import run

_BLOCK = 4096
_BYTES_PER_INODE = 16384
_EXT4_FEATURES = (
    "none,ext_attr,dir_index,filetype,extent,64bit,flex_bg,sparse_super,large_file,huge_file,"
    "dir_nlink,extra_isize,metadata_csum"
)
# What is zero stays a hole where the file can have some, and is written where it cannot.
_EXT4_OPTIONS = "no_copy_xattrs,discard,lazy_itable_init=0,lazy_journal_init=1,root_owner=0:0"
# Ours in place of the host's /etc/mke2fs.conf, which differs between distributions.
_MKE2FS_CONF = "[fs_types]\n" + "".join(
    f"{name} = {{\n}}\n" for name in ("ext4", "floppy", "small", "big", "huge")
)
# Fewer clusters make another FAT. Source: Microsoft's FAT specification, "FAT type determination".
_FAT32_CLUSTERS = 65525
# What mkfs.vfat counts a size in; and heads and sectors per track, which it would else choose by
# the size of the whole file.
_FAT_UNIT = 1024
_FAT_GEOMETRY = "8/32"
# Sectors before the first cluster: reserved ones, and two tables of at most this size.
_FAT_OVERHEAD = 32 + 2 * 520
# With less than this, in bytes, a disk is taken for full.
_HARDLY_ANY = 1 << 20
_FULL = re.compile(r"could not allocate|no space|no free space|disk full", re.IGNORECASE)
# What mkfs.vfat says of everything that it could not write.
_UNWRITTEN = "failed whilst writing"
_FAT_NAME = re.compile(r"[^\x00-\x1f\"*/:<>?\\|\x7f-\uffff]{1,255}(?<![. ])\Z")


def make_ext4(
    staging: Staging,
    space: Space,
    *,
    label: str,
    uuid: UUID,
    hash_seed: UUID,
    time: int,
    scratch: Path,
    journal: bool = False,
) -> None:
    """Make an ext4 file system with the tree in a space, which it fills.

    `time`, in UNIX seconds above 0, stands in every place that would tell when it was made. With
    `journal` it is one that is written to and can grow with its disk; without, one that is only
    read. `scratch` is a directory of the caller. Raises DataError when the tree does not fit.
    """
    config = scratch / "mke2fs.conf"
    config.write_text(_MKE2FS_CONF)
    env = {"E2FSPROGS_FAKE_TIME": str(time), "MKE2FS_CONFIG": str(config), "TZ": "UTC"}
    argv: list[str | Path] = ["mke2fs", "-q", "-F", "-t", "ext4"]
    argv += ["-b", str(_BLOCK), "-I", "256", "-i", str(_BYTES_PER_INODE), "-m", "0"]
    argv += ["-O", _EXT4_FEATURES + (",has_journal,resize_inode" if journal else "")]
    argv += ["-E", f"{_EXT4_OPTIONS},hash_seed={hash_seed},offset={space.start}"]
    argv += ["-J", f"size={_journal_size(space.size)}"] if journal else []
    argv += ["-L", label, "-U", str(uuid), "-d", staging.root]
    content = f"{len(staging.entries)} entries and {staging.content_size >> 20} MiB of files"
    with _refusing_when_full(space, label, content):
        run.run([*argv, space.image, str(space.size // _BLOCK)], env=env)
        finish_inodes(space, staging.entries, time=time, scratch=scratch, env=env)
    normalise(space)


def _journal_size(size: int) -> int:
    """Return MiB of journal: 32, on small file systems a sixteenth, at least the smallest."""
    return max(4, min(32, (size >> 20) // 16))


def make_fat(
    files: Mapping[str, bytes | Path],
    space: Space,
    *,
    label: str,
    volume_id: int,
    time: int,
    scratch: Path,
    sector_size: int = 512,
) -> None:
    """Make a FAT32 file system with `files` in a space, which it fills.

    Keys are paths below its root, values contents or files to copy. `time` is in UNIX seconds,
    from 1980 on; `scratch` is a directory of the caller. Raises DataError for names that FAT
    cannot have and when the files do not fit.
    """
    _check_fat_names(files)
    tree = (scratch / f"fat-{label}").absolute()
    for path, content in files.items():
        _stage_fat_file(tree / path, content)
    # No configuration but ours: the host's or the user's may map drives or change names.
    env = {"TZ": "UTC", "SOURCE_DATE_EPOCH": str(time), "MTOOLSRC": os.devnull, "LC_ALL": "C"}
    first = str(space.start // sector_size)
    # The order matters: --invariant sets the volume id that -i then replaces.
    argv: list[str | Path] = ["mkfs.vfat", "--invariant", "-i", f"{volume_id:08X}", "-F", "32"]
    argv += ["-S", str(sector_size), "-h", first, "--offset", first, "-n", label]
    argv += ["-g", _FAT_GEOMETRY, "-s", str(_sectors_per_cluster(label, space.size, sector_size))]
    argv += [space.image, str(space.size // _FAT_UNIT)]
    total = sum(path.stat().st_size for path in tree.rglob("*") if path.is_file())
    with _refusing_when_full(space, label, f"{len(files)} files of {total >> 20} MiB"):
        run.run(argv, env=env)
        for folder in sorted(path for path in (tree, *tree.rglob("*")) if path.is_dir()):
            _fill_fat_folder(space, tree, folder, env)


def _sectors_per_cluster(label: str, size: int, sector_size: int) -> int:
    """Return two, or one where two would leave too few clusters for FAT32."""
    for count in (2, 1):
        if size - _FAT_OVERHEAD * sector_size >= _FAT32_CLUSTERS * count * sector_size:
            return count
    least = -(-(_FAT32_CLUSTERS + _FAT_OVERHEAD) * sector_size >> 20)
    raise DataError(
        f"partition '{label}' of {size >> 20} MiB is too small for FAT32",
        hint=f"it takes {least} MiB or more with sectors of {sector_size} bytes",
    )


@contextmanager
def _refusing_when_full(space: Space, label: str, content: str) -> Iterator[None]:
    try:
        yield
    except CoreImageError as error:
        full = _FULL.search(error.message)
        if not full and _UNWRITTEN not in error.message:
            raise
        # The tools say the same of a full partition and of a full disk below its image.
        if shutil.disk_usage(space.image).free < _HARDLY_ANY:
            raise NoSpaceError(
                "there is no space left for the disk image", hint="free some space and try again"
            ) from error
        if not full:
            raise
        raise DataError(
            f"partition '{label}' of {space.size >> 20} MiB is too small for {content}",
            hint="leave something out of the image",
        ) from error


def _check_fat_names(files: Mapping[str, object]) -> None:
    folded: dict[str, str] = {}
    for path in files:
        if not all(_FAT_NAME.match(part) for part in path.split("/")):
            raise DataError(f"'{path}' is not a path that a FAT file system can have")
        other = folded.setdefault(path.casefold(), path)
        if other != path:
            raise DataError(f"FAT cannot tell '{path}' from '{other}'")


def _stage_fat_file(path: Path, content: bytes | Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.symlink_to(content.absolute())


def _fill_fat_folder(space: Space, tree: Path, folder: Path, env: Mapping[str, str]) -> None:
    """Make one folder and copy its files, sorted: the order of directory entries is ours."""
    inside = folder.relative_to(tree)
    drive = ["-i", space.for_mtools]
    if folder != tree:
        run.run(["mmd", *drive, f"::/{inside}"], env=env)
    files = sorted(path for path in folder.iterdir() if path.is_file())
    if files:
        run.run(["mcopy", *drive, *files, f"::/{inside}"], env=env)
