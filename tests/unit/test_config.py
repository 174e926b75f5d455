from pathlib import Path

import pytest

from coreimage.config import Settings, find_root, load_settings, load_workspace
from coreimage.errors import ConfigError, NotFoundError


def load(tmp_path: Path, text: str) -> Settings:
    path = tmp_path / "coreimage.toml"
    path.write_text(text, encoding="utf-8")
    return load_settings(path)


def test_an_empty_file_is_all_defaults(tmp_path: Path) -> None:
    settings = load(tmp_path, "")
    assert settings == Settings()
    assert (settings.serve.host, settings.server.https_port) == ("127.0.0.1", 443)


def test_everything_can_be_set(tmp_path: Path) -> None:
    settings = load(
        tmp_path,
        """
        archives.debian = { mirror = "http://mirror.example/debian", keyring = "/k.gpg" }
        channels."core/13/edge" = { project = "core", release = "13", accept = "good" }
        compression = { gzip = 9, xz = 0 }
        serve.port = 0
        server = { host = "ä.example", http_port = "disabled", https_port = 8443 }
        """,
    )
    assert settings.archives["debian"].keyring == Path("/k.gpg")
    assert settings.channels["core/13/edge"].devices == {"generic_amd64": "amd64"}
    assert settings.server.http_port == "disabled"


@pytest.mark.parametrize(
    ("text", "complaint", "hint"),
    [
        ("serv.port = 1", "'serv' is not a key", "did you mean 'serve'?"),
        ("serve.prot = 1", "'serve.prot' is not a key", "did you mean 'port'?"),
        ("serve.x = 1", "'serve.x' is not a key", "the keys here are host, port"),
        (
            "archives.debian.miror = ''",
            "'archives.debian.miror' is not a key",
            "did you mean 'mirror'?",
        ),
        ("serve.port = 'x'", "'serve.port' is 'x': input should be a valid integer", ""),
        ("serve.port = 65536", "'serve.port' is 65536: input should be less than", ""),
        ("compression.gzip = 0", "'compression.gzip' is 0: input should be greater", ""),
        ("server.http_port = 0", "'server.http_port' is 0: value error, expected a port", ""),
        ("server.http_port = true", "'server.http_port' is True: value error, expected", ""),
        ("server.https_port = 'off'", "'server.https_port' is 'off': value error", ""),
        (
            "channels.edge = { release = '13' }",
            "'channels.edge': value error, without 'files', 'project' is required",
            "",
        ),
        ("channels = 7", "'channels' is 7: input should be a valid dictionary", ""),
        ("serve = [", "coreimage.toml: ", ""),
        ("serve.port = 1\nserve.port = 2", "coreimage.toml: ", ""),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, text: str, complaint: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    assert caught.value.message.startswith(f"{tmp_path}/coreimage.toml: ")
    assert complaint in caught.value.message
    assert caught.value.hint == hint
    assert caught.value.exit_code == 78


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "coreimage.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="coreimage"):
        load_settings(path)
    with pytest.raises(ConfigError, match="No such file"):
        load_settings(tmp_path / "absent")


def test_the_nearest_workspace_is_found_from_below(tmp_path: Path) -> None:
    root = tmp_path / "a/workspace"
    deep = root / "builds/1"
    deep.mkdir(parents=True)
    with pytest.raises(NotFoundError, match="there is no workspace in") as caught:
        find_root(deep)
    assert "coreimage init DIR" in caught.value.hint
    (root / "coreimage.toml").touch()
    assert find_root(deep) == root
    assert find_root(tmp_path / "a") == root
    assert find_root(tmp_path, root) == root
    assert load_workspace(root).channel_tree == root / "www/system-image"


def test_a_folder_that_was_named_must_be_one(tmp_path: Path) -> None:
    (tmp_path / "coreimage.toml").touch()
    with pytest.raises(NotFoundError, match="is not a workspace") as caught:
        find_root(tmp_path, tmp_path / "other")
    assert caught.value.hint == f"make one with 'coreimage init {tmp_path / 'other'}'"
