"""Which state a client is reading."""

import itertools
import threading

import pytest

from coreimage.web.views import Views

DEVICE = ("192.0.2.1", "System Image Upgrade Client: device=mako;channel=edge;build=7")
PAIR = ("/channels.json", "/channels.json.asc")


class Clock:
    """A clock that is set by the test."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def views(clock: Clock) -> Views:
    return Views(clock, lifetime=100, limit=3)


def ask(views: Views, path: str, current: str, *, head: bool = False) -> str:
    return views.state_for(DEVICE, path, head=head, current=current)


@pytest.mark.parametrize("order", list(itertools.permutations(PAIR)))
def test_both_files_come_from_the_state_of_the_first(views: Views, order: tuple[str, str]) -> None:
    first, second = order
    assert ask(views, first, "1") == "1"
    assert ask(views, second, "2") == "1"


@pytest.mark.parametrize(
    ("heads", "gets"),
    list(itertools.product(itertools.permutations(PAIR), itertools.permutations(PAIR))),
)
def test_so_do_their_headers_before(
    views: Views, heads: tuple[str, str], gets: tuple[str, str]
) -> None:
    states = [ask(views, path, str(n), head=True) for n, path in enumerate(heads)]
    states += [ask(views, path, str(n + 2)) for n, path in enumerate(gets)]
    assert states == ["0"] * 4
    # The next time, the headers are asked for first again.
    assert ask(views, heads[0], "9", head=True) == "9"
    assert ask(views, heads[1], "10", head=True) == "9"
    assert ask(views, gets[0], "11") == "9"


def test_keyrings_belong_to_it(views: Views) -> None:
    assert ask(views, "/gpg/blacklist.tar.xz", "1") == "1"
    assert ask(views, "/gpg/blacklist.tar.xz.asc", "2") == "1"
    assert ask(views, "/channels.json", "3") == "1"


def test_a_repeated_get_begins_anew(views: Views) -> None:
    assert ask(views, "/channels.json", "1") == "1"
    assert ask(views, "/channels.json", "2") == "2"
    assert ask(views, "/channels.json.asc", "3") == "2"


def test_clients_are_told_apart(views: Views) -> None:
    others = [("192.0.2.2", DEVICE[1]), ("192.0.2.1", "curl")]
    assert ask(views, "/channels.json", "1") == "1"
    for other in others:
        assert views.state_for(other, "/channels.json.asc", head=False, current="2") == "2"
    assert ask(views, "/channels.json.asc", "3") == "1"


def test_a_view_ends_with_its_time(views: Views, clock: Clock) -> None:
    ask(views, "/channels.json", "1")
    clock.now = 99
    assert ask(views, "/gpg/image-signing.tar.xz", "2") == "1"
    clock.now = 100
    assert ask(views, "/channels.json.asc", "3") == "3"


def test_a_state_that_is_gone_is_forgotten(views: Views) -> None:
    ask(views, "/channels.json", "1")
    views.forget(DEVICE)
    views.forget(("192.0.2.9", ""))
    assert ask(views, "/channels.json.asc", "2") == "2"


def test_memory_is_bounded_in_number_and_in_time(views: Views, clock: Clock) -> None:
    for number in range(1000):
        views.state_for((str(number), ""), "/channels.json", head=False, current="1")
        assert len(views) <= 3
    clock.now = 1000
    ask(views, "/channels.json", "2")
    assert len(views) == 1


def test_threads_do_not_harm_each_other(clock: Clock) -> None:
    views = Views(clock, limit=50)
    errors: list[BaseException] = []

    def hammer(seed: int) -> None:
        try:
            for number in range(2000):
                client = (str(number * seed % 83), "")
                views.state_for(client, PAIR[number % 2], head=False, current="1")
                views.forget((str(number % 79), ""))
        except BaseException as error:  # noqa: BLE001  shown by the test
            errors.append(error)

    threads = [threading.Thread(target=hammer, args=(seed,)) for seed in (3, 7, 11, 13)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert len(views) <= 50
