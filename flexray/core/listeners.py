"""Who is told of news of spawned inputs, and what they have not been told yet.

One rule: whoever listens for an input is told once that there is news of it, and looks itself; who does not
ask for news any more is forgotten with all that it listens for.
"""

from __future__ import annotations

from collections.abc import Collection


class Listeners:
    """Each is a process, by name; an input is a position in a call, which has a number and an id."""

    def __init__(self) -> None:
        self._asked_at: dict[str, float] = {}
        self._news: dict[str, set[tuple[str, int]]] = {}
        """(call id, position) of which there is news."""
        self._wanted: dict[int, tuple[str, dict[str, set[int]]]] = {}
        """By the number of a call, its id, and who listens for which positions."""

    def listen(self, listener: str, number: int, call_id: str, position: int, now: float) -> None:
        """It is told of the next news of that input."""
        self._asked_at[listener] = now
        _, wanted = self._wanted.setdefault(number, (call_id, {}))
        wanted.setdefault(listener, set()).add(position)

    def tell(self, number: int, positions: Collection[int]) -> list[str]:
        """There is news of these positions of a call, of all where there are none; returns who listened."""
        call_id, wanted = self._wanted.get(number, ("", {}))
        told = []
        for listener, listened in list(wanted.items()):
            news = listened.intersection(positions) if positions else set(listened)
            listened.difference_update(news)
            if not listened:
                del wanted[listener]
            if news:
                self._news.setdefault(listener, set()).update((call_id, position) for position in news)
                told.append(listener)
        if not wanted:
            self._wanted.pop(number, None)
        return told

    def ask(self, listener: str, now: float) -> bool:
        """It asks for its news; False: nothing is known of it, so there may have been some."""
        if listener not in self._asked_at:
            return False
        self._asked_at[listener] = now
        return True

    def has_news(self, listener: str) -> bool:
        return listener in self._news

    def take_news(self, listener: str) -> list[tuple[str, int]]:
        """(call id, position) of what it has not been told of."""
        return list(self._news.pop(listener, ()))

    def forget(self, before: float) -> None:
        """Those that have not asked since then are gone."""
        gone = {listener for listener, asked_at in self._asked_at.items() if asked_at < before}
        for listener in gone:
            del self._asked_at[listener]
            self._news.pop(listener, None)
        for number, (_, wanted) in list(self._wanted.items()):
            for listener in gone & wanted.keys():
                del wanted[listener]
            if not wanted:
                del self._wanted[number]

    @property
    def is_empty(self) -> bool:
        """Nobody listens for anything."""
        return not self._wanted
