"""Builds: what is asked for, what state it is in, what came of it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from coreimage.errors import DataError


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
            fields = json.loads(text)
            fields["request"] = BuildRequest(**fields["request"])
            fields["state"] = BuildState(fields["state"])
            for key in ("created_at", "started_at", "finished_at"):
                value = fields.get(key)
                fields[key] = None if value is None else datetime.fromisoformat(value)
            fields["artifacts"] = tuple(fields.get("artifacts", ()))
            return cls(**fields)
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"build.json is malformed: {error}") from error


def _text(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
