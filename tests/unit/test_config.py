from pathlib import Path

import pytest

from coreimage.config import Settings, find_root, load_settings, load_workspace
from coreimage.errors import ConfigError, NotFoundError
from coreimage.lib.tomltext import SYNTAX_HINT


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
        (
            "extra_archives.x = { uri = 'u', keyring = 'k', pin = 32768 }",
            "'extra_archives.x.pin' is 32768: value error, expected a priority from -32768 to",
            "",
        ),
        (
            "extra_archives.x = { uri = 'u', keyring = 'k', pin = 0 }",
            "'extra_archives.x.pin' is 0: value error, expected a priority",
            "",
        ),
        ("channels = 7", "'channels' is 7: input should be a valid dictionary", ""),
        ("serve = [", "coreimage.toml:1: invalid value (at end of document)", SYNTAX_HINT),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, text: str, complaint: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    assert caught.value.message.startswith(f"{tmp_path}/coreimage.toml:1: ")
    assert complaint in caught.value.message
    assert caught.value.hint == hint
    assert caught.value.exit_code == 78


LONG = """\
# Ports.
[serve]
port = 80

[channels.edge]
files = [
    { generator = "keyring" },
    { generator = "http", name = "shop", url = "https://x.example/y", trust = "tls" },
]

[[channels.beta.files]]
generator = "keyring"

[[channels.beta.files]]
generator = "cdimage-rootfs"
series = "vivid"

[schedules.nightly]
project = "core"
cron = "25 3 * * *"
extra_archives = [
    "one",
    "two",
]

[signing.image-master]
offline = true
"""


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("port = 80", "port = 'x'", ":3: 'serve.port' is 'x'"),
        ("port = 80", "prot = 80", ":3: 'serve.prot' is not a key"),
        ("port = 80", "port = 80\nport = 81", ":4: cannot overwrite a value (column 10)"),
        ("port = 80", "port: 80", ":3: expected '=' after a key in a key/value pair (column 5)"),
        ("'tls'", "'yes'", ":8: 'channels.edge.files.1.trust' is 'yes'"),
        ("'shop'", "7", ":8: 'channels.edge.files.1.name' is 7"),
        (", trust = 'tls'", "", ":8: 'channels.edge.files.1': value error, give one reason"),
        ("'https://x.example/y'", "'x'", ":8: 'channels.edge.files.1.url' is 'x'"),
        ("{ generator = 'keyring' }", "{ generator = 'kyring' }", ":7: 'channels.edge.files.0.gen"),
        ("{ generator = 'keyring' }", "{ name = 'x' }", ":7: 'channels.edge.files.0' has no 'gen"),
        ("'cdimage-rootfs'", "'cdimage-rotfs'", ":15: 'channels.beta.files.1.generator' is "),
        ("series = 'vivid'", "serie = 'vivid'", ":16: 'channels.beta.files.1.serie' is not a"),
        ("'two'", "2", ":23: 'schedules.nightly.extra_archives.1' is 2"),
        ("cron = '25 3 * * *'\n", "", ":18: 'schedules.nightly': value error, neither 'cron'"),
        ("image-master", "image-mistress", ":26: 'signing.image-mistress.[key]' is 'image-mis"),
        ("project = 'core'\n", "", ":18: 'schedules.nightly.project': field required"),
    ],
)
def test_the_line_of_a_mistake_is_named(tmp_path: Path, old: str, new: str, complaint: str) -> None:
    text = LONG.replace('"', "'")
    load(tmp_path, text)
    assert old in text
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text.replace(old, new, 1))
    assert caught.value.message.startswith(f"{tmp_path}/coreimage.toml{complaint}")


def test_a_key_has_a_place_also_later(tmp_path: Path) -> None:
    load(tmp_path, LONG)
    space = load_workspace(tmp_path)
    path = tmp_path / "coreimage.toml"
    assert space.place("schedules", "nightly", "cron") == f"{path}:20"
    assert space.place("schedules", "nightly", "arches") == f"{path}:18"
    path.write_bytes(b"\xff\xfe")
    assert space.place("schedules") == str(path)
    path.unlink()
    assert space.place("schedules") == str(path)


FILES = "channels.edge.files"
SHOP = "generator = 'http', name = 'shop', url = 'https://x.example/shop.tar.gz'"


@pytest.mark.parametrize(
    ("feed", "complaint", "hint"),
    [
        (
            "generator = 'cdimage-rotfs'",
            f"'{FILES}.0.generator' is 'cdimage-rotfs', which there is not",
            "did you mean 'cdimage-rootfs'?",
        ),
        ("name = 'x'", f"'{FILES}.0' has no 'generator'", "give it one of cdimage-custom, "),
        (
            "generator = 'cdimage-rootfs', serie = 'vivid'",
            f"'{FILES}.0.serie' is not a key",
            "did you mean 'series'?",
        ),
        (
            "generator = 'keyring', keyring = 'image-mastr'",
            f"'{FILES}.0.keyring' is 'image-mastr': input should be 'archive-master', ",
            "",
        ),
        (f"{SHOP}, sha25 = ''", f"'{FILES}.0.sha25' is not a key", "did you mean 'sha256'?"),
        (SHOP, f"'{FILES}.0': value error, give one reason to trust it", ""),
        (f"{SHOP}, trust = 'tls', sha256 = '{'0' * 64}'", "give one reason to trust it", ""),
        (f"{SHOP}, trust = 'yes'", f"'{FILES}.0.trust' is 'yes': input should be 'tls'", ""),
        (
            "generator = 'http', name = 'x', url = 'http://x.example/y', trust = 'tls'",
            "'url' must begin with https://",
            "",
        ),
        (
            f"{SHOP}, sha256sums = 'https://x.example/S'",
            "'keyring' belongs to 'sha256sums' or 'signature'",
            "",
        ),
        (
            f"{SHOP}, trust = 'tls', monitor = 'http://x.example/v'",
            "'monitor' must begin with https://",
            "",
        ),
        (
            "generator = 'http', name = 'x', url = 'https://x.example/{verson}', trust = 'tls'",
            "'{verson}' is not replaced here, only {version}",
            "",
        ),
        ("generator = 'remote-system-image', server = 'x'", f"'{FILES}.0.archive_master': ", ""),
        ("generator = 'cdimage-rootfs', file = 'a/b'", f"'{FILES}.0.file' is 'a/b': ", ""),
    ],
)
def test_a_mistake_in_a_file_is_named(tmp_path: Path, feed: str, complaint: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, f"channels.edge.files = [{{ {feed} }}]")
    assert complaint in caught.value.message
    assert caught.value.hint.startswith(hint)


@pytest.mark.parametrize(
    ("feeds", "complaint"),
    [
        (
            "{ generator = 'version' }, { generator = 'keyring' }",
            "the file of generator 'version' comes once, as the last one",
        ),
        (
            "{ generator = 'keyring' }, { generator = 'keyring' }",
            "two files of 'generic_amd64' are called 'keyring'",
        ),
        (
            "{ generator = 'keyring', name = 'version' }",
            "'version' is the name of the version file",
        ),
    ],
)
def test_files_that_do_not_go_together(tmp_path: Path, feeds: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        load(tmp_path, f"channels.edge.files = [{feeds}]")


def test_a_device_has_its_own_files_and_those_of_all(tmp_path: Path) -> None:
    settings = load(
        tmp_path,
        """
        [channels.edge]
        devices = { a = "amd64", b = "armhf.b" }
        [[channels.edge.files]]
        generator = "keyring"
        [[channels.edge.files]]
        generator = "cdimage-custom"
        devices = ["b"]
        [[channels.edge.files]]
        generator = "version"
        """,
    ).channels["edge"]
    assert [each.prefix for each in settings.feeds("a")] == ["keyring"]
    assert [each.prefix for each in settings.feeds("b")] == ["keyring", "custom"]


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
