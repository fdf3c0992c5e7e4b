"""What goes on while a person is elsewhere: it is counted on every page, can be stopped there, says when it is ready, and leads back to where it was asked for."""

import threading
from dataclasses import replace

import pytest
from streamlit.testing.v1 import AppTest

from soft_prompt_explorer.app.pages import HERO, TOKENS
from soft_prompt_explorer.app.parts import prompt_tabs, widgets
from soft_prompt_explorer.app.server import background, jobs
from soft_prompt_explorer.app.server.jobs import JobQueue
from tests.support.driving import driver_of, settled
from tests.support.waiting import PATIENCE, wait_until

pytestmark = pytest.mark.slow


class Held:
    """The verdicts of a prompt, which come when they are let go."""

    def __init__(self, compute) -> None:
        self.gate, self.ended = threading.Event(), threading.Event()
        self._compute = compute

    def __call__(self, prompt, vocabulary, *, report):
        try:
            while not self.gate.wait(0.01):
                report(0.5, "held")
            return self._compute(prompt, vocabulary, report=report)
        finally:
            self.ended.set()


@pytest.fixture
def held(own_runs, monkeypatch):
    it = Held(prompt_tabs.readings_of)
    monkeypatch.setattr(prompt_tabs, "readings_of", it)
    background._background.clear()
    yield it
    it.gate.set()


@pytest.fixture
def queue(own_runs, monkeypatch) -> JobQueue:
    queue = JobQueue()
    monkeypatch.setattr(widgets, "job_queue", lambda: queue)
    return queue


def tray(driver: AppTest) -> list[str]:
    """What the tray says, where there is one."""
    assert not driver.exception
    return [
        each.proto.popover.label
        for each in driver.get("popover")
        if each.proto.popover.label.split()[1:2] in (["running"], ["running,"], ["ready"])
    ]


def elsewhere(driver: AppTest, view: str, **query: str) -> AppTest:
    driver.query_params.clear()
    driver.switch_page(f"views/{view}.py")
    for name, value in query.items():
        driver.query_params[name] = value
    driver.run()
    assert not driver.exception
    return driver


def stop(driver: AppTest) -> None:
    next(button for button in driver.button if button.label == "Stop" and (button.key or "").startswith("tray-")).click()
    driver.run()


def test_what_was_asked_on_one_page_is_running_on_another_and_the_way_back_finds_it_when_it_is_ready(held):
    driver = driver_of("prompt", prompt=HERO, tab=TOKENS).run()
    assert driver.get("progress") and not tray(driver)  # where it was asked for it is told there
    elsewhere(driver, "learn")
    wait_until(lambda: tray(driver.run())[0].startswith("1 running"))  # what else that page asked for comes by itself
    assert not driver.run().toast  # one more: what else was ready has been said
    held.gate.set()
    wait_until(lambda: "running" not in tray(driver.run())[0])
    assert ["the verdicts" in each.value for each in driver.toast] == [True]
    assert not driver.run().toast  # it is said once
    back = next(each.proto for each in driver.get("page_link") if each.proto.label == "Back to Prompt")
    assert {"prompt": HERO, "tab": TOKENS}.items() <= dict(
        each.split("=") for each in back.query_string.replace("+", " ").split("&")
    ).items()
    elsewhere(driver, "prompt", prompt=HERO, tab=TOKENS)
    assert not tray(settled(driver)) and not driver.error
    elsewhere(driver, "learn")
    assert not any("Back to Prompt" in each.proto.label for each in driver.get("page_link"))


def test_what_runs_elsewhere_is_stopped_from_the_tray_and_can_be_started_again_where_it_was_asked(held):
    driver = driver_of("prompt", prompt=HERO, tab=TOKENS).run()
    elsewhere(driver, "learn")
    stop(driver)
    wait_until(held.ended.is_set)
    wait_until(lambda: not any("running" in each for each in tray(driver.run())))
    assert not any("verdicts" in each.value for each in driver.toast)
    elsewhere(driver, "prompt", prompt=HERO, tab=TOKENS)
    assert any("Stopped before the verdicts were ready" in each.value for each in driver.warning)
    held.gate.set()
    next(button for button in driver.button if button.label == "Start again").click()
    assert not any("Stopped before" in each.value for each in settled(driver.run()).warning)


def test_a_training_is_stopped_from_the_tray_and_what_it_has_learned_is_not_lost(queue, toy_config):
    job = queue.submit(replace(toy_config, steps=100_000), "long-one", limit=4)
    wait_until(lambda: queue.get(job).steps_done > 2)
    driver = driver_of("learn").run()
    assert tray(driver) == ["1 running"]
    assert [each.proto.query_string for each in driver.get("page_link") if each.proto.label.replace("\\", "") == "Watch long-one"] == [
        f"job={job}"
    ]
    stop(driver)
    wait_until(lambda: not queue.get(job).under_way)
    assert queue.get(job).state == "stopped"
    assert not tray(driver.run()) and not driver.toast
    elsewhere(driver, "train", job=job)
    assert "not among your runs yet" in driver.warning[0].value


def test_a_training_that_is_saved_while_its_person_goes_from_page_to_page_is_told_of(queue, toy_config, monkeypatch):
    evaluate, gate = jobs.evaluate_run, threading.Event()

    def evaluate_later(*arguments, **named):
        assert gate.wait(PATIENCE)
        return evaluate(*arguments, **named)

    monkeypatch.setattr(jobs, "evaluate_run", evaluate_later)
    job = queue.submit(toy_config, "short", limit=4)
    driver = driver_of("learn").run()
    assert tray(driver) == ["1 running"]
    gate.set()
    wait_until(lambda: not queue.get(job).under_way)
    assert queue.get(job).state == "saved"
    elsewhere(driver, "library")
    assert [each.value.replace("\\", "") for each in driver.toast] == ["Ready: the training short"]
    assert not driver.run().toast and not tray(driver)
