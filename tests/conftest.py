"""What tests of several areas share: a workspace with real keys, made once for a session."""

import shutil
import signal
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import settings
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

from coreimage.config import Workspace, load_workspace
from coreimage.lib.progress import Silent
from coreimage.systemimage.keys import keyrings

# Started in the background by a shell, we and all programs that tests start would be deaf to them.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

# How long an example takes says how busy the machine is.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

# Files whose tests share the road of tests/system, which is gone once.
ROAD = ("journey", "verify", "rebuild", "refusals", "inventory", "hosts", "deltas", "interrupted")
# A series of many minutes, each of its tests on its own.
SERIES = "tests/integration/test_killed.py"


class Spread(LoadFileScheduling):
    """Each file of tests stays in one process, with what its tests share; so does the road."""

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        if file in {f"tests/system/test_{name}.py" for name in ROAD}:
            return "road"
        return nodeid if file == SERIES else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Spread:
    return Spread(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest: at the end no process may be left alone with it."""
    items.sort(key=lambda item: "tests/system/" not in item.nodeid)


NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


@pytest.fixture(autouse=True)
def state_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no test remember in the home of whoever runs it which servers it saw."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))


@pytest.fixture
def now() -> datetime:
    return NOW


@pytest.fixture(scope="session")
def keyed_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with keys and published keyrings, to be copied and not to be changed."""
    root = tmp_path_factory.mktemp("keyed") / "workspace"
    root.mkdir()
    (root / "coreimage.toml").write_text(
        '[channels."ubuntu-core/edge"]\n'
        'project = "ubuntu-core"\n'
        'release = "15.04"\n'
        "[server]\n"
        'host = "images.example"\n'
        'https_port = "disabled"\n'
    )
    keyrings.generate(load_workspace(root), progress=Silent(), now=NOW)
    return root


@pytest.fixture
def workspace(keyed_root: Path, tmp_path: Path) -> Workspace:
    """A workspace of the test's own with keys and published keyrings, without channels."""
    root = tmp_path / "workspace"
    shutil.copytree(keyed_root, root, symlinks=True)
    return load_workspace(root)
