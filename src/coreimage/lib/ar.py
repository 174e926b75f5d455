"""Ar archives, as Debian's packages are: where their members lie, and headers for new ones.

Source: deb(5), ar(5); names longer than 16 bytes, which packages do not have, are not understood.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

MAGIC = b"!<arch>\n"
HEADER = 60
_NUMBER = re.compile(rb"([0-9]+) *\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A member: its name, where its content lies in bytes, and its time in UNIX seconds."""

    name: str
    offset: int
    size: int
    time: int


def members(source: BinaryIO) -> Iterator[Member]:
    """Yield the members of an open archive; raises ValueError for what is none, or is damaged."""
    end = source.seek(0, os.SEEK_END)
    source.seek(0)
    if source.read(len(MAGIC)) != MAGIC:
        raise ValueError("it is no ar archive")
    while header := source.read(HEADER):
        if len(header) != HEADER or header[58:] != b"`\n":
            raise ValueError("it is cut short, or damaged")
        member = Member(
            name=header[:16].decode("ascii").rstrip().rstrip("/"),
            offset=source.tell(),
            size=_number(header[48:58]),
            time=_number(header[16:28]),
        )
        if member.offset + member.size > end:
            raise ValueError(f"its member '{member.name}' is cut short")
        yield member
        source.seek(member.offset + member.size + member.size % 2)


def chunks(source: BinaryIO, member: Member, *, size: int = 1 << 20) -> Iterator[bytes]:
    """Yield the content of a member in pieces of `size` bytes; ValueError when it ends early."""
    source.seek(member.offset)
    left = member.size
    while left:
        chunk = source.read(min(left, size))
        if not chunk:
            raise ValueError("it is cut short")
        left -= len(chunk)
        yield chunk


def _number(field: bytes) -> int:
    found = _NUMBER.match(field)
    if found is None:
        raise ValueError("it is damaged: a number is none")
    return int(found[1])


def header(name: str, size: int) -> bytes:
    """Return what stands before the content of a member that nobody owns, from no time."""
    return f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{size:<10}`\n".encode()
