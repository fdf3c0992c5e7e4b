"""The page Train through Streamlit's own test driver."""

import pytest
from streamlit.testing.v1 import AppTest

from soft_prompt_explorer.analysis.tasks.finding import get_task
from soft_prompt_explorer.trained_prompts.runs.recording import Recording, checkpoint_path
from soft_prompt_explorer.trained_prompts.training.config import TrainingConfig
from soft_prompt_explorer.trained_prompts.training.trainer import train
from tests.support.driving import driver_of

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
    assert "broken-off: prompt-tuning on plural, step 1 of 5" in text(driver)
    driver = pressed(driver, "Discard")
    assert "broken-off" not in text(driver)
    assert not list(own_runs.glob(".unfinished/*"))
