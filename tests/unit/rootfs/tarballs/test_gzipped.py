import gzip
import os
from pathlib import Path

import pytest

from coreimage.lib import run
from coreimage.rootfs.tarballs.gzipped import BLOCK, gzip_file


def written(path: Path, data: bytes, *, piece: int) -> bytes:
    with gzip_file(path, 3) as output:
        for at in range(0, len(data), piece):
            output.write(data[at : at + piece])
    return path.read_bytes()


@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 7])
def test_what_goes_in_comes_out(tmp_path: Path, size: int) -> None:
    data = (b"some text %d " * 100)[: size % 1000] + bytes(max(0, size - size % 1000))
    found = written(tmp_path / "x.gz", data, piece=100_000)
    assert gzip.decompress(found) == data
    for program in ("gzip", "pigz"):
        assert run.run([program, "-dc", tmp_path / "x.gz"]).stdout == data


def test_bytes_depend_on_nothing_but_the_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = os.urandom(1000) * 4000
    found = {written(tmp_path / "a", data, piece=size) for size in (512, 1_000_000, 1 << 24)}
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3, 4})
    found.add(written(tmp_path / "b", data, piece=512))
    assert len(found) == 1
