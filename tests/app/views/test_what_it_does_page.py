"""What an adapter does, on its page through Streamlit's own test driver: as it is kept with a run, found when it is asked for, and refused in a sentence."""

import numpy as np
import pandas as pd
import pytest

from soft_prompt_explorer.analysis.adapters import load_soft_prompt
from soft_prompt_explorer.analysis.behaviour import kept_translation, translation_candidates
from soft_prompt_explorer.analysis.behaviour.translation import best_text, copied, sentence, translate
from soft_prompt_explorer.analysis.behaviour.translation_candidates import inputs_of_task
from soft_prompt_explorer.analysis.core.folders import GALLERY
from soft_prompt_explorer.analysis.models.vocabulary import load_vocabulary
from soft_prompt_explorer.analysis.models.weights import load_model
from soft_prompt_explorer.analysis.tasks.shipped import TASKS
from soft_prompt_explorer.analysis.tasks.task import Task, _loaded
from soft_prompt_explorer.app.parts.widgets import plain
from soft_prompt_explorer.trained_prompts.experiments.kept_translations import put_into_words
from soft_prompt_explorer.trained_prompts.runs import recorded, store
from soft_prompt_explorer.trained_prompts.training.config import TrainingConfig
from tests.support import tiny_models
from tests.support.driving import driver_of, settled

pytestmark = pytest.mark.slow


@pytest.fixture
def larger_toy(monkeypatch):
    """Thirty short inputs with two answers, and one other task for the controls."""
    words = ["the", "cat", "sat", "on", "mat", "a", "new", "line", "of", "text"]
    inputs = [f"{a} {b} {c}" for a in words[:5] for b in words[3:6] for c in words[8:]]
    table = pd.DataFrame({"input": inputs, "target": [" cat", " mat"] * 15, "split": ["train"] * 20 + ["held-out"] * 10})
    task = Task("toy", "Say cat or mat.", "{input}\nAnswer:", (" cat", " mat"), "made here", lambda: table)
    monkeypatch.setitem(TASKS, "toy", task)
    monkeypatch.setattr(translation_candidates, "TASKS", {"toy": task, "plural": TASKS["plural"]})
    yield task
    _loaded.cache_clear()


@pytest.fixture(scope="module")
def model_folder(byte_level_tokenizer, tmp_path_factory):
    """A tiny model that is sure of its answers: where answers differ by 0.0003 nats, as those of random weights do, the shares are float32's rounding."""
    model = tiny_models.random_llama(byte_level_tokenizer, hidden_size=16, intermediate_size=32, num_hidden_layers=2)
    model.lm_head.weight.data *= 100
    return tiny_models.saved(model, byte_level_tokenizer, tmp_path_factory.mktemp("sure") / "sure-llama")


@pytest.fixture
def run(larger_toy, model_folder, own_cache, own_runs):
    config = TrainingConfig(task="toy", model=str(model_folder), tokens=3, steps=20, batch_size=4, init="random", learning_rate=0.1)
    recorded.run(config, "mine", language_model=load_model(config.model, device="cpu"))
    return store.find("mine")


def test_what_is_kept_with_a_run_stands_first_with_the_text_to_copy():
    driver = settled(driver_of("prompt", prompt="plural-words-1"))
    assert not driver.exception and not driver.error
    table = kept_translation.read(GALLERY / "plural-words-1")
    assert driver.subheader[0].value == "What it does" and driver.subheader[1].value == "What it pushes the model towards"
    assert driver.info[0].value == plain(sentence(table))
    assert any(code.value.strip() == copied(best_text(table)["text"]).strip() and "Plural: kings\n" in code.value for code in driver.code)
    assert not any(button.key == "translate" for button in driver.button)


def test_of_a_run_a_text_is_found_when_it_is_asked_for_and_kept_by_a_command(run, model_folder):
    driver = settled(driver_of("prompt", prompt="mine"))
    assert not driver.exception
    driver.button(key="translate").click()
    settled(driver)
    assert not driver.exception and not driver.error
    vocabulary = load_vocabulary(str(model_folder))
    made = translate(load_soft_prompt(run), load_model(str(model_folder), device="cpu"), vocabulary, inputs_of_task(TASKS["toy"]))
    shown = next(frame.value for frame in driver.dataframe if "same_answer" in frame.value)
    assert shown["candidate"].tolist() == made["candidate"].tolist()
    np.testing.assert_allclose(shown["share"], made["share"], atol=1e-4)
    assert any(info.value.startswith(plain(sentence(made))[:40]) for info in driver.info)
    put_into_words(["mine"])
    pd.testing.assert_frame_equal(kept_translation.read(run), made.assign(path=""), atol=1e-4)


def test_too_few_inputs_are_a_sentence_on_the_page(run, larger_toy, monkeypatch):
    few = Task("toy", "", "{input}\nSay:", (" cat", " mat"), "made here", lambda: larger_toy.load().head(4))
    monkeypatch.setitem(TASKS, "toy", few)
    _loaded.cache_clear()
    driver = settled(driver_of("prompt", prompt="mine"))
    driver.button(key="translate").click()
    settled(driver)
    assert not driver.exception
    assert any("12 in all are the fewest" in error.value for error in driver.error)
    assert any(subheader.value == "What it pushes the model towards" for subheader in driver.subheader)


def test_of_a_lora_its_page_offers_to_find_a_text():
    driver = settled(driver_of("lora", lora="sentiment-lora-2"))
    assert not driver.exception
    assert driver.subheader[0].value == "What it does"
