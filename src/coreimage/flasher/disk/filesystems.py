"""File systems in plain files: ext4 from a staged tree, FAT from a few files.

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

from coreimage.errors import CoreImageError, DataError
from coreimage.flasher.disk.inodes import finish_inodes
from coreimage.flasher.disk.normal import normalise
from coreimage.flasher.tree.staging import Staging
from coreimage.lib import run

_BLOCK = 4096
_BYTES_PER_INODE = 16384
_EXT4_FEATURES = (
    "none,ext_attr,dir_index,filetype,extent,64bit,flex_bg,sparse_super,large_file,huge_file,"
    "dir_nlink,extra_isize,metadata_csum"
)
_EXT4_OPTIONS = "no_copy_xattrs,lazy_itable_init=0,lazy_journal_init=0,nodiscard,root_owner=0:0"
# Ours in place of the host's /etc/mke2fs.conf, which differs between distributions.
_MKE2FS_CONF = "[fs_types]\n" + "".join(
    f"{name} = {{\n}}\n" for name in ("ext4", "floppy", "small", "big", "huge")
)
# Fewer clusters make another FAT. Source: Microsoft's FAT specification, "FAT type determination".
_FAT32_CLUSTERS = 65525
# Sectors before the first cluster: reserved ones, and two tables of at most this size.
_FAT_OVERHEAD = 32 + 2 * 520
# With less than this, in bytes, a disk is taken for full.
_HARDLY_ANY = 1 << 20
_FULL = re.compile(r"could not allocate|no space|no free space|disk full", re.IGNORECASE)
_FAT_NAME = re.compile(r"[^\x00-\x1f\"*/:<>?\\|\x7f-\uffff]{1,255}(?<![. ])\Z")


def make_ext4(
    staging: Staging,
    image: Path,
    *,
    size: int,
    label: str,
    uuid: UUID,
    hash_seed: UUID,
    time: int,
    scratch: Path,
    journal: bool = False,
) -> None:
    """Make an ext4 file system of `size` bytes with the tree, as the new sparse file `image`.

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
    argv += ["-E", f"{_EXT4_OPTIONS},hash_seed={hash_seed}"]
    argv += ["-J", f"size={_journal_size(size)}"] if journal else []
    argv += ["-L", label, "-U", str(uuid), "-d", staging.root, image, str(size // _BLOCK)]
    _create(image, size)
    content = f"{len(staging.entries)} entries and {staging.content_size >> 20} MiB of files"
    with _refusing_when_full(image, label, size, content):
        run.run(argv, env=env)
        finish_inodes(image, staging.entries, time=time, scratch=scratch, env=env)
    normalise(image)


def _journal_size(size: int) -> int:
    """Return MiB of journal: 32, on small file systems a sixteenth, at least the smallest."""
    return max(4, min(32, (size >> 20) // 16))


def make_fat(
    files: Mapping[str, bytes | Path],
    image: Path,
    *,
    size: int,
    label: str,
    volume_id: int,
    time: int,
    scratch: Path,
    sector_size: int = 512,
) -> None:
    """Make a FAT32 file system of `size` bytes with `files`, as the new sparse file `image`.

    Keys are paths below its root, values contents or files to copy. `time` is in UNIX seconds,
    from 1980 on; `scratch` is a directory of the caller. Raises DataError for names that FAT
    cannot have and when the files do not fit.
    """
    _check_fat_names(files)
    tree = (scratch / f"fat-{label}").absolute()
    for path, content in files.items():
        _stage_fat_file(tree / path, content, time)
    # No configuration but ours: the host's or the user's may map drives or change names.
    env = {"TZ": "UTC", "SOURCE_DATE_EPOCH": str(time), "MTOOLSRC": os.devnull, "LC_ALL": "C"}
    _create(image, size)
    # The order matters: --invariant sets the volume id that -i then replaces.
    argv = ["mkfs.vfat", "--invariant", "-i", f"{volume_id:08X}", "-F", "32"]
    argv += ["-S", str(sector_size), "-s", str(_sectors_per_cluster(label, size, sector_size))]
    run.run([*argv, "-n", label, image], env=env)
    total = sum(path.stat().st_size for path in tree.rglob("*") if path.is_file())
    with _refusing_when_full(image, label, size, f"{len(files)} files of {total >> 20} MiB"):
        for folder in sorted(path for path in (tree, *tree.rglob("*")) if path.is_dir()):
            _fill_fat_folder(image, tree, folder, env)


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


def _create(image: Path, size: int) -> None:
    with image.open("xb") as file:
        file.truncate(size)


@contextmanager
def _refusing_when_full(image: Path, label: str, size: int, content: str) -> Iterator[None]:
    try:
        yield
    except CoreImageError as error:
        if not _FULL.search(error.message):
            raise
        # The tools say the same of a full partition and of a full disk below its image.
        if shutil.disk_usage(image.parent).free < _HARDLY_ANY:
            raise CoreImageError(
                f"there is no space left in '{image.parent}'", hint="free some space and try again"
            ) from error
        raise DataError(
            f"partition '{label}' of {size >> 20} MiB is too small for {content}",
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


def _stage_fat_file(path: Path, content: bytes | Path, time: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        shutil.copyfile(content, path)
    os.utime(path, (time, time))


def _fill_fat_folder(image: Path, tree: Path, folder: Path, env: Mapping[str, str]) -> None:
    """Make one folder and copy its files, sorted: the order of directory entries is ours."""
    inside = folder.relative_to(tree)
    drive = ["-i", image.name]  # relative, because mtools would read "@@" in a path as an offset
    if folder != tree:
        run.run(["mmd", *drive, f"::/{inside}"], env=env, cwd=image.parent)
    files = sorted(path for path in folder.iterdir() if path.is_file())
    if files:
        run.run(["mcopy", *drive, "-m", *files, f"::/{inside}"], env=env, cwd=image.parent)
