import io
import lzma
import os
import random
import sys
from pathlib import Path

import pytest

from coreimage.errors import CommandError, DataError
from coreimage.lib import compress, run

KINDS = ("gz", "xz", "zst")
# Compresses standard input on the given processors.
SCRIPT = """
import os, sys
from coreimage.lib import compress
os.sched_setaffinity(0, {int(number) for number in sys.argv[3].split(",")})
with open(sys.argv[2], "wb") as target:
    with compress.compressing(target, kind=sys.argv[1], level=1) as stream:
        stream.write(sys.stdin.buffer.read())
"""


@pytest.fixture(scope="module")
def data() -> bytes:
    """Return bytes of several blocks of each kind, neither noise nor all the same."""
    choice = random.Random(7)  # noqa: S311  not a secret
    words = [choice.randbytes(40) for _ in range(500)]
    return b"".join(choice.choice(words) for _ in range(200_000))


def compressed(path: Path, kind: str, data: bytes, level: int = 1) -> Path:
    with path.open("wb") as file, compress.compressing(file, kind=kind, level=level) as stream:
        stream.write(data)
    return path


def fill(path: Path, kind: str, data: bytes) -> None:
    with path.open("wb") as file, compress.compressing(file, kind=kind, level=1) as stream:
        while True:
            stream.write(data)


def drain(path: Path) -> None:
    with compress.opened(path) as stream:
        while stream.read(1 << 20):
            pass


def leave(path: Path) -> None:
    with compress.opened(path) as stream:
        stream.read(10)
        raise KeyError


@pytest.mark.parametrize(
    ("level", "cores", "threads"), [(1, 64, 20), (6, 64, 2), (9, 64, 2), (1, 1, 2)]
)
def test_threads_of_xz_fit_in_memory(
    monkeypatch: pytest.MonkeyPatch, level: int, cores: int, threads: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    assert f"--threads={threads}" in compress.compressor("xz", level)


def test_an_xz_file_that_asks_for_a_lot_of_memory_is_refused(tmp_path: Path) -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 1 << 30}]
    path = tmp_path / "file"
    path.write_bytes(lzma.compress(b"x", format=lzma.FORMAT_XZ, filters=filters))
    with pytest.raises(DataError, match=r"[Mm]emory"):
        drain(path)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [0, 1, 100_000])
def test_what_goes_in_comes_out(tmp_path: Path, kind: str, size: int, data: bytes) -> None:
    path = compressed(tmp_path / "file", kind, data[:size])
    assert compress.kind_of(path.read_bytes()[:6]) == kind
    with compress.opened(path) as stream:
        assert stream.read() == data[:size]


@pytest.mark.parametrize("kind", KINDS)
def test_the_bytes_are_the_same_on_any_number_of_processors(
    tmp_path: Path, kind: str, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    processors = sorted(os.sched_getaffinity(0))
    results = []
    for number, used in enumerate([processors[:1], processors[:2]]):
        path = tmp_path / str(number)
        words = [kind, str(path), ",".join(map(str, used))]
        run.run([sys.executable, "-c", SCRIPT, *words], data=data)
        results.append(path.read_bytes())
    monkeypatch.setattr(compress, "_threads", lambda: 7)
    results.append(compressed(tmp_path / "many", kind, data).read_bytes())
    assert len(set(results)) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_the_bytes_are_the_same_whatever_the_user_prefers(
    tmp_path: Path, kind: str, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = compressed(tmp_path / "plain", kind, data).read_bytes()
    for name, value in {
        "GZIP": "--rsyncable",
        "PIGZ": "--rsyncable",
        "XZ_OPT": "--extreme --lzma2=dict=64KiB",
        "XZ_DEFAULTS": "--block-size=100KiB",
        "ZSTD_CLEVEL": "1",
        "ZSTD_NBTHREADS": "1",
    }.items():
        monkeypatch.setenv(name, value)
    assert compressed(tmp_path / "other", kind, data).read_bytes() == plain


@pytest.mark.parametrize("kind", KINDS)
def test_a_full_disk_is_told_in_the_compressors_words(kind: str, data: bytes) -> None:
    with pytest.raises(CommandError, match="No space left on device"):
        fill(Path("/dev/full"), kind, data)


def test_a_pipe_that_breaks_elsewhere_is_not_the_compressors(tmp_path: Path) -> None:
    with (
        (tmp_path / "file").open("wb") as file,
        pytest.raises(BrokenPipeError, match="elsewhere"),
        compress.compressing(file, kind="gz", level=1),
    ):
        raise BrokenPipeError("elsewhere")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("part", [0.1, 0.5, 0.999])
def test_a_file_that_was_cut_short_is_refused(
    tmp_path: Path, kind: str, part: float, data: bytes
) -> None:
    path = compressed(tmp_path / "rootfs.tar", kind, data)
    os.truncate(path, int(path.stat().st_size * part))
    with pytest.raises(DataError, match=r"'rootfs\.tar' is damaged: "):
        drain(path)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("part", [0.0, 0.5, 0.999])
def test_a_file_with_a_flipped_byte_is_refused(
    tmp_path: Path, kind: str, part: float, data: bytes
) -> None:
    path = compressed(tmp_path / "rootfs.tar", kind, data)
    content = bytearray(path.read_bytes())
    # The header of gzip has bytes that mean nothing: only what comes after it counts.
    content[12 + int((len(content) - 16) * part)] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"'rootfs\.tar' is damaged: "):
        drain(path)


@pytest.mark.parametrize("content", [b"", b"\x1f", b"plain text", b"PK\x03\x04", b"\x00" * 600])
def test_what_is_not_compressed_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "rootfs.tar"
    path.write_bytes(content)
    with (
        pytest.raises(DataError, match=r"'rootfs\.tar' is not compressed"),
        compress.opened(path),
    ):
        pass


@pytest.mark.parametrize("kind", KINDS)
def test_a_reader_may_leave_early(tmp_path: Path, kind: str, data: bytes) -> None:
    path = compressed(tmp_path / "file", kind, data)
    with compress.opened(path) as stream:
        assert stream.read(10) == data[:10]
    with pytest.raises(KeyError):
        leave(path)


def test_an_open_file_is_read_from_its_start(tmp_path: Path) -> None:
    path = compressed(tmp_path / "file", "gz", b"content")
    with path.open("rb") as file:
        file.read(5)
        with compress.decompressing(file, name="file") as stream:
            assert io.BytesIO(stream.read()).getvalue() == b"content"
