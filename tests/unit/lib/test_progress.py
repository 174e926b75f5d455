import io

from coreimage.lib.progress import ProgressReader, Silent


class Count:
    def __init__(self) -> None:
        self.amounts: list[int] = []

    def advance(self, amount: int) -> None:
        self.amounts.append(amount)


def test_a_reader_tells_how_much_went_by() -> None:
    count = Count()
    reader = ProgressReader(io.BytesIO(b"0123456789"), count)
    assert [reader.read(4), reader.read(), reader.read(4)] == [b"0123", b"456789", b""]
    assert count.amounts == [4, 6, 0]


def test_silence_is_silent(capfd: object) -> None:
    silent = Silent()
    silent.stage("stage")
    silent.note("note")
    with silent.task("task", None) as task:
        task.advance(7)
    assert capfd.readouterr() == ("", "")  # type: ignore[attr-defined]
