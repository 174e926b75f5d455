"""Builds: what is asked for, what state it is in, what came of it."""

import json
import operator
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from coreimage.errors import DataError
from coreimage.model.document import parse_object


class BuildState(StrEnum):
    """The states of a live filesystem build, in the words of the build farm."""

    NEEDS_BUILDING = "Needs building"
    BUILDING = "Currently building"
    UPLOADING = "Uploading build"
    SUCCEEDED = "Successfully built"
    FAILED = "Failed to build"
    CHROOT_PROBLEM = "Chroot problem"
    CANCELLED = "Cancelled"

    @property
    def finished(self) -> bool:
        """Whether the build will not change any more."""
        return self not in (self.NEEDS_BUILDING, self.BUILDING, self.UPLOADING)


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildRequest:
    """What to build; `version` is the build id of the image set, such as 20150511.1."""

    project: str
    release: str
    series: str
    arch: str
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """A build in the store. `id` names its directory below builds/.

    `fingerprint` is the digest of everything that went in; `artifacts` are file names below
    artifacts/.
    """

    id: int
    request: BuildRequest
    state: BuildState
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    fingerprint: str = ""
    artifacts: Sequence[str] = ()
    message: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """Return the text of build.json."""
        return json.dumps(asdict(self), indent=4, default=_text) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> "Build":
        """Parse build.json; raises DataError."""
        try:
            fields = parse_object(text, name="build.json")
            fields["id"] = operator.index(fields["id"])
            fields["request"] = _request(fields["request"])
            fields["state"] = BuildState(fields["state"])
            if not isinstance(fields["created_at"], str):
                raise TypeError("'created_at' is not a time")
            for key in ("message", "fingerprint"):
                fields[key] = _name(fields.get(key, ""))
            fields["extra"] = dict(fields.get("extra", {}))
            for key in ("created_at", "started_at", "finished_at"):
                value = fields.get(key)
                fields[key] = None if value is None else datetime.fromisoformat(value)
            fields["artifacts"] = tuple(_name(each) for each in fields.get("artifacts", ()))
            return cls(**fields)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"build.json is malformed: {error}") from error


def _request(fields: Mapping[str, Any]) -> BuildRequest:
    return BuildRequest(**{key: _name(value) for key, value in fields.items()})


def _name(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not a name")
    return value


def _text(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
