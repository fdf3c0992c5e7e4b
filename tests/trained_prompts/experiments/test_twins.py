"""A twin starts where its run starts, sees the same inputs and answers, and cannot learn which belongs to which."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from soft_prompt_explorer.analysis.adapters import load_soft_prompt
from soft_prompt_explorer.analysis.behaviour.of_task import _moved, judged
from soft_prompt_explorer.analysis.behaviour.verdict import judge
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.prompts.directions import points_beyond_twins
from soft_prompt_explorer.analysis.prompts.twins import twins_of
from soft_prompt_explorer.analysis.prompts.verdicts import moved_along_a_word, readings
from soft_prompt_explorer.analysis.tasks.shipped import TASKS
from soft_prompt_explorer.trained_prompts.experiments import kept_behaviour, twins
from soft_prompt_explorer.trained_prompts.runs import store
from soft_prompt_explorer.trained_prompts.runs.scores import evaluate_run
from soft_prompt_explorer.trained_prompts.training.trainer import targets, train
from tests.support.training import trained

FORMAT_ALONE = {
    "too few examples to tell",
    "scores less than no prompt",
    "no more than the form of an answer",
    "neither readable nor causal",
}


@pytest.fixture
def run(toy_config, language_model, own_runs):
    recording = trained(toy_config, language_model)
    return store.save(recording, "mine", evaluate_run(recording, language_model=language_model))


def test_answers_are_dealt_out_anew_and_none_is_lost(toy_config, toy_task):
    table = TASKS["toy"].examples("train")
    own, first, again, second = (targets(replace(toy_config, shuffled=shuffle), table) for shuffle in (None, 1, 1, 2))
    assert own == table["target"].tolist()
    assert Counter(first) == Counter(second) == Counter(own)
    assert first == again and first != own and first != second


def test_a_twin_learns_from_the_shuffled_answers_alone(run, toy_config, language_model):
    """What is kept is what `train` makes of the same settings, and not what the run made of the true answers."""
    twins.make(["mine"], shuffles=(1, 2), limit=4)
    prompt = load_soft_prompt(run)
    made = twins_of([prompt])
    assert [twin.name for twin in made] == ["mine, shuffled 1", "mine, shuffled 2"]
    for shuffle, twin in enumerate(made, start=1):
        *_, last = train(replace(toy_config, shuffled=shuffle), language_model=language_model)
        np.testing.assert_allclose(twin.embeddings, last.embeddings.astype(np.float16), atol=1e-3)
        np.testing.assert_array_equal(twin.initial, prompt.initial)
        assert twin.metadata["twin"]["config"]["shuffled"] == shuffle and twin.metadata["twin"]["n"] == 4
    assert not np.allclose(made[0].embeddings, prompt.embeddings, atol=1e-2)


def test_what_is_no_twin_of_this_prompt_is_left_out(run):
    twins.make(["mine"], limit=4)
    path = run / "twin-1.safetensors"
    content = path.read_bytes()
    prompt = load_soft_prompt(run)
    for damage in (b"", content[: len(content) // 2], b"\xff" * 64, content.replace(b"shuffled", b"shuffles")):
        path.write_bytes(damage)
        assert twins_of([prompt]) == []
    path.write_bytes(content)
    assert len(twins_of([prompt])) == 1
    assert twins_of([replace(prompt, embeddings=prompt.embeddings[:-1], initial=prompt.initial[:-1])]) == []
    assert twins_of([replace(prompt, source=None)]) == twins_of([replace(prompt, initial=None)]) == []


def test_a_run_of_another_method_has_no_twin():
    with pytest.raises(InputError, match="Twins are trained of prompt tuning"):
        twins.twin_config("sentiment-lora-2", 1)


def test_few_tokens_of_twins_move_along_a_word(embedded_vocabulary):
    """That one moves along a word is seen in a twin too, in at most one prompt in ten; a twin that nobody told to be one is read no otherwise."""
    moved = []
    for run in store.list_runs().query("origin == 'gallery' and method == 'prompt-tuning'").itertuples():
        for twin in twins_of([load_soft_prompt(store.adapter_path(run.name))]):
            read = readings(twin, embedded_vocabulary)
            blind = readings(replace(twin, metadata={}, source=None), embedded_vocabulary)
            if run.readable == 0:
                assert blind["verdict"].tolist() == read["verdict"].tolist()
            if run.readable == 0:  # the others were drawn to words
                moved.append(moved_along_a_word(read).any())
    assert len(moved) >= 21
    assert np.mean(moved) <= 0.1


def test_a_twin_whose_token_moved_along_a_word_counts_against_a_prompt_of_which_one_did(embedded_vocabulary):
    """As much as the twin has is nothing that can be read; one token more is."""
    prompt = load_soft_prompt(store.adapter_path("plural-words-1"))
    task, table = kept_behaviour.task_of("plural-words-1"), kept_behaviour.kept("plural-words-1")
    own = twins_of([prompt])
    moved = max(moved_along_a_word(readings(twin, embedded_vocabulary)).sum() for twin in own)
    assert moved == 1
    found = judged(prompt, embedded_vocabulary, task, table)
    for tokens, readable in ((1, False), (2, True)):
        read = found.read.copy()
        read.loc[: tokens - 1, "verdict"], read.loc[: tokens - 1, "p_learned"] = "moved along a word", 0.001
        with_twins = {"direction": found.direction, "vocabulary": embedded_vocabulary, "twins_moved": _moved(own, embedded_vocabulary)}
        assert judge(read, table, **with_twins).readable == readable


def test_two_twins_that_both_name_the_answers_are_not_read_beyond_each_other(embedded_vocabulary):
    prompt = load_soft_prompt(store.adapter_path("antonyms-words-1"))
    one, other = twins_of([prompt])
    found = kept_behaviour.direction_of(one, embedded_vocabulary, kept_behaviour.task_of("antonyms-words-1"), twins=[other])
    assert found.words_p < 0.05 and not found.beyond_twin_p < 0.05
    assert not points_beyond_twins(found)


@pytest.mark.slow
def test_nothing_is_said_to_be_learned_readable_or_causal_of_a_twin():
    """The gallery's own, judged as prompts: a task whose direction names its answers, and its twin's more clearly."""
    table = kept_behaviour.of_twins(["number-words-words-1"], limit=20)
    assert len(table) >= 1
    assert not table["readable"].any() and not table["causal"].any()
    assert set(table["label"]) <= FORMAT_ALONE
