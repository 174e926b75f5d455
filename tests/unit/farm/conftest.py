from pathlib import Path

import pytest

from coreimage.config import Workspace, load_workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    root = tmp_path / "workspace"
    root.mkdir()
    (root / "coreimage.toml").write_text("[farm]\nretry_delay = 0\n")
    return load_workspace(root)
