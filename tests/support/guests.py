"""Real guests of 512 bytes: a boot sector that prints a text on the serial port, then acts."""

from enum import Enum
from pathlib import Path

HEALTHY = "coreimage-report: state=running failed=- slot=a build=1 channel=debian-core/13/edge\r\n"
_DISK_SIZE = 1 << 20
_ORIGIN = 0x7C00
# xor ax,ax; mov ds,ax; mov si,TEXT
_BEGIN = "31c0 8ed8 be{text}"
# next: lodsb; test al,al; jz end; mov ah,al; mov dx,0x3fd
# wait: in al,dx; test al,0x20; jz wait; mov al,ah; mov dx,0x3f8; out dx,al; jmp next
_PRINT = "ac 84c0 7412 88c4 bafd03 ec a820 74fb 88e0 baf803 ee ebe9"


class Action(Enum):
    """What the guest does when it has printed its text, as machine code."""

    HANG = "fa f4 ebfd"  # cli; hlt
    RESET = "b0fe e664 f4 ebfd"  # the keyboard controller pulses the reset line
    REPEAT = "e9{begin}"  # jmp to the beginning


def make_disk(path: Path, text: str, action: Action = Action.HANG) -> Path:
    """Write a disk whose boot sector prints `text`, at most 460 bytes, and then acts."""
    length = len(bytes.fromhex(_BEGIN.format(text="0000") + _PRINT))
    after_jump = length + 3
    end = bytes.fromhex(action.value.format(begin=_little(-after_jump)))
    begin = bytes.fromhex(_BEGIN.format(text=_little(_ORIGIN + length + len(end))) + _PRINT)
    program = begin + end + text.encode() + b"\0"
    assert len(program) <= 510
    path.write_bytes(program.ljust(510, b"\0") + b"\x55\xaa" + bytes(_DISK_SIZE - 512))
    return path


def _little(number: int) -> str:
    return (number & 0xFFFF).to_bytes(2, "little").hex()
