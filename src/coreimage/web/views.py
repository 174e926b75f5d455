"""Views: which state of the channel tree a client is reading, so that it gets pairs of one state.

Clients ask for `channels.json`, its signature and the keyrings one after the other, without
cookies, and between two requests the tree may move on. So the state of the first answer is
remembered for a while, by address and User-Agent.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

# In seconds: longer than a client takes for its few small files, far shorter than a grace time.
_LIFETIME = 120.0
_LIMIT = 10_000


@dataclass(slots=True)
class _View:
    state: str
    until: float
    sent: set[str] = field(default_factory=set)


class Views:
    """What clients are reading; `clock` is in seconds, and may be used by several threads."""

    def __init__(
        self, clock: Callable[[], float], *, lifetime: float = _LIFETIME, limit: int = _LIMIT
    ) -> None:
        self._clock = clock
        self._lifetime = lifetime
        self._limit = limit
        self._views: OrderedDict[tuple[str, str], _View] = OrderedDict()
        self._lock = threading.Lock()

    def state_for(self, client: tuple[str, str], path: str, *, head: bool, current: str) -> str:
        """Return the state to answer from: the one that the client is reading, else `current`.

        A file that was sent already is asked for again by a client that begins anew, whether by
        HEAD or by GET: it gets the current state, and so does everything that it asks for then.
        """
        with self._lock:
            now = self._clock()
            view = self._views.get(client)
            if view is None or view.until <= now or path in view.sent:
                view = self._views[client] = _View(state=current, until=now + self._lifetime)
                self._views.move_to_end(client)
                self._forget(now)
            if not head:
                view.sent.add(path)
            return view.state

    def forget(self, client: tuple[str, str]) -> None:
        """Let a client begin anew: its state is gone."""
        with self._lock:
            self._views.pop(client, None)

    def _forget(self, now: float) -> None:
        """Drop views whose time is over, and the oldest when there are too many."""
        while self._views:
            oldest = next(iter(self._views))
            if self._views[oldest].until > now and len(self._views) <= self._limit:
                return
            del self._views[oldest]

    def __len__(self) -> int:
        """Return how many clients are remembered."""
        return len(self._views)
