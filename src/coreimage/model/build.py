"""Builds: what is asked for, how far it is, what came of it."""

import json
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from coreimage.errors import DataError
from coreimage.model.document import parse_object


class BuildStatus(StrEnum):
    """How far a build is. That it is over does not say what came of it: see `BuildResult`."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    ABORTED = "aborted"

    @property
    def finished(self) -> bool:
        """Whether the build is over, unless somebody has it tried again."""
        return self in (self.COMPLETED, self.ABORTED)


class Subproject(StrEnum):
    """Where the kernel goes: SYSTEM_IMAGE moves it from the rootfs into a device tarball."""

    SYSTEM_IMAGE = "system-image"
    NONE = "none"

    @property
    def suffix(self) -> str:
        """What names and records have of it: nothing where there is none."""
        return "" if self is Subproject.NONE else self.value


class BuildResult(StrEnum):
    """What came of an attempt: FAILURE is the build's own fault, ERROR its worker's."""

    SUCCESS = "success"
    FAILURE = "failure"
    ERROR = "error"


# What ARCHES and schedules say: an architecture, or one of its devices as in armhf+raspi2.
ARCH_WORD = r"[a-z0-9]+(?:\+[a-z0-9][a-z0-9_-]*)?"

# apt keeps the priorities of pins in 16 bits, and gives 0 no meaning.
PIN_PRIORITIES = range(-(2**15), 2**15)


def target_of(arch: str, device: str) -> str:
    """Return how names of files and settings of channels call a device of an architecture.

    It is armhf.raspi2, or armhf where there is no device: no architecture has a dot in its name.
    """
    return f"{arch}.{device}" if device else arch


def split_target(target: str) -> tuple[str, str]:
    """Return architecture and device of a target; the device is empty when it has none."""
    arch, _, device = target.partition(".")
    return arch, device


# The words of Launchpad's build pages, which people know.
_LABELS: Mapping[tuple[BuildStatus, BuildResult | None], str] = {
    (BuildStatus.PENDING, None): "Needs building",
    (BuildStatus.RUNNING, None): "Currently building",
    (BuildStatus.COMPLETED, BuildResult.SUCCESS): "Successfully built",
    (BuildStatus.COMPLETED, BuildResult.FAILURE): "Failed to build",
    (BuildStatus.COMPLETED, BuildResult.ERROR): "Chroot problem",
    (BuildStatus.ABORTED, None): "Cancelled",
}
LABELS = tuple(_LABELS.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildRequest:
    """What to build; `version` is the build id of the image set, such as 20150511.1.

    `subproject` is the suffix of a Subproject: `system-image` or nothing. `device` is one of the
    definition's, or nothing: the generic one of the architecture.
    """

    project: str
    release: str
    series: str
    arch: str
    version: str
    distribution: str = ""
    subproject: str = ""
    device: str = ""

    @property
    def target(self) -> str:
        """What tells the builds of one image set apart: armhf, or armhf.raspi2 for a device."""
        return target_of(self.arch, self.device)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One try at a build, which is over; it has no result when it was aborted.

    `exit_code` is that of the program, negative for the signal that ended it.
    """

    number: int
    worker: str
    started_at: datetime
    finished_at: datetime
    result: BuildResult | None = None
    exit_code: int | None = None
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """A build in the store. `id` names its directory below builds/.

    Those of higher priority begin first. `attempt` counts how often it was begun, `attempts` are
    those that are over, `retries` how many of them were begun again by themselves. `not_before`
    is when the next one may begin. `fingerprint` is the digest of everything that went in;
    `artifacts` are file names below artifacts/.
    """

    id: int
    request: BuildRequest
    status: BuildStatus
    created_at: datetime
    result: BuildResult | None = None
    priority: int = 0
    attempt: int = 0
    attempts: Sequence[Attempt] = ()
    retries: int = 0
    not_before: datetime | None = None
    worker: str = ""
    abort_asked: bool = False
    started_at: datetime | None = None
    finished_at: datetime | None = None
    fingerprint: str = ""
    artifacts: Sequence[str] = ()
    message: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """Status and result in the words of Launchpad: 'Chroot problem' is the worker's fault."""
        return _LABELS[self.status, self.result]

    @property
    def succeeded(self) -> bool:
        """Whether there are artifacts to take."""
        return self.result is BuildResult.SUCCESS

    def to_json(self) -> str:
        """Return the text of build.json."""
        return json.dumps(asdict(self), indent=4, default=_text) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> "Build":
        """Parse build.json, also of versions that knew only a state; raises DataError."""
        try:
            fields = parse_object(text, name="build.json")
            if "state" in fields:
                fields["status"], fields["result"] = status_of_label(fields.pop("state"))
            return cls(**{**fields, **_checked(fields)})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"build.json is malformed: {error}") from error


def status_of_label(label: str) -> tuple[BuildStatus, BuildResult | None]:
    """Return status and result for Launchpad's words; raises ValueError for others."""
    if label == "Uploading build":
        return BuildStatus.RUNNING, None
    for pair, words in _LABELS.items():
        if words == label:
            return pair
    raise ValueError(f"'{label}' is not a state of a build")


def _checked(fields: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(fields["created_at"], str):
        raise TypeError("'created_at' is not a time")
    status = BuildStatus(fields["status"])
    result = _optional(BuildResult)(fields.get("result"))
    if (status, result) not in _LABELS:
        raise ValueError(f"a build that is {status} has the result {result}")
    return {
        "id": operator.index(fields["id"]),
        "request": BuildRequest(**{key: _name(text) for key, text in fields["request"].items()}),
        "status": status,
        "result": result,
        "attempts": tuple(attempt_from(each) for each in fields.get("attempts", ())),
        "abort_asked": fields.get("abort_asked", False) is True,
        "artifacts": tuple(_name(each) for each in fields.get("artifacts", ())),
        "extra": dict(fields.get("extra", {})),
        **{key: operator.index(fields.get(key, 0)) for key in ("priority", "attempt", "retries")},
        **{key: _name(fields.get(key, "")) for key in ("message", "fingerprint", "worker")},
        **{
            key: _optional(datetime.fromisoformat)(fields.get(key))
            for key in ("created_at", "started_at", "finished_at", "not_before")
        },
    }


def attempt_fields(attempt: Attempt) -> dict[str, Any]:
    """Return what JSON keeps of an attempt."""
    fields: dict[str, Any] = json.loads(json.dumps(asdict(attempt), default=_text))
    return fields


def attempt_from(fields: Mapping[str, Any]) -> Attempt:
    """Return an attempt from what JSON keeps of it; raises ValueError, KeyError, TypeError."""
    checked = {
        "number": operator.index(fields["number"]),
        "worker": _name(fields["worker"]),
        "started_at": datetime.fromisoformat(fields["started_at"]),
        "finished_at": datetime.fromisoformat(fields["finished_at"]),
        "result": _optional(BuildResult)(fields.get("result")),
        "exit_code": _optional(operator.index)(fields.get("exit_code")),
        "message": _name(fields.get("message", "")),
    }
    return Attempt(**{**fields, **checked})


def _optional(parse: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else parse(value)


def _name(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not a name")
    return value


def _text(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
