"""All that a machine has of its own beside who may log in, and what an image needs for that."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from coreimage.errors import DataError, UsageError
from coreimage.flasher.own.app import AppPackage
from coreimage.flasher.own.cloudinit import SEED
from coreimage.flasher.own.network import NetworkFile
from coreimage.flasher.provision import HOME, Access
from coreimage.flasher.tree.staging import Kind, Staging
from coreimage.lib.fetch import open_regular

_NETWORKS = f"{HOME}/network"
_CREDSTORE = "system-data/etc/credstore"
_WRITABLE = "etc/writable"
_LINKS = {
    "units": "usr/local/lib/systemd/system",
    "network": "usr/local/lib/systemd/network",
}
# Source: RFC 1123, section 2.1; the length is that of Linux.
_HOSTNAME = re.compile(r"(?=.{1,64}\Z)(?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)(?:\.[a-z0-9-]+)*\Z")
_CREDENTIAL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,200}\Z")
# Source: systemd's CREDENTIALS_TOTAL_SIZE_MAX.
_MAX_CREDENTIAL = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Own:
    """What is put on `writable` of one disk alone; `credentials` are by their names."""

    apps: Sequence[AppPackage] = ()
    hostname: str = ""
    networks: Sequence[NetworkFile] = ()
    credentials: Mapping[str, bytes] = field(default_factory=dict)
    user_data: str = ""

    @property
    def nothing(self) -> bool:
        """Whether it is as all others."""
        return not (
            self.apps or self.hostname or self.networks or self.credentials or self.user_data
        )

    def facts(self) -> dict[str, object]:
        """Return what identifies it, for identifiers derived from it: digests, no secrets."""
        return {
            "apps": [[each.label, each.digest] for each in self.apps],
            "hostname": self.hostname,
            "networks": [[each.name, each.text] for each in self.networks],
            "credentials": {name: _sha256(value) for name, value in self.credentials.items()},
            "user-data": _sha256(self.user_data.encode()),
        }

    def install(self, writable: Staging, system: Staging) -> None:
        """Put everything into the tree of `writable`, for the system that will mount it."""
        for app in self.apps:
            app.install(writable)
        for network in self.networks:
            writable.put_file(f"{_NETWORKS}/{network.name}", network.text.encode())
        if self.credentials:
            writable.put_directory(_CREDSTORE, mode=0o700)
        for name, value in sorted(self.credentials.items()):
            writable.put_file(f"{_CREDSTORE}/{name}", value, mode=0o600)
        if self.user_data:
            self._install_user_data(writable)
        if self.hostname:
            _copy(system, writable, _WRITABLE)
            text = f"{self.hostname}\n".encode()
            writable.put_file(f"system-data/{_WRITABLE}/hostname", text)

    def _install_user_data(self, writable: Staging) -> None:
        instance = _sha256(repr(sorted(self.facts().items())).encode())[:16]
        name = f"local-hostname: {self.hostname}\n" if self.hostname else ""
        writable.put_directory(SEED, mode=0o700)
        writable.put_file(f"{SEED}/user-data", self.user_data.encode(), mode=0o600)
        meta = f"instance-id: coreimage-{instance}\n{name}"
        writable.put_file(f"{SEED}/meta-data", meta.encode(), mode=0o600)


NOTHING_OWN = Own()


def check_support(own: Own, access: Access, system: Staging) -> None:
    """Raise DataError when the image would not look at what is put on `writable`."""
    services = any(app.info.services for app in own.apps)
    for wanted, option, kind in (
        (services, "--install with services", "units"),
        (bool(own.networks), "--network", "network"),
    ):
        if wanted and not _links_to(system, _LINKS[kind], f"/var/lib/coreimage/{kind}"):
            raise _unsupported(option)
    if access.others and not system.has("usr/lib/coreimage/users"):
        raise _unsupported("--user")
    if own.hostname and not system.has(f"{_WRITABLE}/hostname"):
        raise _unsupported("--hostname")
    paths = _writable_paths(system)
    if own.credentials and "/etc/credstore" not in paths:
        raise _unsupported("--credential")
    if own.user_data and not (system.has("usr/bin/cloud-init") and "/var/lib/cloud" in paths):
        raise DataError(
            "the image has no cloud-init that could read the user data",
            hint="give what its services take as systemd credentials, with --credential NAME=FILE,"
            " or build an image with cloud-init and /var/lib/cloud in its writable paths",
        )


def check_hostname(name: str) -> str:
    """Return a host name; raises UsageError for what is none."""
    if not _HOSTNAME.match(name):
        raise UsageError(
            f"'{name}' is no host name", hint="letters a to z, digits and hyphens, at most 64"
        )
    return name


def read_credential(spec: str) -> tuple[str, bytes]:
    """Read NAME=FILE; raises UsageError or DataError."""
    name, sign, path = spec.partition("=")
    if not sign or not _CREDENTIAL.match(name):
        raise UsageError(f"'{spec}' is no credential", hint="give NAME=FILE")
    with open_regular(Path(path)) as file:
        content = file.read(_MAX_CREDENTIAL + 1)
    if len(content) > _MAX_CREDENTIAL:
        raise DataError(f"'{path}' is too large for a credential")
    return name, content


def _unsupported(option: str) -> DataError:
    return DataError(
        f"the image does not know what to do with {option}",
        hint="build it from a definition that extends a newer debian-core",
    )


def _links_to(system: Staging, path: str, target: str) -> bool:
    entry = system.entries.get(path)
    return entry is not None and entry.kind is Kind.SYMLINK and entry.target == target


def _writable_paths(system: Staging) -> set[str]:
    path = "etc/system-image/writable-paths"
    if not system.has(path):
        return set()
    lines = system.file(path).read_text(errors="replace").splitlines()
    return {line.split()[0] for line in lines if line.split()}


def _copy(system: Staging, writable: Staging, folder: str) -> None:
    """Copy a folder as the image's first start would: a folder that exists is not completed."""
    for path, entry in system.entries.items():
        if path != folder and not path.startswith(f"{folder}/"):
            continue
        target = f"system-data/{path}"
        if entry.kind is Kind.DIRECTORY:
            writable.put_directory(target, mode=entry.mode, mtime=entry.mtime)
        elif entry.kind is Kind.SYMLINK:
            writable.put_symlink(target, entry.target, mtime=entry.mtime)
        else:
            with (system.root / path).open("rb") as content:
                writable.put_file(target, content, mode=entry.mode, mtime=entry.mtime)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
