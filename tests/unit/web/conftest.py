import warnings
from pathlib import Path

import pytest
from starlette.exceptions import StarletteDeprecationWarning

from coreimage.config import Workspace, load_workspace
from coreimage.web.app import create_app

with warnings.catch_warnings():
    # The test client asks for another release of the client library than the one we depend on.
    warnings.simplefilter("ignore", StarletteDeprecationWarning)
    from starlette.testclient import TestClient


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    root = tmp_path / "workspace"
    (root / "www/system-image").mkdir(parents=True)
    (root / "www/cdimage").mkdir()
    (root / "coreimage.toml").write_text("")
    return load_workspace(root)


@pytest.fixture
def client(workspace: Workspace) -> TestClient:
    return TestClient(create_app(workspace), follow_redirects=False)
