from pathlib import Path

import pytest

from coreimage.config import Workspace, load_workspace
from coreimage.farm.store import Store


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    root = tmp_path / "workspace"
    root.mkdir()
    (root / "coreimage.toml").write_text("[farm]\nretry_delay = 0\n")
    return load_workspace(root)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "state/coreimage.sqlite")
