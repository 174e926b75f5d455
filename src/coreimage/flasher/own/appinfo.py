"""The fields of an application package's package.yaml.

Source of the format: the packages of Ubuntu Core 15.04. What there was for confinement by AppArmor
(`security-template` and the like) is refused: services are confined by systemd here.
"""

import re
import shlex
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from coreimage.flasher.packageyaml import Strict, parse_yaml

_Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.+-]{0,63}$")]
_Program = Annotated[
    str, Field(pattern=r"^([A-Za-z0-9][A-Za-z0-9._+-]*/){0,8}[a-z0-9][a-z0-9.+-]{0,63}$")
]
_Version = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.+~-]{0,63}$")]
_Line = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]{1,200}$")]
_SECONDS = re.compile(r"([0-9]{1,4})(s|m)?\Z")
# What a service may do beyond its own files.
_Capability = Literal["networking", "network-client", "network-service", "network-listener"]


def _seconds(value: Any) -> int:
    match = _SECONDS.match(str(value)) if isinstance(value, str | int) else None
    if match is None:
        raise ValueError("expected seconds, or a number with s or m, such as 30s")
    return int(match[1]) * (60 if match[2] == "m" else 1)


def _command(value: Any) -> tuple[str, ...]:
    try:
        words = shlex.split(value) if isinstance(value, str) else []
    except ValueError as error:
        raise ValueError(f"'{value}' is no command: {error}") from None
    if not words or not all(word.isprintable() for word in words):
        raise ValueError("expected a command: a file of the package, and its arguments")
    return tuple(words)


def _text(value: Any) -> Any:
    """Return a description on one line."""
    return " ".join(value.split()) if isinstance(value, str) else value


def _listed(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, list) else (value,)


Architectures = Annotated[tuple[str, ...], BeforeValidator(_listed)]
Command = Annotated[tuple[str, ...], BeforeValidator(_command)]
Text = Annotated[str, BeforeValidator(_text)]


class Service(Strict):
    """A program that runs as long as the machine does."""

    name: _Name
    description: Text = ""
    start: Command
    stop: Command | None = None
    poststop: Command | None = None
    stop_timeout: Annotated[int, BeforeValidator(_seconds)] = 30
    forking: bool = False
    caps: tuple[_Capability, ...] = Field(default=("networking",), strict=False)
    ports: dict[str, Any] = Field(default={})

    @property
    def commands(self) -> dict[str, tuple[str, ...]]:
        """What it runs, by key."""
        found = {"start": self.start, "stop": self.stop, "poststop": self.poststop}
        return {key: command for key, command in found.items() if command}


class Binary(Strict):
    """A program for people, at apps/bin/<package>.<command>; `exec` is its file in the package.

    A name with slashes is that file itself, as it often was in 2015.
    """

    name: _Program
    exec: str = ""
    description: Text = ""

    @property
    def path(self) -> str:
        """Its file in the package."""
        return self.exec or (self.name if "/" in self.name else f"bin/{self.name}")

    @property
    def command(self) -> str:
        """What people call it, after the package's name."""
        return self.name.rpartition("/")[2]


class AppInfo(Strict):
    """The whole of package.yaml."""

    name: _Name
    version: _Version
    type: Literal["app"] = "app"
    vendor: str = ""
    icon: str = ""
    description: Text = ""
    source: str = ""
    architecture: Architectures = ("all",)
    architectures: Architectures = ()
    services: tuple[Service, ...] = Field(default=(), strict=False)
    binaries: tuple[Binary, ...] = Field(default=(), strict=False)

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        for names in (
            [each.name for each in self.services],
            [each.command for each in self.binaries],
        ):
            if len(set(names)) != len(names):
                raise ValueError("two of one name")
        return self

    def runs_on(self, arch: str) -> bool:
        """Tell whether it is for machines of an architecture."""
        return bool({"all", arch} & set(self.architectures or self.architecture))


def parse_app(text: bytes, *, source: str) -> AppInfo:
    """Parse package.yaml; raises DataError that names the key and the nearest valid one."""
    return parse_yaml(AppInfo, text, source=source)
