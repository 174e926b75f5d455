from datetime import UTC, datetime
from pathlib import Path

import pytest

from coreimage.errors import DataError, NotFoundError
from coreimage.model.build import Subproject
from coreimage.rootfs.reuse.lock import (
    VERSION,
    Lock,
    LockedArchive,
    LockedDefinition,
    LockedExtra,
    LockedFile,
    LockedPackage,
    digest,
    read_lock,
)

LOCK = Lock(
    version=VERSION,
    format=2,
    source_date_epoch=1795392000,
    sources=["deb http://mirror.example/debian trixie main"],
    definition=LockedDefinition(
        name="base",
        product="core",
        release="13",
        series="trixie",
        arch="amd64",
        device="generic_amd64",
        subproject=Subproject.SYSTEM_IMAGE,
        sha256=digest("definition"),
    ),
    archives=[
        LockedArchive(
            uri="http://mirror.example/debian/",
            suite="trixie",
            sha256=digest("release"),
            date=datetime(2026, 11, 23, tzinfo=UTC),
        )
    ],
    extra_archives=[
        LockedExtra(name="own", sources=digest("a"), preferences=digest(""), keys=["AB" * 20])
    ],
    packages=[
        LockedPackage(
            name="dash",
            version="1:2~3",
            architecture="amd64",
            file="dash_2~3_amd64.deb",
            size=4,
            sha256=digest("deb"),
            uri="http://mirror.example/debian/pool/dash_2~3_amd64.deb",
        )
    ],
    files={"hooks/10-a.chroot": LockedFile(kind="program", sha256=digest("#!/bin/sh\n"))},
    tools={"coreimage": "1"},
    settings={"gzip": 3},
)


def test_a_lock_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "livecd.base.lock.json"
    path.write_text(LOCK.to_json())
    assert read_lock(path) == LOCK
    assert read_lock(path).to_json() == LOCK.to_json()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"version": 2,', '"version": 9,', "has version 9, expected 2"),
        ('"size": 4,', '"size": "many",', "'packages.0.size': input should be a valid integer"),
        (digest("deb"), "0", "'packages.0.sha256': string should match"),
        ('"format": 2', '"form": 2', "'format': field required"),
        ("{", "", "is not JSON"),
    ],
)
def test_what_is_no_lock_is_refused(old: str, new: str, said: str) -> None:
    with pytest.raises(DataError, match="lock 'x'") as caught:
        Lock.from_json(LOCK.to_json().replace(old, new, 1), name="x")
    assert said in caught.value.message


def test_a_lock_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="cannot be read: No such file") as caught:
        read_lock(tmp_path / "x")
    assert "livecd.NAME.lock.json" in caught.value.hint
