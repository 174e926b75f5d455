"""Making workspaces, with real keys."""

import os
import signal
import stat
import sys
import tomllib
from pathlib import Path

import pytest

from coreimage.config import CONFIG_NAME, Settings, load_workspace
from coreimage.lib import run
from coreimage.lib.gpg import Signer
from coreimage.model.keyring import KeyringType

LEVELS = (
    KeyringType.ARCHIVE_MASTER,
    KeyringType.IMAGE_MASTER,
    KeyringType.IMAGE_SIGNING,
    KeyringType.DEVICE_SIGNING,
)


def init(place: Path, *, check: bool = True) -> run.Completed:
    argv = [sys.executable, "-m", "coreimage", "init", str(place)]
    return run.run(argv, check=check, timeout=300)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a workspace whose making was interrupted twice, made with the most open umask."""
    made = tmp_path_factory.mktemp("init") / "deep/workspace"
    before = os.umask(0)
    try:
        for number in (signal.SIGKILL, signal.SIGTERM):
            argv = [sys.executable, "-m", "coreimage", "init", str(made)]
            with run.start(argv, stderr=run.PIPE) as process:
                assert process.stderr is not None
                assert b"Making the keys" in process.stderr.readline()
                process.send_signal(number)
            assert process.returncode in (-signal.SIGKILL, 128 + signal.SIGTERM)
            assert not (made / CONFIG_NAME).exists()
        init(made)
    finally:
        os.umask(before)
    return made


def test_what_was_interrupted_is_finished(place: Path) -> None:
    workspace = load_workspace(place)
    signer = Signer(workspace.gpg_home)
    assert all(signer.has(level) for level in LEVELS)
    assert workspace.archive_master.is_file()
    assert not list(place.rglob(".scratch-*"))


def test_secrets_are_secret_whatever_the_umask(place: Path) -> None:
    assert stat.S_IMODE((place / "secret").stat().st_mode) == 0o700
    keys = list(place.glob("secret/gpg/*/private-keys-v1.d/*.key"))
    assert len(keys) == len(LEVELS)
    assert all(stat.S_IMODE(path.stat().st_mode) & 0o077 == 0 for path in keys)


def test_making_it_again_is_refused_and_changes_nothing(place: Path) -> None:
    before = (place / CONFIG_NAME).read_bytes()
    done = init(place, check=False)
    assert done.status == 1
    assert f"coreimage: error: '{place}' is a workspace already" in done.stderr.decode()
    assert (place / CONFIG_NAME).read_bytes() == before


def test_what_the_configuration_says_is_the_default(place: Path) -> None:
    """Apart from the channels, the file that is written spells the defaults out."""
    document = tomllib.loads((place / CONFIG_NAME).read_text())
    assert set(document.pop("channels")) == {"debian-core/13/edge", "debian-core/13/stable"}
    assert Settings.model_validate(document) == Settings()


def test_its_comments_are_settings(place: Path) -> None:
    lines = (place / CONFIG_NAME).read_text().splitlines()
    commented = [
        line[2:] for line in lines if line.startswith(("# [", "# mirror", "# uri", "# key"))
    ]
    assert "[archives.debian]" in commented
    Settings.model_validate(tomllib.loads("\n".join(commented)))


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = init(tmp_path / "file/workspace", check=False)
    assert done.status == 1
    assert "Traceback" not in done.stderr.decode()
    assert "Not a directory" in done.stderr.decode()
