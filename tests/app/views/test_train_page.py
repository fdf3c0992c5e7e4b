"""The page Train through Streamlit's own test driver."""

import threading

import pytest
import torch
from peft import PromptTuningConfig, TaskType, get_peft_model
from streamlit.testing.v1 import AppTest

from soft_prompt_explorer.analysis.models.weights import load_model
from soft_prompt_explorer.analysis.tasks.finding import get_task
from soft_prompt_explorer.app.parts import widgets
from soft_prompt_explorer.app.parts.training_presets import PRESETS
from soft_prompt_explorer.app.server.jobs import JobQueue
from soft_prompt_explorer.trained_prompts.runs.recording import Recording, checkpoint_path
from soft_prompt_explorer.trained_prompts.training.callback import Recorder
from soft_prompt_explorer.trained_prompts.training.config import TrainingConfig
from soft_prompt_explorer.trained_prompts.training.trainer import train
from tests.support.driving import driver_of
from tests.support.waiting import PATIENCE, wait_until

pytestmark = pytest.mark.slow
OWN = b"input,target\n" + b"".join(b"%d,%s\n" % (i, b"even" if i % 2 == 0 else b"odd") for i in range(40))


@pytest.fixture
def page(own_runs):
    def open_page(**query) -> AppTest:
        return driver_of("train", **query).run()

    return open_page


def keys(driver: AppTest) -> set[str]:
    return {element.key for element in (*driver.number_input, *driver.selectbox, *driver.text_input, *driver.toggle)}


def text(driver: AppTest) -> str:
    return "\n".join(element.value for element in (*driver.markdown, *driver.caption))


def pressed(driver: AppTest, label: str) -> AppTest:
    next(button for button in driver.button if button.label == label).click()
    return driver.run()


@pytest.mark.parametrize(
    ("method", "has", "lacks", "learn"),
    [
        ("prompt-tuning", {"tokens", "init", "readable"}, {"rank"}, "5,760 parameters learn"),
        ("p-tuning", {"tokens"}, {"init", "readable", "rank"}, "1,002,816 parameters learn"),
        ("prefix-tuning", {"tokens", "init"}, {"readable", "rank"}, "115,200 parameters learn"),
        ("lora", {"rank", "alpha", "rslora", "targets"}, {"tokens", "init"}, "460,800 parameters learn"),
        ("full", set(), {"tokens", "rank", "init"}, "134,515,008 parameters learn"),
    ],
)
def test_a_method_shows_its_own_settings_and_what_it_takes_before_the_start(page, embedded_model, method, has, lacks, learn):
    driver = page(method=method)
    assert not driver.exception
    assert not driver.error
    assert has <= keys(driver)
    assert not lacks & keys(driver)
    assert learn in text(driver)
    assert "An estimate: **about" in text(driver)


def test_the_learning_rate_is_the_methods_own_until_somebody_changes_it(page):
    driver = page(method="lora")
    assert driver.number_input(key="rate-lora").value == 0.001
    driver.selectbox(key="method").select("full").run()
    assert driver.number_input(key="rate-full").value == 3e-5


def test_a_link_keeps_the_settings(page):
    driver = page(task="plural", steps="7", tokens="3", init="random", seed="5", every="0", readable="0.5")
    assert driver.selectbox(key="task").value == "plural"
    assert driver.selectbox(key="init").value == "random"
    values = [driver.number_input(key=key).value for key in ("steps", "tokens", "seed", "every", "readable")]
    assert values == [7, 3, 5, 0, 0.5]
    assert driver.number_input(key="patience").disabled


def test_what_the_model_computes_in_is_chosen_and_said(page):
    driver = page(dtype="bfloat16", device="cpu")
    assert not driver.exception and not driver.error
    assert (driver.selectbox(key="dtype").value, driver.text_input(key="device").value) == ("bfloat16", "cpu")
    assert "from how fast this machine multiplies" in text(driver)
    assert "The model computes in bfloat16." in text(driver)
    driver.text_input(key="device").set_value("tpu").run()
    assert "There is no device 'tpu' here" in driver.error[0].value and "in the field “Device”" in driver.error[0].value


def test_a_persons_own_examples_are_kept_and_picked(page):
    driver = page()
    driver.file_uploader(key="upload").upload("Even or odd.csv", OWN, "text/csv").run()
    assert not driver.exception
    assert not driver.error
    assert driver.selectbox(key="task").value == "own-even-or-odd"
    assert "own-even-or-odd" in page().selectbox(key="task").options


def test_how_ones_own_examples_are_asked_is_kept_with_them(page):
    driver = page()
    driver.file_uploader(key="upload").upload("Even or odd.csv", OWN, "text/csv").run()
    field = driver.text_area(key="template-own-even-or-odd")
    assert field.value == "{input}\nAnswer:"
    field.set_value("Number: {input}\nParity:").run()
    assert not driver.exception and not driver.error
    assert any(code.value.startswith("Number: ") and "\nParity: " in code.value for code in driver.code)
    assert page(task="own-even-or-odd").text_area(key="template-own-even-or-odd").value == "Number: {input}\nParity:"
    driver.text_area(key="template-own-even-or-odd").set_value("Number:").run()
    assert "nowhere" in driver.error[0].value
    assert get_task("own-even-or-odd").template == "Number: {input}\nParity:"


@pytest.mark.parametrize(("content", "says"), [(b"question,answer\n1,2\n", "no column input"), (b"input,target\n1,\n", "is empty"), (b"", "is empty")])  # fmt: skip
def test_examples_that_are_none_are_refused_in_a_sentence(page, content, says):
    driver = page()
    driver.file_uploader(key="upload").upload("mine.csv", content, "text/csv").run()
    assert not driver.exception
    assert says in driver.error[0].value.replace("\\", "")
    assert driver.selectbox(key="task").value == "sentiment"


def test_settings_that_are_none_get_a_sentence_where_the_person_is(page):
    driver = page(method="prefix-tuning", init="text")
    driver.text_input(key="text").set_value(" ").run()
    assert not driver.exception
    assert "needs the text" in driver.error[0].value


def test_an_unfinished_training_is_listed_and_can_be_discarded(page, own_runs, embedded_model):
    config = TrainingConfig(task="plural", steps=5, tokens=2)
    recording = Recording(config)
    for step in train(config, language_model=embedded_model):
        recording.add(step)
        if step.step == 1:
            recording.write_checkpoint(checkpoint_path("broken-off"))
            break
    driver = page()
    assert "broken-off: prompt-tuning on plural, 1 of 5 steps" in text(driver)
    driver = pressed(driver, "Discard")
    assert "broken-off" not in text(driver)
    assert not list(own_runs.glob(".unfinished/*"))


# ---- what is watched stays


def watched_on(driver: AppTest) -> str | None:
    """The training that the page's link names."""
    return driver.query_params.get("job")


def gone_elsewhere_and_back(driver: AppTest) -> AppTest:
    """As by the menu, whose links say nothing of a training."""
    driver.query_params.clear()
    driver.switch_page("views/learn.py").run()
    driver.query_params.clear()
    return driver.switch_page("views/train.py").run()


@pytest.fixture
def queue(monkeypatch) -> JobQueue:
    """The server's queue, where the test can ask it too."""
    queue = JobQueue()
    monkeypatch.setattr(widgets, "job_queue", lambda: queue)
    return queue


@pytest.fixture
def toy_link(toy_config):
    return {
        "task": "toy",
        "model": "another",
        "other": toy_config.model,
        "steps": "3",
        "tokens": "2",
        "init": "random",
        "every": "0",
        "limit": "10",
    }


def test_a_training_that_ended_while_its_person_was_elsewhere_is_still_shown(page, toy_link, queue):
    driver = page(**toy_link)
    assert "job" not in driver.query_params
    driver.text_input(key="name").set_value("my first one").run()
    assert "my-first-one" in text(driver).replace("\\", "")
    pressed(driver, "Train")
    assert not driver.error and not driver.exception
    job_id = watched_on(driver)
    assert driver.subheader[0].value == "my-first-one"
    wait_until(lambda: not queue.get(job_id).under_way)
    driver = gone_elsewhere_and_back(driver)
    assert watched_on(driver) == job_id
    assert "Saved as my-first-one." in driver.success[0].value.replace("\\", "")
    assert "Read it" in [button.label for button in driver.button]
    assert "held-out" in text(driver)


def test_what_a_stopped_training_has_learned_is_offered_after_a_visit_elsewhere(page, toy_link, queue):
    driver = page(**toy_link | {"steps": "100000"})
    driver.text_input(key="name").set_value("stopped").run()
    pressed(driver, "Train")
    job_id = watched_on(driver)
    wait_until(lambda: queue.get(job_id).steps_done > 2)
    queue.stop(job_id)
    wait_until(lambda: not queue.get(job_id).under_way)
    driver = gone_elsewhere_and_back(driver)
    assert watched_on(driver) == job_id
    assert "not among your runs yet" in driver.warning[0].value
    offered = [button.label for button in driver.button]
    assert "Save what it has learned" in offered and "Resume" in offered
    assert "Unfinished trainings" not in text(driver)  # it is told of once
    pressed(driver, "Discard")
    assert watched_on(driver) is None and len(driver.subheader) == 0


def test_each_training_at_a_click_says_how_long_it_takes_and_what_to_look_for(page, embedded_model):
    driver = page()
    assert not driver.exception and not driver.error
    assert text(driver).count("**Look for:**") == len(PRESETS) == text(driver).count("an estimate from")
    assert [button.label for button in driver.button].count("Train it") == len(PRESETS)


# ---- a script of one's own


def test_a_script_is_followed_while_it_writes(page, own_runs, llama_folder, own_cache):
    driver = page(tab="Follow a script of yours")
    assert not driver.exception
    assert any("ExplorerCallback" in code.value for code in driver.code) and any(
        "recorder.after_step(loss)" in code.value for code in driver.code
    )
    steps, going = threading.Semaphore(0), threading.Semaphore(0)

    def script() -> None:
        torch.manual_seed(1)
        model, tokenizer = load_model(str(llama_folder), device="cpu")
        model = get_peft_model(model, PromptTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=3))
        rows = model.prompt_encoder["default"].embedding.weight
        recorder = Recorder(own_runs / "theirs" / "first", model, tokenizer, every=2)
        for loss in (3.0, 2.0, 1.0, 0.5):
            going.acquire()
            with torch.no_grad():
                rows += 0.5
            recorder.after_step(loss)
            steps.release()
        going.acquire()
        recorder.end()
        steps.release()

    thread = threading.Thread(target=script, daemon=True)
    thread.start()
    for _ in range(2):
        going.release()
        assert steps.acquire(timeout=PATIENCE)
    driver.run()
    assert not driver.exception and not driver.error
    said = text(driver).replace("\\", "")
    assert "theirs/first** · step 2" in said and "The loss falls: 3.00 at first, 2.00 now." in said
    assert "are still nearest to the word" in said and "being recorded now" in driver.info[0].value
    (words,) = [frame.value for frame in driver.dataframe]
    assert words["token"].tolist() == [0, 1, 2]
    for _ in range(3):
        going.release()
        assert steps.acquire(timeout=PATIENCE)
    thread.join(PATIENCE)
    driver.run()
    assert "step 4" in text(driver) and "has ended" in driver.success[0].value
    assert driver.query_params["script"] == "theirs/first"


def test_of_a_script_that_went_on_where_nothing_was_recorded_nothing_is_said_of_the_start(page, own_runs, llama_folder, own_cache):
    model, tokenizer = load_model(str(llama_folder), device="cpu")
    model = get_peft_model(model, PromptTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=3))
    recorder = Recorder(own_runs / "theirs", model, tokenizer, every=1, step=4)
    for loss in (3.0, 2.0):
        recorder.after_step(loss)
    recorder.end()
    driver = page(tab="Follow a script of yours")
    assert not driver.exception and not driver.error
    said = text(driver).partition("step 6")[2]
    assert "The loss falls" in said and "nan" not in said and "are still nearest" not in said


def test_a_record_that_is_damaged_is_refused_in_a_sentence(page, own_runs):
    folder = own_runs / "broken"
    folder.mkdir(parents=True)
    (folder / "explorer.json").write_text("[]")
    (folder / "losses.csv").write_text("step,loss\n1,2\n")
    (folder / "followed.csv").write_text("step,echo_share,drift,norm_ratio,words,direction\n")
    driver = page(tab="Follow a script of yours")
    assert not driver.exception
    assert "cannot be read" in driver.error[0].value
