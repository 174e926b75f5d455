"""Package archives: which mirror, and what it would install today."""

import hashlib
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Self
from urllib.parse import unquote, urlsplit

from coreimage.config import ArchiveSettings
from coreimage.errors import (
    CommandError,
    DataError,
    NotFoundError,
)
from coreimage.lib import run
from coreimage.lib.files import require_space, sha256_of
from coreimage.rootfs.archives.complaints import (
    archive_error,
    complaints,
    no_space,
    refuse_missing_components,
    too_slow,
)
from coreimage.rootfs.archives.extra import (
    ExtraArchive,
    definition_archives,
    refuse_conflicts,
)
from coreimage.rootfs.archives.lists import KeptLists, question_of
from coreimage.rootfs.definitions.definition import Selection

_KEYRINGS = {
    "debian": Path("/usr/share/keyrings/debian-archive-keyring.gpg"),
    "ubuntu": Path("/usr/share/keyrings/ubuntu-archive-keyring.gpg"),
}
_TARGET_FILES = "$(REPO_URI)\t$(RELEASE)\t$(FILENAME)"
# Where the main mirror has but these, and a mirror of ports has the others.
_MAIN_ARCHES = {"ubuntu": ("amd64", "i386")}
_INDEX_TARGETS = "$(RELEASE)\t$(REPO_URI)\t$(ORIGIN)\t$(COMPONENT)"
# What Debian's main archive takes, in bytes: its index, and what apt makes of it.
_ROOM_FOR_INDICES = 128 << 20
# With less than this left, in bytes, apt has most likely found no room: it waits for ever then.
_FULL = 4 << 20
# How long indices may take to arrive, in seconds: tens of megabytes, also on a slow line.
_PATIENCE = 1800.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """Where the packages come from: one line of sources.list for each suite, and extras."""

    suite: str
    sources: Sequence[str]
    keyring: Path
    extras: Sequence[ExtraArchive] = ()

    def apt_files(self) -> dict[str, bytes]:
        """Return the files of the extra archives by their path below /etc/apt."""
        return {path: text for extra in self.extras for path, text in extra.apt_files().items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """One package that would be installed; `file` is its name in the archive, at `uri`."""

    name: str
    version: str
    architecture: str
    file: str
    uri: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """One suite of an archive as it was found: the digest and the date of its Release file."""

    uri: str
    suite: str
    sha256: str
    date: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolution:
    """What an archive would install now, and the suites that say so."""

    packages: Sequence[Package]
    suites: Sequence[Suite]

    @property
    def published_at(self) -> datetime:
        """When the newest suite was published."""
        return max(each.date for each in self.suites)

    def digest(self) -> str:
        """Return the sha256 over the packages."""
        lines = sorted(f"{package.file} {package.sha256}" for package in self.packages)
        return hashlib.sha256(json.dumps(lines).encode()).hexdigest()

    def to_json(self) -> str:
        """Return it as JSON."""
        return json.dumps(asdict(self), default=datetime.isoformat)

    @classmethod
    def from_json(cls, text: bytes) -> Self:
        """Parse what `to_json` wrote; raises ValueError, TypeError and KeyError."""
        document = json.loads(text)
        return cls(
            packages=[Package(**each) for each in document["packages"]],
            suites=[
                Suite(**{**each, "date": datetime.fromisoformat(each["date"])})
                for each in document["suites"]
            ],
        )

    @property
    def size(self) -> int:
        """Bytes to download."""
        return sum(package.size for package in self.packages)


def find_archive(
    selection: Selection,
    settings: ArchiveSettings,
    scratch: Path,
    extras: Sequence[ExtraArchive] = (),
) -> Archive:
    """Return the archive for a selection: configured, else the host's own, else the default.

    The definition's own archives are added to `extras`; of two with one name, that of `extras` is
    taken. Raises NotFoundError when the archive's keyring is not on this host, DataError when two
    archives give one suite different keys.
    """
    distribution, release = selection.definition.distribution, selection.release
    keyring = _find_keyring(distribution, settings)
    mirrors = _mirrors(selection, settings, scratch)
    components = " ".join(release.components)
    sources = [
        f"deb [signed-by={keyring}] {mirrors[kind].rstrip('/')} {suite} {components}"
        for kind, suites in (("main", release.suites), ("security", release.security_suites))
        for suite in suites
    ]
    found = _all_extras(selection, keyring, extras, mirrors["main"])
    refuse_conflicts(sources, found)
    return Archive(suite=release.series, sources=sources, keyring=keyring, extras=found)


def _mirrors(selection: Selection, settings: ArchiveSettings, scratch: Path) -> dict[str, str]:
    """Return the mirrors of a selection's architecture: `main` and `security`."""
    distribution, series = selection.definition.distribution, selection.release.series
    ports = selection.arch not in _MAIN_ARCHES.get(distribution, (selection.arch,))
    if ports and settings.ports_mirror:
        return dict.fromkeys(("main", "security"), settings.ports_mirror)
    if settings.mirror:
        return {"main": settings.mirror, "security": settings.security_mirror or settings.mirror}
    # What this machine's apt uses is known to have the main architectures only.
    found = {} if ports else host_mirrors(distribution)
    return found or default_mirrors(series, scratch, selection.arch)


def locked_archive(
    selection: Selection,
    settings: ArchiveSettings,
    sources: Sequence[str],
    extras: Sequence[ExtraArchive] = (),
) -> Archive:
    """Return the archive of an earlier build, whose sources are known; nobody is asked.

    Raises NotFoundError when the archive's keyring is not on this host.
    """
    keyring = _find_keyring(selection.definition.distribution, settings)
    return Archive(
        suite=selection.release.series,
        sources=sources,
        keyring=keyring,
        extras=_all_extras(selection, keyring, extras, _uri(sources[0])),
    )


def _find_keyring(distribution: str, settings: ArchiveSettings) -> Path:
    keyring = settings.keyring or _KEYRINGS[distribution]
    if not keyring.is_file():
        raise NotFoundError(
            f"the archive keyring '{keyring}' is missing",
            hint=f"correct 'keyring' of [archives.{distribution}] in coreimage.toml"
            if settings.keyring
            else f"install the package {keyring.stem}, or set 'keyring' of "
            f"[archives.{distribution}] in coreimage.toml",
        )
    return keyring


def _all_extras(
    selection: Selection, keyring: Path, extras: Sequence[ExtraArchive], mirror: str
) -> list[ExtraArchive]:
    own = definition_archives(selection, keyring)
    components = selection.release.components
    return list(
        {
            each.name: each.from_main(mirror, components, keyring) if each.main_suites else each
            for each in (*own, *extras)
        }.values()
    )


def _uri(source: str) -> str:
    """Return the URI in a line of ours for sources.list."""
    return source.partition("] ")[2].split()[0]


def host_mirrors(distribution: str) -> dict[str, str]:
    """Return the mirrors that this host's own apt uses for itself: `main` and `security`."""
    host = _host_release()
    if host.get("ID") != distribution:
        return {}
    try:
        listed = run.run(
            ["apt-get", "indextargets", "--format", _INDEX_TARGETS, "Created-By: Packages"]
        )
    except CommandError:
        return {}
    text = listed.stdout.decode(errors="replace")
    return mirrors_in_targets(text, distribution, host.get("VERSION_CODENAME", ""))


def mirrors_in_targets(text: str, distribution: str, codename: str) -> dict[str, str]:
    """Return the mirrors in a list of apt's index targets: release, URI, origin, component.

    A vendor's own archive often has the same release names; its origin or its component tells.
    The origin is not known before apt has been updated. Nothing counts that cannot be reached
    from inside of a new system.
    """
    mirrors: dict[str, str] = {}
    kinds = {codename: "main", f"{codename}-security": "security"}
    for line in text.splitlines():
        suite, uri, origin, component = (*line.split("\t"), "", "", "")[:4]
        known = "" if origin.startswith("$") else origin
        if known.lower() not in ("", distribution) or component != "main":
            continue
        if suite in kinds and uri.startswith(("http://", "https://")):
            mirrors.setdefault(kinds[suite], uri.rstrip("/"))
    return {"security": mirrors["main"], **mirrors} if "main" in mirrors else {}


def default_mirrors(series: str, scratch: Path, arch: str) -> dict[str, str]:
    """Return the mirrors that mmdebstrap uses when it is given none: `main` and `security`.

    They are asked of mmdebstrap, which writes a sources.list before it does anything else.
    """
    found = scratch / "default-sources.list"
    # The first hook hands the file out, the second ends the run.
    hooks = [f"--setup-hook=download /etc/apt/sources.list {found.name}", "--setup-hook=exit 1"]
    # Whether programs of the architecture run here does not matter: none is run.
    words = ["--variant=custom", f"--architectures={arch}", "--skip=check/qemu"]
    asked = run.run(["mmdebstrap", *words, *hooks, series, "-"], cwd=scratch, check=False)
    if not found.is_file():
        raise run.failure(asked)
    mirrors = mirrors_in_sources(found.read_text(), series)
    if not mirrors:
        raise NotFoundError(
            f"mmdebstrap knows no mirror for '{series}'",
            hint="set 'mirror' of the distribution's [archives.NAME] in coreimage.toml",
        )
    return mirrors


def mirrors_in_sources(text: str, series: str) -> dict[str, str]:
    """Return the mirrors in the text of a sources.list: `main` and `security`, or nothing."""
    mirrors: dict[str, str] = {}
    for line in text.splitlines():
        kind, _, rest = line.strip().partition(" ")
        words = re.sub(r"^\s*\[[^]]*\]", "", rest).split()
        if kind != "deb" or len(words) < 2:  # noqa: PLR2004  URI, suite
            continue
        security = words[1].startswith(f"{series}-security")
        mirrors.setdefault("security" if security else "main", words[0])
    return {"security": mirrors["main"], **mirrors} if "main" in mirrors else {}


def _host_release() -> dict[str, str]:
    try:
        lines = Path("/etc/os-release").read_text().splitlines()
    except OSError:
        return {}
    return {key: value.strip('"') for key, _, value in (line.partition("=") for line in lines)}


def resolve(
    selection: Selection, archive: Archive, scratch: Path, *, keep: Path | None = None
) -> Resolution:
    """Ask apt what it would install into an empty system; nothing is downloaded but indices.

    In the folder `keep` indices last from run to run; their signatures and dates are checked
    every time. Raises UnavailableError when a mirror cannot be reached, TrustError when the
    signature or the date of any archive is refused, DataError for a suite, a component or a package
    that does not exist, NoSpaceError when there is no room for indices.
    """
    env = {"APT_CONFIG": str(_write_apt_config(selection, archive, scratch)), "LC_ALL": "C.UTF-8"}
    extra = [f"{name}\n{text.decode()}" for name, text in archive.apt_files().items()]
    kept = KeptLists(keep or scratch / "kept", [selection.arch, *archive.sources, *extra])
    lists = scratch / "lists"
    kept.lend(lists)
    _update(selection.definition.name, archive, scratch, env)
    kept.keep(lists)
    # What minbase is to mmdebstrap, and what was asked for.
    wanted = ["?essential", "?priority(required)", "apt", *selection.packages]
    version = run.run(["apt-get", "--version"]).stdout.decode().partition("\n")[0]
    question = question_of(lists, [version, *wanted])
    found = kept.answer(question)
    if found is not None:
        with suppress(ValueError, TypeError, KeyError):
            return Resolution.from_json(found)
    resolution = Resolution(packages=_installed(selection, wanted, env), suites=_suites(lists, env))
    kept.remember(question, resolution.to_json())
    return resolution


def _update(name: str, archive: Archive, scratch: Path, env: Mapping[str, str]) -> None:
    require_space(scratch, _ROOM_FOR_INDICES, purpose="the indices of package archives")
    argv = ["apt-get", "--quiet", "--option", "APT::Update::Error-Mode=any", "update"]
    try:
        updated = run.run(argv, env=env, check=False, timeout=_PATIENCE)
    except CommandError as error:
        if shutil.disk_usage(scratch).free < _FULL:
            raise no_space(name) from error
        raise too_slow(name, _PATIENCE / 60) from error
    said = (updated.stdout + updated.stderr).decode(errors="replace")
    if updated.status:
        raise archive_error(name, said)
    refuse_missing_components(name, said, archive.sources)


def _installed(
    selection: Selection, wanted: Sequence[str], env: Mapping[str, str]
) -> list[Package]:
    try:
        listed = run.run(
            ["apt-get", "--quiet", "--yes", "--print-uris", "install", *wanted], env=env
        )
    except CommandError as error:
        raise DataError(
            f"the packages of '{selection.definition.name}' cannot be installed: "
            + complaints(error.message),
            hint="correct the packages of the definition; 'coreimage rootfs show "
            f"{selection.definition.name}' says which file names each",
        ) from error
    return [_package(line) for line in listed.stdout.decode().splitlines() if line.startswith("'")]


def _suites(lists: Path, env: Mapping[str, str]) -> list[Suite]:
    """Return the suites that apt has lists of, with the Release file that apt has verified."""
    listed = run.run(
        ["apt-get", "indextargets", "--format", _TARGET_FILES, "Created-By: Packages"], env=env
    )
    targets = [line.split("\t") for line in listed.stdout.decode().splitlines()]
    suites = {}
    for path in sorted(lists.glob("*Release"), key=lambda each: len(each.name)):
        stem = str(path).removesuffix("Release").removesuffix("In")
        # An empty suite has no index, and no package is from it; its date counts.
        named = {(uri, suite) for uri, suite, index in targets if index.startswith(stem)}
        for uri, suite in named or {("", path.name)}:
            # Of two archives of which one lies inside of the other, the longer name is nearer.
            suites[uri, suite] = Suite(
                uri=uri, suite=suite, sha256=sha256_of(path), date=_release_date(path)
            )
    return [suites[key] for key in sorted(suites)]


def _write_apt_config(selection: Selection, archive: Archive, scratch: Path) -> Path:
    folders = ("lists/partial", "archives/partial", "parts", "sources.list.d", "preferences.d")
    for name in folders:
        (scratch / name).mkdir(parents=True, exist_ok=True)
    for name, text in archive.apt_files().items():
        (scratch / name).write_bytes(text)
    (scratch / "sources.list").write_text("".join(f"{line}\n" for line in archive.sources))
    options = {
        "Acquire::ForceHash": "SHA256",
        "Acquire::Languages": "none",
        "Acquire::Retries": "3",
        "APT::Architecture": selection.arch,
        "APT::Architectures": selection.arch,
        "APT::Install-Recommends": "false",
        "APT::Sandbox::User": "",
        "Dir::Cache": str(scratch),
        "Dir::Etc::Main": "/dev/null",
        "Dir::Etc::Parts": str(scratch / "parts"),
        "Dir::Etc::Preferences": "/dev/null",
        "Dir::Etc::PreferencesParts": str(scratch / "preferences.d"),
        "Dir::Etc::SourceList": str(scratch / "sources.list"),
        "Dir::Etc::SourceParts": str(scratch / "sources.list.d"),
        "Dir::State::Lists": str(scratch / "lists"),
        "Dir::State::status": "/dev/null",
        "Debug::NoLocking": "true",
    }
    config = scratch / "apt.conf"
    config.write_text("".join(f'{key} "{value}";\n' for key, value in options.items()))
    return config


def _package(line: str) -> Package:
    """Parse a line of --print-uris: 'URI' file size SHA256:digest."""
    quoted, file, size, digest = line.split()
    kind, _, value = digest.partition(":")
    if kind != "SHA256":
        raise DataError(f"apt names no sha256 for {quoted}")
    uri = quoted.strip("'")
    # How apt names it in its cache: name_version_architecture.deb.
    name, version, architecture = file.removesuffix(".deb").split("_")
    return Package(
        name=name,
        version=unquote(version),
        architecture=architecture,
        file=unquote(urlsplit(uri).path.rsplit("/", 1)[-1]),
        uri=uri,
        size=int(size),
        sha256=value,
    )


def _release_date(path: Path) -> datetime:
    for line in path.read_text(errors="replace").splitlines():
        key, _, value = line.partition(":")
        if key == "Date":
            with suppress(ValueError):
                date = parsedate_to_datetime(value.strip())
                return date.replace(tzinfo=date.tzinfo or UTC).astimezone(UTC)
    raise DataError(f"'{path.name}' of the archive has no date")
