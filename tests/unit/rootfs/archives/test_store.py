import os
from hashlib import sha256
from pathlib import Path

from coreimage.rootfs.archives.archive import Package
from coreimage.rootfs.archives.store import Store
from tests.support.resolutions import package


def wanted(folder: Path, name: str, size: int = 100) -> Package:
    """Write a package into a folder and return what asks for it."""
    data = name.encode() * size
    (folder / f"{name}_1_all.deb").write_bytes(data)
    return package(name, size=len(data), sha256=sha256(data).hexdigest())


def test_a_package_is_kept_and_taken_out(tmp_path: Path) -> None:
    store = Store(tmp_path / "store", limit=1 << 20)
    asked = [wanted(tmp_path, "a"), wanted(tmp_path, "b")]
    assert store.missing(asked) == asked
    store.add(asked[:1], tmp_path)
    assert store.missing(asked) == asked[1:]
    out = tmp_path / "out"
    out.mkdir()
    assert store.take(asked, out) == asked[1:]
    assert (out / "a_1_all.deb").read_bytes() == b"a" * 100


def test_what_was_taken_out_outlives_the_store(tmp_path: Path) -> None:
    store = Store(tmp_path / "store", limit=1 << 20)
    asked = [wanted(tmp_path, "a")]
    store.add(asked, tmp_path)
    (tmp_path / "out").mkdir()
    store.take(asked, tmp_path / "out")
    store.place(asked[0].sha256).unlink()
    assert (tmp_path / "out/a_1_all.deb").read_bytes() == b"a" * 100


def test_a_damaged_package_is_missing_and_forgotten(tmp_path: Path) -> None:
    store = Store(tmp_path / "store", limit=1 << 20)
    asked = [wanted(tmp_path, "a")]
    store.add(asked, tmp_path)
    place = store.place(asked[0].sha256)
    place.unlink()
    place.write_bytes(b"b" * 100)
    (tmp_path / "out").mkdir()
    assert store.take(asked, tmp_path / "out") == asked
    assert not any((tmp_path / "out").iterdir())
    assert store.missing(asked) == asked


def test_what_was_not_used_longest_goes_first(tmp_path: Path) -> None:
    store = Store(tmp_path / "store", limit=250)
    asked = [wanted(tmp_path, name) for name in "abc"]
    store.add(asked, tmp_path)
    for age, each in enumerate(asked):
        os.utime(store.place(each.sha256), (1000 - age, 1000 - age))
    store.trim()
    assert store.missing(asked) == asked[2:]
    # What a build at work needs stays, whatever the limit.
    Store(tmp_path / "store", limit=0).trim([asked[0].sha256])
    assert store.missing(asked) == asked[1:]


def test_a_store_that_cannot_be_written_keeps_nothing(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("no folder")
    store = Store(tmp_path / "store", limit=1 << 20)
    asked = [wanted(tmp_path, "a")]
    store.add(asked, tmp_path)
    assert store.missing(asked) == asked
