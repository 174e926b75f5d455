"""The trigger of an image set, as the environment of a cron job describes it.

Source of the variables: ubuntu-cdimage, `for-project` and `cron.daily-preinstalled`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from coreimage.errors import UsageError
from coreimage.model.build import ARCH_WORD, PIN_PRIORITIES, Subproject

# What builds know the suites by in which a release tries its updates.
_PROPOSED = "proposed"
_NAME = re.compile(r"[a-z0-9][a-z0-9-]*\Z")
_SERIES = re.compile(r"[a-z0-9][a-z0-9.-]*\Z")
_ARCH = re.compile(ARCH_WORD + r"\Z")
_CHANNEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(?:/[A-Za-z0-9][A-Za-z0-9._-]*)*\Z")
_PPA = re.compile(r"([a-z0-9][a-z0-9.+-]*/[a-z0-9][a-z0-9.+-]*)(?::(-?[0-9]{1,5}))?\Z")
_BOOLEANS = {"": False, "0": False, "no": False, "false": False}
_BOOLEANS |= {"1": True, "yes": True, "true": True}


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtraArchive:
    """A package archive beside the distribution's own, and its priority for apt, if any."""

    name: str
    pin: int | None = None

    def __str__(self) -> str:
        """Return owner/name or owner/name:pin, as it was given."""
        return self.name if self.pin is None else f"{self.name}:{self.pin}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trigger:
    """What to build and where it goes; what is None or empty is the definition's business.

    An arch may name one of its devices, as in armhf+raspi2. Not so the subproject: as in the
    original, the kernel stays where SUBPROJECT is not set.
    """

    project: str
    dist: str | None = None
    arches: Sequence[str] = ()
    subproject: Subproject = Subproject.NONE
    extra_ppas: Sequence[ExtraArchive] = ()
    proposed: bool = False
    channel: str | None = None
    debug: bool = False


def extra_archives(trigger: Trigger) -> list[str]:
    """Return the names of the archives that builds take packages from, beside the main one."""
    return [*map(str, trigger.extra_ppas), *([_PROPOSED] if trigger.proposed else [])]


def capitalised(project: str) -> str:
    """Return a project's name with capitals: ubuntu-core becomes Ubuntu-Core."""
    return "-".join(word.capitalize() for word in project.split("-"))


def project_name(text: str) -> str:
    """Return a project's name; raises UsageError for what cannot be one."""
    return _checked("PROJECT", text, _NAME, "a definition such as ubuntu-core")


def parse_trigger(environment: Mapping[str, str]) -> Trigger:
    """Read PROJECT, DIST, ARCHES, SUBPROJECT, EXTRA_PPAS, CHANNEL, PROPOSED and DEBUG.

    A variable that is empty counts as one that is not set. Raises UsageError that names the
    variable, its value, and what was expected.
    """
    given = {name: value.strip() for name, value in environment.items()}
    if not given.get("PROJECT"):
        raise UsageError(
            "PROJECT is not set",
            hint="run it as in 'for-project ubuntu-core cron.daily-preinstalled'",
        )
    dist, channel = (given.get(name) or None for name in ("DIST", "CHANNEL"))
    return Trigger(
        project=project_name(given["PROJECT"]),
        dist=dist and _checked("DIST", dist, _SERIES, "a series or release such as vivid"),
        arches=_arches(given.get("ARCHES", "")),
        subproject=_subproject(given.get("SUBPROJECT", "")),
        extra_ppas=_extra_ppas(given.get("EXTRA_PPAS", "")),
        channel=channel and _checked("CHANNEL", channel, _CHANNEL, "a channel such as edge"),
        proposed=_boolean("PROPOSED", given),
        debug=_boolean("DEBUG", given),
    )


def _checked(variable: str, text: str, pattern: re.Pattern[str], expected: str) -> str:
    if pattern.match(text) is None:
        raise UsageError(f"{variable} is '{text}', expected {expected}", hint=f"correct {variable}")
    return text


def _subproject(text: str) -> Subproject:
    for each in Subproject:
        if text in (each.suffix, each.value):
            return each
    raise UsageError(
        f"SUBPROJECT is '{text}', expected '{Subproject.SYSTEM_IMAGE}' or '{Subproject.NONE}'",
        hint="leave it out, or correct it",
    )


def _boolean(variable: str, given: Mapping[str, str]) -> bool:
    text = given.get(variable, "")
    if text.lower() not in _BOOLEANS:
        raise UsageError(f"{variable} is '{text}', expected 1 or 0", hint=f"correct {variable}")
    return _BOOLEANS[text.lower()]


def _arches(text: str) -> tuple[str, ...]:
    words = (
        _checked("ARCHES", word, _ARCH, "names such as 'amd64 armhf+raspi2'")
        for word in text.split()
    )
    return tuple(dict.fromkeys(words))


def _extra_ppas(text: str) -> tuple[ExtraArchive, ...]:
    found: dict[str, ExtraArchive] = {}
    for word in text.split():
        match = _PPA.match(word)
        pin = int(match[2]) if match and match[2] else None
        if match is None or pin == 0 or (pin is not None and pin not in PIN_PRIORITIES):
            raise UsageError(
                f"EXTRA_PPAS has '{word}', expected OWNER/NAME or OWNER/NAME:PRIORITY",
                hint="write it as in 'snappy-dev/image' or 'snappy-dev/image:1001'",
            )
        archive = ExtraArchive(name=match[1], pin=pin)
        if found.setdefault(archive.name, archive) != archive:
            raise UsageError(
                f"EXTRA_PPAS has '{archive.name}' with two priorities", hint="leave one of them out"
            )
    return tuple(found.values())
