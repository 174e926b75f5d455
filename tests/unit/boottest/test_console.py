import io

from hypothesis import given
from hypothesis import strategies as st

from coreimage.boottest.console import LINE_LIMIT, TAIL_LINES, BoundedLog, Console, plain_lines


def test_escape_sequences_and_carriage_returns_are_not_text() -> None:
    raw = b"\x1b[0;1;39mWelcome to \x1b[1mDebian GNU/Linux 13 (trixie)\x1b[0m!\r"
    assert plain_lines(raw) == ["Welcome to Debian GNU/Linux 13 (trixie)!"]


def test_a_terminals_title_is_not_text() -> None:
    assert plain_lines(b"\x1b]0;root@core\x07# \x1b(B\x1b>ready") == ["# ready"]


def test_moving_the_cursor_begins_a_new_line() -> None:
    assert plain_lines(b"\x1b[2J\x1b[01;01Hfirst\x1b[05;10Hsecond") == ["first", "second"]


def test_bytes_that_are_no_text_do_no_harm() -> None:
    assert plain_lines(b"a\xff\xfe\x00b") == ["a��b"]


@given(st.lists(st.integers(min_value=1, max_value=7), min_size=1, max_size=60))
def test_lines_do_not_depend_on_how_the_bytes_arrive(sizes: list[int]) -> None:
    data = b"one\r\n\x1b[1mtwo\x1b[0m\r\n\xc3\xa9tage\nprompt> "
    console = Console()
    lines: list[str] = []
    position = 0
    for size in [*sizes, len(data)]:
        lines += console.feed(data[position : position + size])
        position += size
    assert lines == ["one", "two", "étage"]
    assert console.unfinished() == ["prompt>"]


def test_a_line_without_end_is_cut_and_memory_stays_bounded() -> None:
    console = Console()
    for _ in range(100):
        for line in console.feed(b"x" * 50_000):
            assert len(line) <= LINE_LIMIT
        assert len(console.unfinished()[0]) <= LINE_LIMIT
    assert len(console.last_lines()) == TAIL_LINES


def test_the_last_lines_end_with_the_prompt() -> None:
    console = Console()
    assert list(console.feed(b"error: no such device.\r\ngrub rescue> "))
    assert console.last_lines() == ("error: no such device.", "grub rescue>")


def test_a_log_says_where_it_was_cut() -> None:
    file = io.BytesIO()
    log = BoundedLog(file, limit=10)
    for _ in range(5):
        log.write(b"1234")
    assert file.getvalue() == b"1234123412\n[coreimage: the rest of the console is not kept]\n"
