"""The workspace: where everything lies, and its coreimage.toml as validated settings."""

import difflib
import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    ValidationError,
    model_validator,
)

from coreimage.errors import ConfigError, NotFoundError
from coreimage.feeds import ChannelSettings, Strict
from coreimage.lib.tomltext import SYNTAX_HINT, place_of, syntax_complaint
from coreimage.model.build import ARCH_WORD, PIN_PRIORITIES, Subproject

CONFIG_NAME = "coreimage.toml"
_MAX_PORT = 65535


class ArchiveSettings(Strict):
    """A distribution's package archive, where it is not the host's own or the tool's default."""

    mirror: str | None = None
    security_mirror: str | None = None
    ports_mirror: str | None = None
    keyring: Path | None = None
    ppa_mirror: str | None = None
    ppa_keyrings: Path | None = None


def _check_priority(value: int) -> int:
    if value == 0 or value not in PIN_PRIORITIES:
        first, last = PIN_PRIORITIES[0], PIN_PRIORITIES[-1]
        raise ValueError(f"expected a priority from {first} to {last} that is not 0")
    return value


_Priority = Annotated[int, AfterValidator(_check_priority)]


class ExtraArchiveSettings(Strict):
    """A signed archive that builds may add to their own; `{series}` of a suite is replaced."""

    uri: str
    suites: Sequence[str] = Field(default=("{series}",), min_length=1)
    components: Sequence[str] = ("main",)
    keyring: Path
    pin: _Priority | None = None
    origin: str | None = None


def _check_port(value: Any) -> Any:
    if value == "disabled" or (type(value) is int and 1 <= value <= _MAX_PORT):
        return value
    raise ValueError("expected a port from 1 to 65535, or 'disabled'")


def _check_arch(word: str) -> str:
    if re.fullmatch(ARCH_WORD, word) is None:
        raise ValueError("expected an architecture as in 'armhf', or its device as in 'armhf+box'")
    return word


_Port = Annotated[int | Literal["disabled"], BeforeValidator(_check_port)]
_Arch = Annotated[str, AfterValidator(_check_arch)]


class ScheduleSettings(Strict):
    """What is built by itself, and when; `cron` has five fields and means UTC."""

    project: str
    release: str | None = None
    arches: Sequence[_Arch] = ()
    subproject: Subproject | None = None
    cron: str | None = None
    when_changed: bool = False
    force: bool = False
    channel: str | None = None
    extra_archives: Sequence[str] = ()

    @model_validator(mode="after")
    def _has_a_reason(self) -> Self:
        if self.cron is None and not self.when_changed:
            raise ValueError("neither 'cron' nor 'when_changed = true' says when")
        return self


class SigningSettings(Strict):
    """Where the private key of a level is when it is not in the workspace: one of the three.

    `command` gets the file as standard input and answers with an armoured detached signature; its
    words {file} {level} {purpose} {key} {channel} {device} are replaced. `home` is a GnuPG home.
    """

    command: Sequence[str] = ()
    home: Path | None = None
    offline: bool = False

    @model_validator(mode="after")
    def _is_in_one_place(self) -> Self:
        if [bool(self.command), self.home is not None, self.offline].count(True) > 1:
            raise ValueError("'command', 'home' and 'offline' exclude each other")
        return self


class ServeSettings(Strict):
    """Where `coreimage serve` listens."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=_MAX_PORT)] = 8080


class FarmSettings(Strict):
    """How builds are carried out: how many at once, and what happens when the machine fails them.

    Times are in seconds; the delay doubles with each retry.
    """

    parallel: int = Field(default=2, ge=1, le=64)
    retries: int = Field(default=2, ge=0, le=20)
    retry_delay: int = Field(default=10, ge=0, le=86400)
    abort_grace: int = Field(default=20, ge=0, le=3600)


class CompressionSettings(Strict):
    """Levels: higher is smaller and slower."""

    gzip: int = Field(default=1, ge=1, le=9)
    xz: int = Field(default=1, ge=0, le=9)


class CacheSettings(Strict):
    """How much of each kind is kept in cache/, in GiB; 0 keeps nothing."""

    packages_gib: float = Field(default=4.0, ge=0)
    stages_gib: float = Field(default=4.0, ge=0)
    images_gib: float = Field(default=2.0, ge=0)


class TreeSettings(Strict):
    """How long the channel tree's metadata is valid, and how long what it replaced is kept."""

    expiry_days: Annotated[int, Field(ge=1, le=3650)] = 30
    grace_days: Annotated[int, Field(ge=0, le=3650)] = 7


_Level = Literal["archive-master", "image-master", "image-signing", "device-signing"]


class PublicServer(Strict):
    """What version tarballs tell devices about the server that they are to ask."""

    host: str = "system-image.example"
    http_port: _Port = 80
    https_port: _Port = 443


class Settings(Strict):
    """The whole of coreimage.toml."""

    archives: Mapping[str, ArchiveSettings] = Field(default_factory=dict)
    extra_archives: Mapping[str, ExtraArchiveSettings] = Field(default_factory=dict)
    cache: CacheSettings = CacheSettings()
    channels: Mapping[str, ChannelSettings] = Field(default_factory=dict)
    compression: CompressionSettings = CompressionSettings()
    farm: FarmSettings = FarmSettings()
    schedules: Mapping[str, ScheduleSettings] = Field(default_factory=dict)
    serve: ServeSettings = ServeSettings()
    server: PublicServer = PublicServer()
    signing: Mapping[_Level, SigningSettings] = Field(default_factory=dict)
    tree: TreeSettings = TreeSettings()


@dataclass(frozen=True, slots=True, kw_only=True)
class Workspace:
    """Paths of a workspace and its settings."""

    root: Path
    settings: Settings

    @property
    def state(self) -> Path:
        """The database and the locks."""
        return self.root / "state"

    @property
    def gpg_home(self) -> Path:
        """The private keys."""
        return self.root / "secret/gpg"

    @property
    def builds(self) -> Path:
        """One directory for each build."""
        return self.root / "builds"

    @property
    def publications(self) -> Path:
        """The publication tree."""
        return self.root / "www/cdimage"

    @property
    def channel_tree(self) -> Path:
        """The channel tree."""
        return self.root / "www/system-image"

    @property
    def cache(self) -> Path:
        """What can be deleted at any time."""
        return self.root / "cache"

    @property
    def archive_master(self) -> Path:
        """The pinned root of trust for clients: a keyring tarball outside the served tree."""
        return self.root / "trust/archive-master.tar.xz"

    def place(self, *where: str | int) -> str:
        """Return file and line of a key of coreimage.toml, for complaints about its value."""
        path = self.root / CONFIG_NAME
        try:
            return place_of(path, path.read_text(encoding="utf-8"), where)
        except (OSError, UnicodeDecodeError):
            return str(path)


def find_root(start: Path, explicit: Path | None = None) -> Path:
    """Return the root of a workspace: the one named, else the nearest above `start`.

    A folder counts when it holds coreimage.toml, or holds a folder `workspace` that does.
    """
    if explicit is not None:
        if not (explicit / CONFIG_NAME).is_file():
            raise NotFoundError(
                f"'{explicit}' is not a workspace: it has no {CONFIG_NAME}",
                hint=f"make one with 'coreimage init {explicit}'",
            )
        return explicit.resolve()
    for folder in (start.resolve(), *start.resolve().parents):
        for root in (folder, folder / "workspace"):
            if (root / CONFIG_NAME).is_file():
                return root
    raise NotFoundError(
        f"there is no workspace in '{start}' or above it",
        hint="make one with 'coreimage init DIR', or name one with --workspace DIR",
    )


def load_workspace(root: Path) -> Workspace:
    """Read coreimage.toml of a workspace; raises ConfigError."""
    return Workspace(root=root, settings=load_settings(root / CONFIG_NAME))


def load_settings(path: Path) -> Settings:
    """Read and check a coreimage.toml.

    Raises ConfigError with file, line and key, and the nearest valid key as hint.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error
    try:
        return Settings.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        line, message = syntax_complaint(text, error)
        raise ConfigError(f"{path}:{line}: {message}", hint=SYNTAX_HINT) from error
    except ValidationError as error:
        first = error.errors()[0]
        message, hint = complaint(Settings, first)
        place = place_of(path, text, _written(Settings, first))
        raise ConfigError(f"{place}: {message}", hint=hint) from error


def complaint(model: type[BaseModel], first: Mapping[str, Any]) -> tuple[str, str]:
    """Return one of pydantic's errors, with key and value, and a hint."""
    where = ".".join(str(part) for part in _written(model, first))
    value = first["input"]
    found = f" is {value!r}" if isinstance(value, str | int | float) else ""
    if first["type"] == "extra_forbidden":
        return f"'{where}' is not a key", nearest_key(model, first["loc"])
    if first["type"].startswith("union_tag_"):
        return _tag_complaint(where, first["ctx"], _walk(model, first["loc"])[1])
    if first["type"] == "sequence_str" or first.get("ctx", {}).get("class") == "Sequence":
        return f"'{where}'{found}: expected a list", _in_brackets(value)
    return f"'{where}'{found}: {first['msg'].lower()}", ""


def _in_brackets(value: object) -> str:
    if isinstance(value, str | int | float):
        return f"write it in brackets: [{json.dumps(value)}]"
    return "write it in brackets"


def _tag_complaint(where: str, context: Mapping[str, str], known: Sequence[str]) -> tuple[str, str]:
    """Return the complaint about the key that decides which other keys there are."""
    tag = context.get("tag")
    if tag is None:
        return f"'{where}' has no '{_deciding(context)}'", f"give it one of {', '.join(known)}"
    return f"'{where}' is '{tag}', which there is not", nearest(tag, known, "there are")


def _deciding(context: Mapping[str, str]) -> str:
    return context["discriminator"].strip("'")


def _written(model: type[BaseModel], first: Mapping[str, Any]) -> list[int | str]:
    """Return the keys that lead to what one of pydantic's errors is about, as they are written."""
    keys = _walk(model, first["loc"])[0]
    if first["type"] == "union_tag_invalid":
        return [*keys, _deciding(first["ctx"])]
    return keys


def nearest_key(model: type[BaseModel], where: tuple[int | str, ...]) -> str:
    """Return a hint with the valid key that looks most like the one that was refused."""
    names = _walk(model, where[:-1])[1]
    return nearest(str(where[-1]) if where else "", names, "the keys here are")


def nearest(word: str, names: Sequence[str], lead: str) -> str:
    """Return a hint with the name that looks most like a word, or with all after `lead`."""
    close = difflib.get_close_matches(word, names, n=1)
    if close:
        return f"did you mean '{close[0]}'?"
    return f"{lead} " + ", ".join(names) if names else ""


def _walk(model: Any, where: tuple[int | str, ...]) -> tuple[list[int | str], list[str]]:
    """Follow pydantic's path into a model: return the keys that are written, and those valid there.

    Between them, pydantic names the tag of a table that is one of several kinds.
    """
    schema: dict[str, Any] = model.model_json_schema()
    node, keys = schema, list[int | str]()
    for part in where:
        mapping = node.get("discriminator", {}).get("mapping", {})
        if part in mapping:
            node = {"$ref": mapping[part]}
        else:
            keys.append(part)
            node = _inside(node, part)
        if "$ref" in node:
            node = schema["$defs"][node["$ref"].rsplit("/", 1)[-1]]
    return keys, sorted(node.get("properties") or node.get("discriminator", {}).get("mapping", {}))


def _inside(node: Mapping[str, Any], part: int | str) -> dict[str, Any]:
    """Return the schema of a key or of an element; an empty one when it is not known."""
    if part in node.get("properties", {}):
        return dict(node["properties"][part])
    for pattern, found in node.get("patternProperties", {}).items():
        if isinstance(part, str) and re.search(pattern, part):
            return dict(found)
    inner = node.get("items" if isinstance(part, int) else "additionalProperties")
    return dict(inner) if isinstance(inner, dict) else {}
