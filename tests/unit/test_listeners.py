from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from flexray.core.listeners import Listeners

NAMES, NUMBERS, POSITIONS = st.sampled_from("abc"), st.integers(1, 3), st.integers(0, 3)


def test_a_listener_is_told_of_what_it_listened_for_and_once() -> None:
    listeners = Listeners()
    for position in (1, 2):
        listeners.listen("a", 7, "fc-7", position, now=0.0)
    assert listeners.tell(7, [0, 3]) == listeners.tell(8, []) == []
    assert listeners.tell(7, [0, 1]) == ["a"]
    assert listeners.tell(7, [1]) == []
    assert listeners.has_news("a")
    assert listeners.take_news("a") == [("fc-7", 1)]
    assert listeners.take_news("a") == []
    assert not listeners.has_news("a")
    assert listeners.tell(7, []) == ["a"]
    assert listeners.take_news("a") == [("fc-7", 2)]
    assert listeners.is_empty


def test_whoever_does_not_ask_is_forgotten_with_its_news() -> None:
    listeners = Listeners()
    for name, now in (("a", 0.0), ("b", 0.0)):
        listeners.listen(name, 1, "fc-1", 0, now)
        listeners.listen(name, 2, "fc-2", 0, now)
    listeners.tell(1, [0])
    assert listeners.ask("b", 5.0)
    assert not listeners.ask("nobody", 5.0)
    listeners.forget(before=5.0)
    assert not listeners.ask("a", 6.0)
    assert not listeners.has_news("a")
    assert listeners.take_news("b") == [("fc-1", 0)]
    assert listeners.tell(2, [0]) == ["b"]
    assert listeners.is_empty


class Anything(RuleBasedStateMachine):
    """Against the plainest form: a set of what each listens for, and one of what it was not told of."""

    def __init__(self) -> None:
        super().__init__()
        self.listeners = Listeners()
        self.now = 0.0
        self.asked_at: dict[str, float] = {}
        self.wanted: set[tuple[str, int, int]] = set()
        self.news: set[tuple[str, int, int]] = set()

    @rule(name=NAMES, number=NUMBERS, position=POSITIONS)
    def listen(self, name: str, number: int, position: int) -> None:
        self.now += 1.0
        self.listeners.listen(name, number, f"fc-{number}", position, self.now)
        self.wanted.add((name, number, position))
        self.asked_at[name] = self.now

    @rule(number=NUMBERS, positions=st.sets(POSITIONS))
    def tell(self, number: int, positions: set[int]) -> None:
        told = {one for one in self.wanted if one[1] == number and (not positions or one[2] in positions)}
        assert sorted(self.listeners.tell(number, positions)) == sorted({name for name, *_ in told})
        self.wanted -= told
        self.news |= told

    @rule(name=NAMES)
    def take(self, name: str) -> None:
        mine = {one for one in self.news if one[0] == name}
        taken = self.listeners.take_news(name)
        assert sorted(taken) == sorted((f"fc-{number}", position) for _, number, position in mine)
        self.news -= mine

    @rule(name=NAMES)
    def ask(self, name: str) -> None:
        self.now += 1.0
        assert self.listeners.ask(name, self.now) == (name in self.asked_at)
        if name in self.asked_at:
            self.asked_at[name] = self.now

    @rule(ago=st.floats(0.0, 10.0))
    def forget(self, ago: float) -> None:
        self.listeners.forget(self.now - ago)
        self.asked_at = {name: at for name, at in self.asked_at.items() if at >= self.now - ago}
        self.wanted = {one for one in self.wanted if one[0] in self.asked_at}
        self.news = {one for one in self.news if one[0] in self.asked_at}

    @invariant()
    def is_the_same(self) -> None:
        assert self.listeners.is_empty == (not self.wanted)
        for name in "abc":
            assert self.listeners.has_news(name) == any(one[0] == name for one in self.news)


TestAnything = Anything.TestCase
