"""Feeds: what the images of a channel are made of, file by file, as coreimage.toml says it."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from coreimage.model.index import MAX_VERSION
from coreimage.model.keyring import KeyringType

_NAME = r"^[a-z0-9][a-z0-9.+]*(-[a-z0-9.+]+)*$"
_LANGUAGE = r"^[a-z]{2,3}(_[A-Z]{2})?$"
_SHA256 = r"^[0-9a-f]{64}$"
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")


class Strict(BaseModel):
    """A table of coreimage.toml: unknown keys are refused, and nothing changes it later."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _template(*names: str) -> AfterValidator:
    """Return the check of a text in which `{name}` is replaced, for these names."""

    def check(text: str) -> str:
        for found in _PLACEHOLDER.findall(text):
            if found not in names:
                known = ", ".join(f"{{{name}}}" for name in names)
                raise ValueError(f"'{{{found}}}' is not replaced here, only {known}")
        return text

    return AfterValidator(check)


def fill(text: str, values: Mapping[str, str]) -> str:
    """Return a text with its `{name}` replaced; those without a value stay."""
    return _PLACEHOLDER.sub(lambda found: values.get(found[1], found[0]), text)


_Url = Annotated[
    str, Field(pattern=r"^https?://[^\s/]+/[!-~]*$"), _template("version", "device", "arch")
]
_Server = Annotated[str, Field(min_length=1)]
_Here = Annotated[str, Field(min_length=1), _template("device", "arch")]


class FileFeed(Strict):
    """What every kind of file has.

    `name` is its word in version_detail and the beginning of its name in the pool. `devices` are
    the ones that have the file: all, when it is empty.
    """

    name: str | None = Field(default=None, pattern=_NAME, max_length=64)
    devices: Sequence[str] = ()

    @property
    def prefix(self) -> str:
        """The name, or what files of this kind are called."""
        return self.name or self._usual_name()

    def _usual_name(self) -> str:
        return str(getattr(self, "generator", ""))


class PublishedFeed(FileFeed):
    """A file of the newest publication; what is not said here, the channel says.

    `path` is a folder of dated publications, in place of the workspace's own tree; `keyring` has
    the keys that may sign its SHA256SUMS, in place of the server's own.
    """

    generator: Literal["cdimage-rootfs", "cdimage-device", "cdimage-device-raw", "cdimage-custom"]
    project: str | None = None
    release: str | None = None
    series: str | None = None
    product: str | None = None
    accept: Literal["any", "good"] | None = None
    file: (
        Annotated[
            str,
            Field(pattern=r"^[^/\s]+$"),
            _template("series", "product", "arch", "base_arch", "device"),
        ]
        | None
    ) = None
    path: Path | None = None
    keyring: Path | None = None

    def _usual_name(self) -> str:
        return self.generator.split("-")[1]


class HttpFeed(FileFeed):
    """A tarball from a web server, and why it may be trusted.

    Exactly one reason: its `sha256`; a signed list of digests, `sha256sums` with `keyring`; a
    `signature` of its own with `keyring`; or `trust = "tls"`, which believes whoever holds the
    server's certificate. `monitor` is a page that holds the current version.
    """

    generator: Literal["http"]
    name: str = Field(pattern=_NAME, max_length=64)
    url: _Url
    monitor: _Url | None = None
    sha256: str | None = Field(default=None, pattern=_SHA256)
    sha256sums: _Url | None = None
    signature: _Url | None = None
    keyring: Path | None = None
    trust: Literal["tls"] | None = None
    max_size: int = Field(default=16 << 30, gt=0)

    @model_validator(mode="after")
    def _has_one_reason(self) -> Self:
        reasons = [self.sha256, self.sha256sums, self.signature, self.trust]
        if sum(each is not None for each in reasons) != 1:
            raise ValueError(
                "give one reason to trust it: 'sha256', 'sha256sums' with 'keyring', "
                "'signature' with 'keyring', or trust = \"tls\""
            )
        if (self.keyring is not None) != bool(self.sha256sums or self.signature):
            raise ValueError("'keyring' belongs to 'sha256sums' or 'signature', and they to it")
        if self.trust and not self.url.startswith("https://"):
            raise ValueError("with trust = \"tls\", 'url' must begin with https://")
        unsigned = self.monitor and not (self.keyring or self.sha256)
        if unsigned and not str(self.monitor).startswith("https://"):
            raise ValueError("without 'keyring' or 'sha256', 'monitor' must begin with https://")
        return self


class KeyringFeed(FileFeed):
    """The server's own keyring, for systems that are to trust it."""

    generator: Literal["keyring"]
    keyring: KeyringType = KeyringType.ARCHIVE_MASTER


class SystemImageFeed(FileFeed):
    """A file of the newest full image of another channel of this server, as it is."""

    generator: Literal["system-image"]
    channel: _Here
    device: str | None = None
    file: str = Field(pattern=_NAME)

    def _usual_name(self) -> str:
        return self.file


class RemoteFeed(FileFeed):
    """A file of the newest full image of another server, verified from its own archive-master."""

    generator: Literal["remote-system-image"]
    server: _Server
    archive_master: Path
    channel: _Here
    device: str | None = None
    file: str = Field(pattern=_NAME)
    allow_unfresh: bool = False

    def _usual_name(self) -> str:
        return self.file


class VersionFeed(FileFeed):
    """What tells a device which image it has; always the last file."""

    generator: Literal["version"]


Feed = Annotated[
    PublishedFeed | HttpFeed | KeyringFeed | SystemImageFeed | RemoteFeed | VersionFeed,
    Field(discriminator="generator"),
]

SIMPLE: Sequence[PublishedFeed] = (
    PublishedFeed(generator="cdimage-rootfs"),
    PublishedFeed(generator="cdimage-device"),
)
"""What a channel without `files` has, and the version file as every channel."""


class ChannelSettings(Strict):
    """What a channel is fed from, and how its images are offered."""

    project: str | None = None
    release: str | None = None
    accept: Literal["any", "good"] = "any"
    devices: Mapping[str, str] = Field(default_factory=lambda: {"generic_amd64": "amd64"})
    files: Sequence[Feed] = ()
    deltabase: Sequence[str] = ()
    fullcount: int = Field(default=0, ge=0)
    phase: int = Field(default=100, ge=0, le=100)
    versionbase: int = Field(default=1, ge=1, le=MAX_VERSION)
    minversion: int | None = Field(default=None, ge=1, le=MAX_VERSION)
    bootme: bool = False
    description: str | None = None
    descriptions: Mapping[Annotated[str, Field(pattern=_LANGUAGE)], str] = Field(
        default_factory=dict
    )

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        missing = [key for key in ("project", "release") if getattr(self, key) is None]
        if not self.files and missing:
            raise ValueError(f"without 'files', '{missing[0]}' is required")
        versions = [at for at, each in enumerate(self.files) if isinstance(each, VersionFeed)]
        if versions and versions != [len(self.files) - 1]:
            raise ValueError("the file of generator 'version' comes once, as the last one")
        for device in self.devices:
            names = [each.prefix for each in self.feeds(device)]
            if "version" in names:
                raise ValueError("'version' is the name of the version file: give another 'name'")
            if twice := {name for name in names if names.count(name) > 1}:
                raise ValueError(
                    f"two files of '{device}' are called '{min(twice)}': give one a 'name'"
                )
        return self

    def feeds(self, device: str) -> list[Feed]:
        """Return what an image of a device is made of, in the order of applying.

        Without the version file, which every image has as its last one.
        """
        return [
            each
            for each in self.files or SIMPLE
            if not isinstance(each, VersionFeed) and (not each.devices or device in each.devices)
        ]
