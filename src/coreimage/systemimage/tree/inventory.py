"""Inventory: whether everything that the tree names is there, and is what it was."""

from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from coreimage.config import Workspace
from coreimage.errors import DataError, TrustError
from coreimage.lib import files, trust
from coreimage.lib.progress import Progress
from coreimage.model.keyring import KeyringType
from coreimage.systemimage.tree import contents, layout
from coreimage.systemimage.tree.contents import Entry, Named


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that is wrong with a file, by its path in the tree, and who names it."""

    path: str
    problem: str
    named_by: str


def find_missing(
    workspace: Workspace, *, now: datetime, deep: bool = False, progress: Progress
) -> list[Finding]:
    """Return what the live states name and the tree lacks: indexes, files, signatures, keyrings.

    `deep` also reads every file, compares it with its digest and, for what the current state
    names, verifies its signature as a client would.
    """
    grace = timedelta(days=workspace.settings.tree.grace_days)
    live = contents.live_states(workspace, now=now, grace=grace)
    search = _Search(workspace, deep=deep, progress=progress)
    for state in reversed(live):  # the current one first: what it names is what counts
        search.look_at(state)
    if deep and live:
        search.verify(live[-1], now=now)
    return search.found


class _Search:
    def __init__(self, workspace: Workspace, *, deep: bool, progress: Progress) -> None:
        self._workspace = workspace
        self._deep = deep
        self._progress = progress
        self._seen: set[str] = set()
        self.found: list[Finding] = []

    def look_at(self, state: layout.State) -> None:
        """Look for everything that a state names and that was not looked for before."""
        where = f"state {state.serial}"
        for name in ("channels.json", *_keyrings(state.path)):
            self._require(state.path / name, f"/states/{state.serial}/{name}", where)
        for entry in contents.entries(state):
            by = f"{where}: {entry.device} in {entry.channel}"
            if entry.keyring and self._is_new(entry.keyring):
                self._require(self._local(entry.keyring), entry.keyring, by)
            if self._is_new(entry.index) and self._require(
                self._local(entry.index), entry.index, by
            ):
                self._look_into(entry.index)

    def _look_into(self, index: str) -> None:
        try:
            for file in contents.named_files(self._local(index)):
                if self._is_new(file.path) and self._require(
                    self._local(file.path), file.path, index
                ):
                    self._compare(file, index)
        except DataError as error:
            self._add(index, error.message, index)

    def _compare(self, file: Named, index: str) -> None:
        path = self._local(file.path)
        size = path.stat().st_size
        if size != file.size:
            self._add(file.path, f"has {size} bytes, not {file.size}", index)
        elif self._deep:
            with self._progress.task(f"checking {file.path}", size) as task:
                digest = files.sha256_of(path)
                task.advance(size)
            if digest != file.checksum:
                self._add(file.path, f"has the sha256 {digest}, not {file.checksum}", index)

    def _is_new(self, path: str) -> bool:
        new = path not in self._seen
        self._seen.add(path)
        return new

    def _require(self, path: Path, name: str, by: str) -> bool:
        there = path.is_file()
        if not there:
            self._add(name, "is missing", by)
        if not Path(f"{path}.asc").is_file():
            self._add(f"{name}.asc", "is missing", by)
        return there

    def _local(self, path: str) -> Path:
        return layout.local_path(self._workspace, path)

    def _add(self, path: str, problem: str, by: str) -> None:
        self.found.append(Finding(path=path, problem=problem, named_by=by))

    def verify(self, state: layout.State, *, now: datetime) -> None:
        """Verify the signatures of everything that the current state names, as clients would."""
        try:
            with layout.open_chain(self._workspace, now=now) as common:
                level = KeyringType.IMAGE_SIGNING
                self._verify(common, "/state/channels.json", level, f"state {state.serial}")
                verified: set[str] = set()
                for entry in contents.entries(state):
                    self._verify_entry(entry, common, verified, now)
        except TrustError as error:
            self._add("/gpg", error.message, f"state {state.serial}")

    def _verify_entry(
        self, entry: Entry, common: trust.Chain, verified: set[str], now: datetime
    ) -> None:
        with ExitStack() as stack:
            chain = common
            if entry.keyring:
                chain = stack.enter_context(layout.open_chain(self._workspace, now=now))
                tarball = self._local(entry.keyring)
                try:
                    chain.add_device_signing(tarball, Path(f"{tarball}.asc"), entry.device)
                except TrustError as error:
                    self._add(entry.keyring, error.message, f"{entry.device} in {entry.channel}")
            for path in {entry.index: None, **dict.fromkeys(self._names(entry.index))}:
                if entry.keyring or path not in verified:
                    self._verify(chain, path, chain.payload_level, entry.index)
                if not entry.keyring:
                    verified.add(path)

    def _names(self, index: str) -> list[str]:
        try:
            return [file.path for file in contents.named_files(self._local(index))]
        except (OSError, DataError):
            return []  # found already

    def _verify(self, chain: trust.Chain, path: str, level: KeyringType, by: str) -> None:
        local = self._local(path)
        signature = Path(f"{local}.asc")
        if local.is_file() and signature.is_file():
            try:
                chain.verify(local, signature, level=level, what=path)
            except TrustError as error:
                self._add(path, error.message, by)


def _keyrings(state: Path) -> list[str]:
    return sorted(f"gpg/{path.name}" for path in (state / "gpg").glob("*.tar.xz"))
