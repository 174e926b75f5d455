"""Operations on the channel tree that are killed at every system call that writes.

After each: what is published is good for a client of plain programs, and is the state before or the
state after. Run again, the operation finishes, and leaves nothing behind.

There are thousands of such calls, and many leave the same behind as the one before: what they
wrote lies in a scratch directory, which is removed unseen. Of what is the same but for random
names, times and the insides of scratch directories, one is looked at and run again.
"""

import re
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from coreimage.config import Workspace, load_workspace
from coreimage.lib import run
from coreimage.lib.gpg import Signer
from coreimage.lib.progress import Silent
from coreimage.lib.temporary import temporary_place
from coreimage.model.keyring import KeyringType
from coreimage.systemimage.keys import keyrings
from tests.support.faults import Step, killed_at, steps
from tests.support.plain import PlainClient, Seen
from tests.support.publications import (
    SERIES,
    device_members,
    publish,
    rootfs_members,
    tarball,
)

EDGE = "ubuntu-core/edge"
IMPORT = ("image", "import", EDGE, "generic_amd64", "--series", SERIES, "--product", "core")
OLD_KEY = "the key that signed before"
OPERATIONS = {
    "publish": IMPORT,
    "alias": ("channel", "alias", "ubuntu-core/next", EDGE),
    "rename": ("channel", "rename", EDGE, "ubuntu-core/daily", "--force"),
    "remove": ("channel", "remove", "ubuntu-core/stable"),
    "expire": ("image", "expire", EDGE, "--keep", "1"),
    "promote": ("image", "copy", EDGE, "ubuntu-core/beta", "--percentage", "10"),
    "refresh": ("channel", "refresh", "--force"),
    "rotate": ("keyring", "rotate", "image-signing"),
    "rotate-master": ("keyring", "rotate", "image-master"),
    "retire": ("keyring", "retire", "image-signing"),
    "revoke": ("keyring", "revoke", OLD_KEY),
    "gc": ("image", "gc", "--grace", "0"),
}
# What an operation says when it is asked for again after it has happened.
_DONE_ALREADY = {"rename": 66, "remove": 66, "retire": 1}
_UNSEEN = frozenset({"gc", "refresh"})
# Kind and mode, and the size or where a link leads.
State = tuple[int, int | str]
Shape = tuple[tuple[tuple[str, State], ...], tuple[str, ...]]
_HEX = re.compile(r"[0-9a-f]{12,}|[0-9A-F]{16,}")
_SCRATCH = ".scratch-"
# Where nothing is lost that is not there: locks, and what was found out before.
_UNSEEN_PLACES = ("state/locks/", "cache/")


def _state(path: Path) -> State | None:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return None
    if stat.S_ISLNK(found.st_mode):
        return found.st_mode, str(path.readlink())
    return found.st_mode, found.st_size if stat.S_ISREG(found.st_mode) else 0


def _shape(changed: dict[str, State], gone: list[str]) -> Shape:
    """Return changes without what differs between two runs that went as far."""

    def plain(state: State) -> State:
        mode, rest = state
        return mode, _HEX.sub("#", rest) if isinstance(rest, str) else rest

    found = sorted((_HEX.sub("#", name), plain(state)) for name, state in changed.items())
    return tuple(found), tuple(sorted(gone))


def _walk(root: Path, below: str = "") -> Iterator[tuple[str, State]]:
    """Yield the names in a workspace with their states; scratch directories as a whole."""
    for path in sorted((root / below).iterdir()):
        name = str(path.relative_to(root))
        scratch = path.name.startswith(_SCRATCH)
        state = _state(path)
        if state is None or name.startswith(_UNSEEN_PLACES):
            continue
        yield name, (state[0], 0) if scratch else state
        if path.is_dir() and not path.is_symlink() and not scratch:
            yield from _walk(root, name)


class Scene:
    """A workspace that is made anew for each attempt, and what is found in it."""

    def __init__(self, template: Path, folder: Path) -> None:
        self._template, self._folder, self.attempts = template, folder, 0
        self._states = dict(_walk(template))
        self.root = folder / "none"

    def reset(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)
        self.attempts += 1
        self.root = self._folder / f"w{self.attempts}"
        shutil.copytree(self._template, self.root, symlinks=True)

    def command(self, words: tuple[str, ...]) -> list[str | Path]:
        words = tuple(self.old_key() if word == OLD_KEY else word for word in words)
        return [sys.executable, "-m", "coreimage", *words, "--workspace", self.root]

    def run(self, words: tuple[str, ...]) -> run.Completed:
        return run.run(self.command(words), check=False)

    def old_key(self) -> str:
        """Return the fingerprint of the key that signed before the one that does now."""
        store = Signer(load_workspace(self._template).gpg_home)
        return store.keys(KeyringType.IMAGE_SIGNING)[0].fingerprint

    def look(self) -> Seen:
        """Verify the tree with plain programs and return what a client sees."""
        folder = self._folder / "client"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        place = load_workspace(self.root)
        client = PlainClient(
            fetch=lambda path: place.channel_tree / path[1:],
            pinned=place.archive_master,
            folder=folder,
        )
        return client.look()

    def changes(self) -> tuple[dict[str, State], list[str]]:
        """Return what is in the workspace that was not, and the names that are not there now."""
        found = {name: state for name, state in _walk(self.root) if self._changed(name, state)}
        return found, [
            name for name, state in self._states.items() if not self._exists(name, state)
        ]

    def _changed(self, name: str, state: State) -> bool:
        if self._states.get(name) != state:
            return True
        # Of the same kind and size: it may be another content all the same.
        path, before = self.root / name, self._template / name
        return path.is_file() and path.read_bytes() != before.read_bytes()

    def _exists(self, name: str, state: State) -> bool:
        return name.startswith(_UNSEEN_PLACES) or state == _state(self.root / name)

    def is_untouched(self, changes: tuple[dict[str, State], list[str]]) -> bool:
        """Tell whether all that a client could read is as it was."""
        changed, gone = changes
        replaced = [name for name in changed if name in self._states]
        return not any(name.startswith("www/system-image/") for name in (*replaced, *gone))

    def leftovers(self) -> list[Path]:
        return [*self.root.glob("www/system-image/**/.scratch-*")]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with three channels, two images, and a publication that is not imported yet."""
    root = tmp_path_factory.mktemp("killed") / "template"
    root.mkdir()
    (root / "coreimage.toml").write_text(
        f'[channels."{EDGE}"]\nproject = "ubuntu-core"\nrelease = "15.04"\n'
    )
    workspace = load_workspace(root)
    keyrings.generate(workspace, progress=Silent(), now=datetime.now(UTC))
    scene = Scene(root, root)
    scene.root = root
    for channel in (EDGE, "ubuntu-core/beta"):
        assert scene.run(("channel", "create", channel)).status == 0
    for number, text in enumerate(("one", "two", "three")):
        if number:
            assert scene.run(IMPORT).status == 0
        _publish(workspace, f"2015051{number}", text)
    for words in (
        ("channel", "alias", "ubuntu-core/stable", EDGE),
        ("keyring", "rotate", "image-signing"),
        ("image", "resign"),
    ):
        assert scene.run(words).status == 0
    return root


def _publish(workspace: Workspace, version: str, text: str) -> None:
    publish(
        workspace,
        version,
        rootfs=tarball(rootfs_members(text=text)),
        device=tarball(device_members(text)),
    )


@pytest.fixture
def scene(template: Path, tmp_path: Path) -> Iterator[Scene]:
    # Hundreds of workspaces one after the other: in memory, where there is some.
    place = temporary_place(1 << 30, usual=tmp_path)
    with tempfile.TemporaryDirectory(dir=place) as folder:
        yield Scene(template, Path(folder))


def endure(scene: Scene, name: str, *, count: int | None) -> None:
    """Kill an operation at each of its steps, or at so many of them."""
    words = OPERATIONS[name]
    scene.reset()
    before = scene.look()
    done = steps(scene.command(words), scene.root / "strace.log")
    after = scene.look()
    assert before != after or name in _UNSEEN
    tried: set[Shape] = set()
    for step in _chosen(done, count):
        _endure_one(scene, name, step, (before, after), tried)


def _chosen(done: list[Step], count: int | None) -> list[Step]:
    """Return all steps, or so many of those that give something in the tree its final name."""
    if count is None:
        # What only waits for the disk leaves what the call after it finds, too.
        waited = (False, *(step.call in ("fsync", "fdatasync") for step in done))
        return [step for step, after in zip(done, waited, strict=False) if not after]
    names = [
        step
        for step in done
        if step.call in ("rename", "symlink", "link", "mkdir", "unlink", "rmdir")
        and "www/system-image" in step.text
    ]
    # The last of them is the switch, or what is just before it.
    return names[:: -max(1, len(names) // count)][:count]


def _endure_one(
    scene: Scene, name: str, step: Step, states: tuple[Seen, Seen], tried: set[Shape]
) -> None:
    words = OPERATIONS[name]
    scene.reset()
    killed = killed_at(scene.command(words), step)
    changes = scene.changes()
    shape = _shape(*changes)
    if shape in tried:
        return
    tried.add(shape)
    seen = states[0] if scene.is_untouched(changes) else scene.look()
    assert seen in states if killed else seen == states[1], f"{name} killed at {step}"
    again = scene.run(words)
    allowed = (0, _DONE_ALREADY.get(name, 0)) if seen == states[1] else (0,)
    assert again.status in allowed, f"{name} killed at {step}: {again.stderr.decode()}"
    final = scene.look()
    assert _without_keys(final) == _without_keys(states[1]), f"{name} killed at {step}, run again"
    if not (name.startswith("rotate") and seen == states[1]):  # else it may be the next rotation
        assert final == states[1], f"{name} killed at {step}, then run again"
    if name.startswith("rotate"):
        assert scene.run(OPERATIONS["refresh"]).status == 0
        assert scene.look() == final
    assert scene.leftovers() == [], f"{name} killed at {step}, then run again"


def _without_keys(seen: Seen) -> Seen:
    return {name: channel for name, channel in seen.items() if name}


@pytest.mark.parametrize("name", ["publish", "alias", "rename", "expire", "rotate"])
def test_killed_here_and_there(name: str, scene: Scene) -> None:
    endure(scene, name, count=2)


@pytest.mark.long
@pytest.mark.parametrize("name", OPERATIONS)
def test_killed_at_every_call_that_writes(name: str, scene: Scene) -> None:
    endure(scene, name, count=None)
