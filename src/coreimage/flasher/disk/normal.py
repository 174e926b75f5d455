"""What versions of e2fsprogs disagree about in an ext4 image, brought into one form.

A superblock counts how much was ever written, which depends on the order of writes. And the bitmap
of a group that holds nothing but copies of the superblock is left out by some versions (up to
1.47.0) and written by others; here it is left out. Source: the kernel's ext4 documentation, "Super
Block", "Block Group Descriptors" and "Checksums".
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from coreimage.errors import DataError
from coreimage.flasher.disk.space import Space

_SUPERBLOCK = 1024
_MAGIC = 0xEF53
_KBYTES_WRITTEN = 0x178
_CHECKSUM = 0x3FC
_BLOCK_UNINIT = 0x2
_64BIT = 0x80
_CSUM_SEED = 0x2000
_POLYNOMIAL = 0x82F63B78


def _table() -> list[int]:
    found = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = value >> 1 ^ (_POLYNOMIAL if value & 1 else 0)
        found.append(value)
    return found


_TABLE = _table()


def crc32c(value: int, data: bytes | bytearray) -> int:
    """Return the CRC32C of data that goes on from `value`, without a final complement."""
    for byte in data:
        value = _TABLE[(value ^ byte) & 0xFF] ^ value >> 8
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class _Geometry:
    """Sizes in bytes and blocks, and the seed of the checksums of a file system."""

    block: int
    blocks: int
    per_group: int
    descriptor: int
    reserved: int
    seed: int

    @property
    def groups(self) -> int:
        return -(-self.blocks // self.per_group)

    @property
    def table(self) -> int:
        """Blocks of a copy of the descriptors."""
        return -(-self.groups * self.descriptor // self.block)

    def has_copy(self, group: int) -> bool:
        """Tell whether a group has a superblock: 0, 1 and the powers of 3, 5 and 7."""
        if group <= 1:
            return True
        return any(_is_power(group, base) for base in (3, 5, 7))

    def overhead(self, group: int) -> int:
        """Return how many blocks of a group its copies take."""
        return 1 + self.table + self.reserved if self.has_copy(group) else 0


def _is_power(number: int, base: int) -> bool:
    while number % base == 0:
        number //= base
    return number == 1


def normalise(space: Space) -> None:
    """Bring an ext4 image into the form that does not depend on who made it; raises DataError.

    It must have 64-bit descriptors, metadata checksums and blocks of more than 1024 bytes, as ours.
    """
    with space.image.open("r+b") as file:
        file.seek(space.start + _SUPERBLOCK)
        geometry = _geometry(file.read(1024))
        empty: set[int] = set()
        for group in range(geometry.groups):
            if geometry.has_copy(group):
                start = space.start + group * geometry.per_group * geometry.block
                _rewrite_superblock(file, start if group else start + _SUPERBLOCK)
                empty |= set(_rewrite_table(file, start + geometry.block, geometry))
        for block in sorted(empty):
            file.seek(space.start + block * geometry.block)
            file.write(bytes(geometry.block))


def _geometry(superblock: bytes) -> _Geometry:
    def number(kind: str, at: int) -> int:
        return int(struct.unpack_from(f"<{kind}", superblock, at)[0])

    incompatible = number("I", 0x60)
    if number("H", 0x38) != _MAGIC or not incompatible & _64BIT or not number("I", 0x18):
        raise DataError("it is no ext4 file system of the form that we make")
    by_uuid = crc32c(0xFFFFFFFF, superblock[0x68:0x78])
    return _Geometry(
        block=1024 << number("I", 0x18),
        blocks=number("I", 0x4) | number("I", 0x150) << 32,
        per_group=number("I", 0x20),
        descriptor=number("H", 0xFE),
        reserved=number("H", 0xCE),
        seed=number("I", 0x270) if incompatible & _CSUM_SEED else by_uuid,
    )


def _rewrite_superblock(file: BinaryIO, at: int) -> None:
    file.seek(at)
    data = bytearray(file.read(1024))
    data[_KBYTES_WRITTEN : _KBYTES_WRITTEN + 8] = bytes(8)
    struct.pack_into("<I", data, _CHECKSUM, crc32c(0xFFFFFFFF, data[:_CHECKSUM]))
    file.seek(at)
    file.write(data)


def _rewrite_table(file: BinaryIO, at: int, geometry: _Geometry) -> Iterator[int]:
    """Mark the bitmaps of groups that hold only copies as left out; yield where they lie."""
    size = geometry.descriptor
    file.seek(at)
    data = bytearray(file.read(geometry.groups * size))
    # The bitmap of the last group also says where the file system ends, that of the first is used.
    for group in range(1, geometry.groups - 1):
        one = data[group * size : (group + 1) * size]
        free = struct.unpack_from("<H", one, 0xC)[0] | struct.unpack_from("<H", one, 0x2C)[0] << 16
        if free != geometry.per_group - geometry.overhead(group):
            continue
        flags = struct.unpack_from("<H", one, 0x12)[0]
        struct.pack_into("<H", one, 0x12, flags | _BLOCK_UNINIT)
        for field in (0x18, 0x38, 0x1E):
            struct.pack_into("<H", one, field, 0)
        value = crc32c(crc32c(geometry.seed, struct.pack("<I", group)), one)
        struct.pack_into("<H", one, 0x1E, value & 0xFFFF)
        data[group * size : (group + 1) * size] = one
        low, high = struct.unpack_from("<I", one, 0)[0], struct.unpack_from("<I", one, 0x20)[0]
        yield low | high << 32
    file.seek(at)
    file.write(data)
