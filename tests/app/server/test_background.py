"""Computations beside the pages: shared by key, a place for everybody, and no session that fills the queue. Real threads, held by events."""

import threading

import pytest

from soft_prompt_explorer.app.server.background import AT_ONCE, EACH, EACH_AT_ONCE, Background
from tests.support.waiting import PATIENCE, wait_until


class Held:
    """Computations that wait until they are let go, and the order in which they began."""

    def __init__(self) -> None:
        self.background = Background(lambda session: True)
        self.began: list[str] = []
        self.ended: list[str] = []
        self.gates: dict[str, threading.Event] = {}

    def ask(self, name: str, session: str, *, alone: bool = False):
        gate = self.gates.setdefault(name, threading.Event())

        def compute(report) -> str:
            self.began.append(name)
            while not gate.wait(0.01):
                report(0.5, "held")
            self.ended.append(name)
            return name

        return self.background.work(name, compute, session=session, alone=alone)

    def let_go(self, name: str) -> None:
        self.gates[name].set()


@pytest.fixture
def held():
    it = Held()
    for session in "ab":
        it.background.begin(session)
    yield it
    for gate in it.gates.values():
        gate.set()


def test_two_sessions_that_ask_for_the_same_share_one_computation(held):
    works = {held.ask("same", session) for session in "abab"}
    held.let_go("same")
    (work,) = works
    assert work.future.result(PATIENCE) == "same"
    assert held.began == ["same"]
    assert held.background.done("same") == "same"


def test_a_session_that_asks_for_a_hundred_leaves_a_place_for_another_and_has_only_its_latest_under_way(held):
    works = []
    for i in range(100):
        held.background.begin("a")  # each on a page with other settings
        works.append(held.ask(f"a{i}", "a"))
    other = held.ask("b", "b")
    wait_until(lambda: "b" in held.began)  # none of them was let go
    held.let_go("b")
    assert other.future.result(PATIENCE) == "b"
    assert [i for i, work in enumerate(works) if not work.stop.is_set()] == list(range(100 - EACH, 100))
    left = [f"a{i}" for i in range(100 - EACH, 100)]
    wait_until(lambda: sum(name in left for name in held.began) == EACH_AT_ONCE)
    for name in left:
        held.let_go(name)
    wait_until(lambda: set(left) <= set(held.ended))


def test_what_a_page_shows_is_not_replaced_however_much_it_asks_for(held):
    held.background.begin("a")
    works = [held.ask(f"a{i}", "a") for i in range(3 * EACH)]
    held.background.begin("a")  # the page is drawn again, and asks for the same
    assert [held.ask(f"a{i}", "a") for i in range(3 * EACH)] == works
    assert not any(work.stop.is_set() for work in works)


def test_what_another_session_watches_too_is_not_replaced(held):
    work = held.ask("shared", "a")
    held.ask("shared", "b")
    for i in range(3 * EACH):
        held.background.begin("a")
        held.ask(f"a{i}", "a")
    assert held.ask("shared", "b") is work and not work.stop.is_set()


def test_of_those_that_ask_the_model_another_sessions_comes_right_after_the_one_under_way(held):
    for i in range(5):
        held.ask(f"a{i}", "a", alone=True)
    held.ask("b0", "b", alone=True)
    wait_until(lambda: held.began == ["a0"])
    held.let_go("a0")
    wait_until(lambda: held.began == ["a0", "b0"])
    held.let_go("b0")
    wait_until(lambda: held.began == ["a0", "b0", "a1"])


def test_what_is_watched_comes_before_what_its_person_left(held):
    for i in range(AT_ONCE):
        held.ask(f"full{i}", "ab"[i % 2])
    held.ask("left", "a")
    held.background.begin("a")
    held.ask("shown", "a")
    held.let_go("full0")
    wait_until(lambda: "shown" in held.began)
    assert "left" not in held.began


def test_one_that_waits_is_stopped_at_once_and_one_under_way_at_its_next_report(held):
    under_way = [held.ask(f"full{i}", "ab"[i % 2]) for i in range(AT_ONCE)]
    waiting = held.ask("waiting", "a")
    held.background.stop(waiting)
    assert waiting.future.cancelled()
    held.background.stop(under_way[0])
    assert under_way[0].future.exception(PATIENCE) is not None
    held.ask("next", "b")
    wait_until(lambda: "next" in held.began)
    assert "waiting" not in held.began


def test_who_stops_what_another_page_shows_too_only_leaves_it(held):
    work = held.ask("shared", "a")
    assert held.ask("shared", "b") is work
    held.background.leave("shared", "a")
    assert not work.stop.is_set()
    held.background.leave("shared", "b")
    assert work.future.exception(PATIENCE) is not None
    assert held.ask("shared", "a") is not work


def test_an_error_is_the_askers_and_gives_the_place_back(held):
    for i in range(3 * AT_ONCE):
        work = held.background.work(f"wrong{i}", lambda report: 1 / 0, session="a")
        assert isinstance(work.future.exception(PATIENCE), ZeroDivisionError)
        held.background.begin("a")
    held.ask("after", "a")
    wait_until(lambda: "after" in held.began)
