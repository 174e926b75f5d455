"""Block maps: which blocks of an image must be written, with a digest of each range.

Source of the format: bmap 2.0 of the Yocto project's bmaptool.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from coreimage.flasher.media.ranges import BLOCK, Range
from coreimage.lib.files import CHUNK

_DIGEST_LENGTH = 64
_TEXT = """\
<?xml version="1.0" ?>
<bmap version="2.0">
    <ImageSize> {size} </ImageSize>
    <BlockSize> {block} </BlockSize>
    <BlocksCount> {count} </BlocksCount>
    <MappedBlocksCount> {mapped} </MappedBlocksCount>
    <ChecksumType> sha256 </ChecksumType>
    <BmapFileChecksum> {checksum} </BmapFileChecksum>
    <BlockMap>
{ranges}    </BlockMap>
</bmap>
"""


def bmap_text(disk: Path, ranges: Sequence[Range]) -> str:
    """Return the block map of a raw disk; `ranges` are in whole blocks."""
    size = disk.stat().st_size
    lines = []
    with disk.open("rb") as file:
        for each in ranges:
            digest = hashlib.sha256()
            for chunk in read_range(file.fileno(), each):
                digest.update(chunk)
            first, last = each.start // BLOCK, (each.end - 1) // BLOCK
            place = f"{first}-{last}" if last > first else f"{first}"
            lines.append(f'        <Range chksum="{digest.hexdigest()}"> {place} </Range>\n')
    mapped = sum((each.end - 1) // BLOCK - each.start // BLOCK + 1 for each in ranges)

    def text(checksum: str) -> str:
        return _TEXT.format(
            size=size,
            block=BLOCK,
            count=-(-size // BLOCK),
            mapped=mapped,
            checksum=checksum,
            ranges="".join(lines),
        )

    # The map's own digest is that of the map with zeros in the place of the digest.
    return text(hashlib.sha256(text("0" * _DIGEST_LENGTH).encode()).hexdigest())


def read_range(descriptor: int, wanted: Range) -> Iterator[bytes]:
    """Yield the bytes of a range in chunks."""
    position = wanted.start
    while position < wanted.end:
        chunk = os.pread(descriptor, min(CHUNK, wanted.end - position), position)
        if not chunk:
            return
        yield chunk
        position += len(chunk)
