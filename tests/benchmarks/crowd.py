"""Twenty people at once: what the server answers them, beside what it answers one.

A person is a session over a websocket, as a browser has it, without the browser, which would take the two cores for itself: a page is asked for, and is there when its script has ended.
Everyone walks over the pages in an order of their own and picks tokens and prompts there, and looks at each for a while.
"""

from __future__ import annotations

import random
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from tqdm import tqdm

from tests.benchmarks.measure import alone, load, text_table
from tests.support.served import served
from tests.support.waiting import PATIENCE

PEOPLE = 20
LOOKS = (4.0, 12.0)  # seconds for which a person looks at what was answered
ROUNDS = 3  # walks of the one who is alone
SLOWER = 5.0  # times as long as alone at most
STEPS = (  # page, and what its link says
    ("start", ""),
    ("library", ""),
    ("prompt", "prompt=past-tense-words-1"),
    *(("prompt", f"prompt=past-tense-words-1&tab=Tokens&token={token}") for token in (0, 3, 7)),
    ("lora", "lora=sentiment-lora-8&tab=Ranks"),
    ("atlas", ""),
    ("atlas", "selected=3"),
    ("train", ""),
    ("learn", "step=2"),
)


class Session:
    """A person's connection to the dashboard."""

    def __init__(self, address: str) -> None:
        from websockets.sync.client import connect

        self._socket = connect(
            f"ws://{urlsplit(address).netloc}/_stcore/stream",
            origin=address,
            subprotocols=["streamlit"],
            max_size=None,
            open_timeout=PATIENCE,
        )

    def ask(self, page: str, query: str) -> tuple[float, list[str]]:
        """Go to a page: the seconds until its script has ended, and what it says is wrong."""
        from streamlit.proto.BackMsg_pb2 import BackMsg
        from streamlit.proto.ForwardMsg_pb2 import ForwardMsg

        asked = BackMsg()
        asked.rerun_script.page_name, asked.rerun_script.query_string = page, query
        began, wrong = time.perf_counter(), []
        self._socket.send(asked.SerializeToString())
        while True:
            message = ForwardMsg.FromString(self._socket.recv(timeout=PATIENCE))
            kind, element = message.WhichOneof("type"), message.delta.new_element
            if kind == "delta" and element.WhichOneof("type") == "exception":
                wrong.append(element.exception.message)
            elif kind == "delta" and element.WhichOneof("type") == "alert" and element.alert.format == element.alert.ERROR:
                wrong.append(element.alert.body)
            elif kind == "script_finished" and message.script_finished == ForwardMsg.FINISHED_SUCCESSFULLY:
                return time.perf_counter() - began, wrong
            elif kind == "script_finished" and message.script_finished == ForwardMsg.FINISHED_WITH_COMPILE_ERROR:
                return time.perf_counter() - began, [*wrong, "the script does not compile"]

    def close(self) -> None:
        self._socket.close()


def tables() -> Iterator[str]:
    with (
        tempfile.TemporaryDirectory() as folder,
        served(Path(folder) / "server.log", SOFT_PROMPT_EXPLORER_RUNS=f"{folder}/runs") as address,
    ):
        yield _table(address)


def _table(address: str) -> str:
    _walk(address, STEPS, looks=(1.5, 1.5))  # what is computed once is there then
    alone = [_walk(address, STEPS, looks=(0.2, 0.2)) for _ in range(ROUNDS)]
    each: list[dict] = []

    def come(seed: int) -> None:
        order = random.Random(seed)
        time.sleep(order.uniform(0, LOOKS[1]))
        each.append(_walk(address, order.sample(STEPS, len(STEPS)), looks=LOOKS, order=order, bar=bar))

    with tqdm(total=PEOPLE * len(STEPS), desc="twenty people", file=sys.stderr) as bar:
        people = [threading.Thread(target=come, args=(seed,)) for seed in range(PEOPLE)]
        for person in people:
            person.start()
        for person in people:
            person.join()
    rows, ratios = [], []
    for step in STEPS:
        one = statistics.median(walk[step][0] for walk in alone)
        many = sorted(walk[step][0] for walk in each)
        ratios.append(statistics.quantiles(many, n=20)[-1] / one)
        rows.append(
            [
                "/".join(filter(None, step)),
                f"{one:.2f} s",
                f"{statistics.median(many):.2f} s",
                f"{statistics.quantiles(many, n=20)[-1]:.2f} s",
                f"{ratios[-1]:.1f} ×",
            ]
        )
    waits = [seconds / statistics.median(walk[step][0] for walk in alone) for walk in each for step, (seconds, _) in walk.items()]
    p95 = statistics.quantiles(waits, n=20)[-1]
    wrong = [said for walk in [*alone, *each] for _, said in walk.values() for said in said] + ["a person was not answered"] * (
        PEOPLE - len(each)
    )
    rows.append(
        [
            "all, each beside its own page alone",
            "",
            f"{statistics.median(waits):.1f} ×",
            f"{p95:.1f} ×",
            f"{'kept' if p95 <= SLOWER else 'missed'} (≤ {SLOWER:g} ×)",
        ]
    )
    return text_table(
        f"{PEOPLE} people at once, the server's answer",
        ["", "alone", "median", "p95", "beside alone"],
        rows,
        f"Each looks at a page for {LOOKS[0]:g} to {LOOKS[1]:g} s. Errors: {len(wrong)}{': ' + wrong[0] if wrong else ''}. {load()}",
    )


def _walk(
    address: str,
    steps: Sequence[tuple[str, str]],
    *,
    looks: tuple[float, float],
    order: random.Random | None = None,
    bar: tqdm | None = None,
) -> dict:
    """One session over these pages: what each took and what it said is wrong."""
    session, seen = Session(address), {}
    order = order or random.Random(0)
    try:
        for step in steps:
            seen[step] = session.ask(*step)
            if bar is not None:
                bar.update()
            time.sleep(order.uniform(*looks))
    finally:
        session.close()
    return seen


if __name__ == "__main__":
    alone(tables)
