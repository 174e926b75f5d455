import os
import stat
from pathlib import Path

import pytest

from coreimage.errors import RightsError
from coreimage.rootfs.tree import namespace


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr(namespace, "temporary_places", lambda: [tmp_path])
    return tmp_path / f"coreimage-{os.geteuid()}"


@pytest.mark.parametrize("as_root", [True, False])
def test_a_room_is_open_to_mapped_ids_and_goes(temporary: Path, *, as_root: bool) -> None:
    with namespace.unpacking_room(1, as_root=as_root) as room:
        assert room.parent == temporary
        assert stat.S_IMODE(room.stat().st_mode) == 0o1777
        assert stat.S_IMODE(temporary.stat().st_mode) == 0o711
        (room / "tree").mkdir()
    assert list(temporary.iterdir()) == []


def test_rooms_of_builds_at_work_are_left_alone(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reclaimed: list[Path] = []
    monkeypatch.setattr(namespace, "_reclaim", reclaimed.append)
    with namespace.unpacking_room(1, as_root=False) as busy:
        (temporary / ".scratch-left").mkdir()
        with namespace.unpacking_room(1, as_root=False) as other:
            assert reclaimed == [temporary / ".scratch-left"]
            assert busy.is_dir()
        assert reclaimed == [temporary / ".scratch-left", other]
    assert not (temporary / ".scratch-left").exists()


def test_what_was_killed_elsewhere_goes_too(
    temporary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "memory" / temporary.name
    (other / ".scratch-left").mkdir(parents=True)
    monkeypatch.setattr(namespace, "temporary_places", lambda: [tmp_path, other.parent])
    with namespace.unpacking_room(1, as_root=True):
        assert list(other.iterdir()) == []


def test_another_users_directory_is_refused(temporary: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    temporary.symlink_to("elsewhere")
    with (
        pytest.raises(RightsError, match="is not ours"),
        namespace.unpacking_room(1, as_root=True),
    ):
        pass


@pytest.mark.parametrize(
    ("text", "enough"),
    [
        ("core:100000:65536\n", True),
        ("other:1:65536\ncore:100000:65536\n", True),
        (f"{os.geteuid()}:100000:70000\n", True),
        ("core:100000:65535\n", False),
        ("cores:100000:65536\n", False),
        ("core:100000\ncore:x:y\n:::\n# core:1:65536\n\n", False),
        ("", False),
    ],
)
def test_ranges_of_ids(tmp_path: Path, text: str, *, enough: bool) -> None:
    path = tmp_path / "subuid"
    path.write_text(text)
    assert namespace._has_range(path, "core") is enough
    assert not namespace._has_range(tmp_path / "absent", "core")


def test_a_user_without_ranges_is_told_how_to_get_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(namespace, "_has_range", lambda *_: False)
    with pytest.raises(RightsError, match="has no range of 65536 ids in /etc/subuid") as caught:
        namespace.require_user_namespace()
    assert "usermod --add-subuids 100000-165535" in caught.value.hint


def test_a_user_without_a_name_has_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 4_000_000_123)
    assert namespace._user_name() == "4000000123"
