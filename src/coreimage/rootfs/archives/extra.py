"""Extra archives: further sources of packages, each trusted by its own key only.

They come from archives/ of a definition, from coreimage.toml, and as OWNER/NAME from a mirror of
Launchpad's personal package archives (PPAs). Each becomes a deb822 source with the key inside
(sources.list(5), "Signed-By"), so that nothing of the build host's paths gets into a tree.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from debian.deb822 import Deb822

from coreimage.config import ArchiveSettings, ExtraArchiveSettings
from coreimage.errors import ConfigError, DataError, NotFoundError, TrustError, UsageError
from coreimage.lib import openpgp
from coreimage.lib.files import read_text
from coreimage.rootfs.archives.pins import PRIORITY_HINT, is_priority, read_pins
from coreimage.rootfs.definitions.definition import Selection

_PPA = re.compile(r"([a-z0-9][a-z0-9.+-]*)/([a-z0-9][a-z0-9.+_-]*)")
# Whatever weakens what apt checks is not among them.
_FIELDS = ("Types", "URIs", "Suites", "Components", "Architectures", "Languages", "Enabled")
_OPTIONS = {"arch": "Architectures", "lang": "Languages"}
_LEAST_WORDS = 2
# What apt takes for no (apt.conf(5)).
_OFF = ("no", "false", "without", "off", "disable", "0")


PROPOSED = "proposed"
"""The name of the suites that a release tries its updates in, unless coreimage.toml has it."""

# Of its own accord apt may take nothing from there.
_PROPOSED_PIN = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtraArchive:
    """An archive as apt reads it: deb822 text with the key inside, and pins; each may be empty.

    `main_suites` are further suites of the main mirror, whose sources are not known yet.
    """

    name: str
    sources: str
    preferences: str = ""
    keys: Sequence[str] = ()
    main_suites: Sequence[str] = ()

    def apt_files(self) -> dict[str, bytes]:
        """Return the files of the archive by their path below /etc/apt."""
        named = {
            f"sources.list.d/coreimage-{self.name}.sources": self.sources,
            f"preferences.d/coreimage-{self.name}.pref": self.preferences,
        }
        return {path: text.encode() for path, text in named.items() if text}

    def from_main(self, mirror: str, components: Sequence[str], keyring: Path) -> Self:
        """Return it with its suites at the main mirror, trusted by the key of that."""
        keys = read_key(keyring)
        stanza = {
            "Types": "deb",
            "URIs": mirror,
            "Suites": " ".join(self.main_suites),
            "Components": " ".join(components),
        }
        return replace(self, sources=_sources([stanza], keys), keys=keys.fingerprints)


def refuse_conflicts(sources: Sequence[str], extras: Sequence[ExtraArchive]) -> None:
    """Raise DataError for archives that give one suite of one address different keys.

    `sources` are the lines of the main archive. apt would read no archive at all.
    """
    seen = {}
    for line in sources:
        options, _, rest = line.partition("] ")
        uri, suite = rest.split()[:2]
        seen[uri.rstrip("/"), suite] = ("the distribution's archive", options)
    for extra in extras:
        for stanza in Deb822.iter_paragraphs(extra.sources, use_apt_pkg=False):
            if stanza.get("Enabled", "").lower() in _OFF:
                continue
            for uri, suite in product(stanza["URIs"].split(), stanza["Suites"].split()):
                this = (f"extra archive '{extra.name}'", stanza["Signed-By"])
                other = seen.setdefault((uri.rstrip("/"), suite), this)
                if other[1] != this[1]:
                    raise DataError(
                        f"{other[0]} and {this[0]} are both suite '{suite}' of '{uri}', "
                        "with different keys",
                        hint="leave one of them out, or give both the same key",
                    )


def definition_archives(selection: Selection, keyring: Path) -> list[ExtraArchive]:
    """Return the archives of a definition; those without a key must be signed by `keyring`'s.

    Raises DataError with file and line.
    """
    files = selection.files("archives")
    names = sorted({name.removesuffix(".chroot").rpartition(".")[0] for name in files})
    return [_definition_archive(name, files, keyring) for name in names]


def _definition_archive(name: str, files: Mapping[str, Path], keyring: Path) -> ExtraArchive:
    part = {kind: files.get(f"{name}.{kind}.chroot") for kind in ("list", "sources", "key", "pref")}
    key = part["key"]
    stanzas = []
    if part["list"]:
        stanzas += _parse_list(part["list"])
    if part["sources"]:
        stanzas += _parse_sources(part["sources"])
    if not stanzas:
        if key:
            raise DataError(
                f"'{key}' is the key of no archive",
                hint=f"write {name}.list.chroot or {name}.sources.chroot beside it",
            )
        keys, sources = Keys.none(), ""
    else:
        keys = read_key(key or keyring)
        sources = _sources(stanzas, keys)
    preferences = read_pins(part["pref"]) if part["pref"] else ""
    return ExtraArchive(
        name=name.replace("/", "-"),
        sources=sources,
        preferences=preferences,
        keys=keys.fingerprints,
    )


def named_archives(
    names: Sequence[str],
    selection: Selection,
    *,
    settings: ArchiveSettings,
    configured: Mapping[str, ExtraArchiveSettings],
    root: Path,
) -> list[ExtraArchive]:
    """Return archives by name: NAME[:PIN] of coreimage.toml, or OWNER/NAME[:PIN] for a PPA.

    PROPOSED stands for the suites in which the release tries its updates.
    `root` is the workspace, to which paths of the configuration are relative. Raises ConfigError,
    NotFoundError, TrustError and UsageError.
    """
    return [_named(each, selection, settings, configured, root) for each in dict.fromkeys(names)]


def _named(
    text: str,
    selection: Selection,
    settings: ArchiveSettings,
    configured: Mapping[str, ExtraArchiveSettings],
    root: Path,
) -> ExtraArchive:
    name, _, pin = text.partition(":")
    if pin and not is_priority(pin):
        raise UsageError(
            f"'{pin}' of extra archive '{text}' is no pin priority",
            hint=f"as in OWNER/NAME:PRIORITY, {PRIORITY_HINT}",
        )
    if "/" in name:
        found = _ppa(name, selection, settings, root)
    elif name in configured:
        found = configured[name]
    elif name == PROPOSED:
        return _proposed(selection, int(pin) if pin else _PROPOSED_PIN)
    else:
        raise NotFoundError(
            f"there is no extra archive '{name}'",
            hint="those of coreimage.toml are " + ", ".join(sorted(configured))
            if configured
            else f"describe it in [extra_archives.{name}] of coreimage.toml, or name a PPA as "
            "OWNER/NAME",
        )
    keys = read_key(root / found.keyring)
    series = selection.release.series
    stanza = {
        "Types": "deb",
        "URIs": found.uri,
        "Suites": " ".join(suite.replace("{series}", series) for suite in found.suites),
    }
    if found.components:
        stanza["Components"] = " ".join(found.components)
    return ExtraArchive(
        name=name.replace("/", "-"),
        sources=_sources([stanza], keys),
        preferences=_pin(found, int(pin) if pin else found.pin),
        keys=keys.fingerprints,
    )


def _proposed(selection: Selection, priority: int) -> ExtraArchive:
    suites = selection.release.proposed_suites
    if not suites:
        name = selection.definition.name
        raise ConfigError(
            f"release {selection.release_name} of '{name}' has no proposed updates",
            hint="name their suites as its 'proposed_suites' in definition.toml, or describe "
            f"[extra_archives.{PROPOSED}] in coreimage.toml",
        )
    # Ubuntu names these suites in the field Suite of their Release file, Debian in Codename.
    which = [f"release {field}={suite}" for suite in suites for field in "an"]
    return ExtraArchive(
        name=PROPOSED,
        sources="",
        preferences="\n".join(
            f"Package: *\nPin: {each}\nPin-Priority: {priority}\n" for each in which
        ),
        main_suites=suites,
    )


def _ppa(
    name: str, selection: Selection, settings: ArchiveSettings, root: Path
) -> ExtraArchiveSettings:
    words = _PPA.fullmatch(name)
    if words is None:
        raise UsageError(
            f"'{name}' does not name a PPA", hint="write OWNER/NAME in small letters and digits"
        )
    table = f"[archives.{selection.definition.distribution}]"
    if settings.ppa_mirror is None:
        raise ConfigError(
            f"extra archive '{name}' is a PPA, and {table} of coreimage.toml has no 'ppa_mirror'",
            hint=f'add ppa_mirror = "http://ppa.example" to {table}: the server that has PPAs',
        )
    if settings.ppa_keyrings is None:
        raise ConfigError(
            f"extra archive '{name}' is a PPA, and {table} of coreimage.toml has no 'ppa_keyrings'",
            hint="set it to a folder, and keep the PPA's signing key there as "
            f"{name.replace('/', '-')}.asc",
        )
    stem = name.replace("/", "-")
    keys = [settings.ppa_keyrings / f"{stem}{ending}" for ending in (".gpg", ".asc")]
    return ExtraArchiveSettings(
        uri=f"{settings.ppa_mirror.rstrip('/')}/{name}/ubuntu",
        suites=["{series}"],
        components=["main"],
        keyring=next((each for each in keys if (root / each).exists()), keys[-1]),
        origin=f"LP-PPA-{stem}",
    )


def _pin(settings: ExtraArchiveSettings, priority: int | None) -> str:
    if priority is None:
        return ""
    if settings.origin is not None:
        which = f"release o={settings.origin}"
    else:
        which = f'origin "{urlsplit(settings.uri).hostname or ""}"'
    return f"Package: *\nPin: {which}\nPin-Priority: {priority}\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """An armoured block of public keys, and the fingerprints of the primary ones."""

    armoured: str
    fingerprints: Sequence[str]

    @classmethod
    def none(cls) -> "Keys":
        """Return the keys of what needs none."""
        return cls(armoured="", fingerprints=())


def read_key(path: Path) -> Keys:
    """Read public keys, armoured or binary; raises NotFoundError and TrustError."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise NotFoundError(
            f"the signing key '{path}' cannot be read: {error.strerror}",
            hint="save the archive's public key there, armoured or binary",
        ) from error
    binary = openpgp.dearmor(data, name=str(path))
    fingerprints = openpgp.keys_of(binary, name=str(path)).primary
    if not fingerprints:
        raise TrustError(f"'{path}' holds no public key", hint="export it with 'gpg --export'")
    return Keys(armoured=openpgp.armor(binary), fingerprints=fingerprints)


def _sources(stanzas: Sequence[Mapping[str, str]], keys: Keys) -> str:
    """Return deb822 text; within a field, an empty line is written as a dot."""
    key = "".join(f" {line or '.'}\n" for line in keys.armoured.splitlines())
    return "\n".join(
        "".join(f"{name}: {value}\n" for name, value in stanza.items()) + f"Signed-By:\n{key}"
        for stanza in stanzas
    )


def _parse_list(path: Path) -> list[dict[str, str]]:
    """Return the lines of a sources.list(5) in the one-line style as stanzas."""
    stanzas = []
    for number, text in enumerate(read_text(path).splitlines(), 1):
        line = text.partition("#")[0].strip()
        if not line or line.split()[0] == "deb-src":
            continue
        found = re.fullmatch(r"deb\s+(?:\[([^\]]*)\]\s+)?(.+)", line)
        words = found.group(2).split() if found else []
        flat = len(words) == _LEAST_WORDS and words[1].endswith("/")
        if found is None or (len(words) <= _LEAST_WORDS and not flat):
            raise DataError(
                f"{path}:{number}: '{line}' is not a line of a sources.list",
                hint="write: deb URI SUITE COMPONENT…",
            )
        stanza = {"Types": "deb", "URIs": words[0], "Suites": words[1]}
        if not flat:
            stanza["Components"] = " ".join(words[2:])
        for option in (found.group(1) or "").split():
            key, _, value = option.partition("=")
            if key not in _OPTIONS:
                raise _refused(f"{path}:{number}", key, path, ".list", list(_OPTIONS))
            stanza[_OPTIONS[key]] = value.replace(",", " ")
        stanzas.append(stanza)
    return stanzas


def _parse_sources(path: Path) -> list[dict[str, str]]:
    """Return the stanzas of a sources.list(5) in the deb822 style."""
    stanzas = []
    for paragraph in Deb822.iter_paragraphs(read_text(path), use_apt_pkg=False):
        names = {name.lower(): name for name in _FIELDS}
        stanza = {}
        for key, value in paragraph.items():
            if key.lower() not in names:
                raise _refused(str(path), key, path, ".sources", list(_FIELDS))
            stanza[names[key.lower()]] = " ".join(value.split())
        for name in ("URIs", "Suites"):
            if not stanza.get(name):
                raise DataError(f"{path}: an archive has no '{name}'", hint=f"write '{name}: …'")
        if "deb" not in stanza.get("Types", "deb").split():
            continue
        stanzas.append({"Types": "deb", **{k: v for k, v in stanza.items() if k != "Types"}})
    return stanzas


def _refused(place: str, key: str, path: Path, ending: str, allowed: Sequence[str]) -> DataError:
    if key.lower() == "signed-by":
        beside = path.name.replace(f"{ending}.chroot", ".key.chroot")
        return DataError(
            f"{place}: '{key}' names a file of the build host", hint=f"put the key in '{beside}'"
        )
    return DataError(
        f"{place}: '{key}' cannot be set for an archive",
        hint="an archive must be signed and fresh; what can be set is " + ", ".join(allowed),
    )
