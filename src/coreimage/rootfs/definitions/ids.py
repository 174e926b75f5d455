"""Stable ids: users and groups have the same numbers in every version of an image.

A definition pins them in ids/passwd and ids/group, in the form of passwd(5) and group(5). System
ids are written into the tree before packages are configured, where adduser, useradd and
systemd-sysusers find them and make none of their own; the finished tree is checked. A definition
that pins none gets what its packages make; then, too, no later build may give another number.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from coreimage.errors import DataError, NotFoundError
from coreimage.lib.files import read_text
from coreimage.model.document import parse_object

# Above are the accounts of people, which hooks make together with their homes; and "nobody".
_FIRST_PERSON = 1000
_SECONDS_A_DAY = 86400
_PASSWD_FIELDS, _GROUP_FIELDS = 7, 4
# The fields of passwd(5), counted from 0, that hold numbers.
_NUMBERS = {_PASSWD_FIELDS: (2, 3), _GROUP_FIELDS: (2,)}

PIN_SCRIPT = """\
#!/bin/sh
# Write the pinned users and groups that are not there yet.
set -e
cd "${0%/*}/ids"
for file in group passwd gshadow shadow; do
    # Without shadow files the field for the password says that there is none.
    case $file in
        *shadow) [ -e "/etc/$file" ] || continue ; word= ;;
        passwd) [ -e /etc/shadow ] && word=x || word='*' ;;
        group) [ -e /etc/gshadow ] && word=x || word='*' ;;
    esac
    while IFS= read -r line; do
        name=${line%%:*}
        grep -q "^$name:" "/etc/$file" && continue
        [ -z "$word" ] || line="$name:$word:${line#*:*:}"
        printf '%s\\n' "$line" >> "/etc/$file"
    done < "$file"
done
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pins:
    """The lines of passwd(5) and group(5) by the names that they begin with."""

    users: Mapping[str, str]
    groups: Mapping[str, str]


def read_pins(passwd: Sequence[Path], group: Sequence[Path]) -> Pins | None:
    """Return the pins of some files, of which the last one wins; None when there are no files.

    Raises DataError with file and line, and when two names share a number.
    """
    if not passwd and not group:
        return None
    return Pins(users=_read(passwd, _PASSWD_FIELDS), groups=_read(group, _GROUP_FIELDS))


def _read(paths: Sequence[Path], fields: int) -> dict[str, str]:
    lines: dict[str, str] = {}
    for path in paths:
        for number, line in enumerate(read_text(path).splitlines(), 1):
            if not line.strip() or line.startswith("#"):
                continue
            parts = line.split(":")
            if len(parts) != fields or not all(_is_id(parts[at]) for at in _NUMBERS[fields]):
                example = "name:x:101:65534::/nonexistent:/usr/sbin/nologin"
                raise DataError(
                    f"{path}:{number}: '{line}' does not have the {fields} fields of a line",
                    hint="write lines such as "
                    + (example if fields == _PASSWD_FIELDS else "name:x:101:"),
                )
            lines[parts[0]] = line
    owners: dict[str, str] = {}
    for name, line in lines.items():
        other = owners.setdefault(line.split(":")[2], name)
        if other != name:
            raise DataError(
                f"{paths[-1]}: '{name}' and '{other}' have the same number",
                hint="give one of them another one",
            )
    return lines


def early_files(pins: Pins, *, epoch: int) -> dict[str, bytes]:
    """Return what PIN_SCRIPT takes in, by file name: system ids as lines of the four files.

    Accounts have no password that opens them, as those that packages make.
    """
    users = {name: line for name, line in pins.users.items() if _is_system(line)}
    groups = {name: line for name, line in pins.groups.items() if _is_system(line)}
    days = epoch // _SECONDS_A_DAY
    members = {name: line.split(":")[3] for name, line in groups.items()}
    return {
        "passwd": _text(users.values()),
        "group": _text(groups.values()),
        "shadow": _text(f"{name}:!*:{days}::::::" for name in users),
        "gshadow": _text(f"{name}:!*::{members[name]}" for name in groups),
    }


def check(pins: Pins, *, passwd: bytes, group: bytes, folder: Path) -> None:
    """Raise DataError when a tree has an id that is not pinned or was moved.

    `folder` is where the definition keeps its pins; the message has the lines to add there.
    """
    moved: list[str] = []
    added: list[str] = []
    for name, kind, text, pinned in (
        ("passwd", "user", passwd, pins.users),
        ("group", "group", group, pins.groups),
    ):
        for line in _lines(text):
            owner = line.split(":")[0]
            if owner not in pinned:
                added.append(f"{folder / name}: {_plain(line, kind)}")
            elif _numbers(line, kind) != _numbers(pinned[owner], kind):
                found, expected = _numbers(line, kind), _numbers(pinned[owner], kind)
                moved.append(f"{kind} '{owner}' is {found}, pinned is {expected}")
    if not moved and not added:
        return
    parts = []
    if moved:
        parts.append("ids have moved:" + _indented(moved))
    if added:
        parts.append("the build made ids that are not pinned:" + _indented(added))
    raise DataError(
        "\n".join(parts),
        hint="add the lines named above to those files, and build again"
        if added
        else "find out what gave the number; devices in use have files that belong to the old one",
    )


Numbers = Mapping[str, Mapping[str, str]]
"""What a tree has: by `user` its users as UID:GID, by `group` its groups as GID, by name."""


def numbers(passwd: bytes, group: bytes) -> dict[str, dict[str, str]]:
    """Return the numbers of all users and groups of a tree."""
    return {
        kind: {line.split(":")[0]: _numbers(line, kind) for line in _lines(text)}
        for kind, text in (("user", passwd), ("group", group))
    }


def read_numbers(record: Path) -> Numbers:
    """Return the numbers that the record of a build has; raises NotFoundError and DataError.

    Records of older versions have none.
    """
    try:
        found = parse_object(record.read_bytes(), name=str(record)).get("ids", {})
        return {kind: {**found.get(kind, {})} for kind in ("user", "group")}
    except OSError as error:
        raise NotFoundError(
            f"the record '{record}' cannot be read: {error.strerror}",
            hint="every build leaves one among its artifacts: livecd.NAME.build.json",
        ) from error
    except (AttributeError, TypeError) as error:
        raise DataError(f"'{record}' is not the record of a build: {error}") from error


def refuse_moved(before: Numbers, now: Numbers, *, name: str) -> None:
    """Raise DataError when a user or group has another number than in an earlier build.

    So is one that has got the number of one that is gone: its files would change hands. `name` is
    what messages call the earlier build.
    """
    moved = _all_moved(before, now)
    if moved:
        raise DataError(
            f"ids are not those of {name}:" + _indented(moved),
            hint="pin them in the definition: 'coreimage rootfs ids' prints the lines of an "
            "earlier build; where no device has that one, build with --new-ids",
        )


def refuse_moved_pins(before: Numbers, pins: Pins, *, name: str) -> None:
    """Raise DataError when pins say another number than an earlier build, as refuse_moved does."""
    passwd, group = (_text(each.values()) for each in (pins.users, pins.groups))
    moved = _all_moved(before, numbers(passwd, group))
    if moved:
        raise DataError(
            f"the definition pins other ids than those of {name}:" + _indented(moved),
            hint="pin the earlier numbers again; where no device has that build, build with "
            "--new-ids",
        )


def _all_moved(before: Numbers, now: Numbers) -> list[str]:
    return [line for kind in ("user", "group") for line in _moved(before, now, kind)]


def _moved(before: Numbers, now: Numbers, kind: str) -> Iterator[str]:
    owners = {number.partition(":")[0]: name for name, number in before[kind].items()}
    for name, number in now[kind].items():
        was = before[kind].get(name)
        owner = owners.get(number.partition(":")[0], name)
        if was is not None and was != number:
            yield f"{kind} '{name}' is {number}, was {was}"
        elif was is None and owner not in now[kind]:
            yield f"{kind} '{name}' is {number}, which was {kind} '{owner}'"


def pin_lines(passwd: bytes, group: bytes) -> dict[str, list[str]]:
    """Return what pins the users and groups of a tree, by the names of the files in ids/."""
    return {
        name: [_plain(line, kind) for line in _lines(text)]
        for name, kind, text in (("passwd", "user", passwd), ("group", "group", group))
    }


def _lines(text: bytes) -> list[str]:
    return [line for line in text.decode(errors="replace").splitlines() if ":" in line]


def _plain(line: str, kind: str) -> str:
    """Return a line as it should be pinned: without the members of a group, no password."""
    parts = line.split(":")
    parts[1] = "x"
    if kind == "group":
        parts[3:] = [""]
    return ":".join(parts)


def _numbers(line: str, kind: str) -> str:
    parts = line.split(":")
    return ":".join(parts[2:4] if kind == "user" else parts[2:3])


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _is_system(line: str) -> bool:
    return int(line.split(":")[2]) < _FIRST_PERSON


def _text(lines: Iterable[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


def _indented(lines: Sequence[str]) -> str:
    return "".join(f"\n  {line}" for line in lines)
