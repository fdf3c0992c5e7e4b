"""What readability costs: the words in place of the vectors, and the scores of both beside the bare model's."""

from dataclasses import replace

import numpy as np
import pytest

from soft_prompt_explorer.analysis.adapters import load_soft_prompt
from soft_prompt_explorer.analysis.asking.scores import evaluate
from soft_prompt_explorer.analysis.behaviour.changes import discretised
from soft_prompt_explorer.analysis.models.vocabulary import load_vocabulary
from soft_prompt_explorer.analysis.tasks.finding import get_task
from soft_prompt_explorer.trained_prompts.experiments.trades import COLUMNS, trade
from soft_prompt_explorer.trained_prompts.runs import store
from soft_prompt_explorer.trained_prompts.runs.scores import evaluate_run
from tests.support.plain_calls import nearest_token
from tests.support.training import trained


@pytest.fixture
def vocabulary(toy_config):
    return load_vocabulary(toy_config.model)


@pytest.fixture
def prompts(toy_config, language_model, own_runs):
    """Three runs of the store, not in the order of γ."""
    read = []
    for name, readable in (("endless", float("inf")), ("plain", 0.0), ("drawn", 2.0)):
        recording = trained(replace(toy_config, readable=readable), language_model)
        read.append(load_soft_prompt(store.save(recording, name, evaluate_run(recording, language_model=language_model))))
    return read


def test_every_row_holds_the_scores_that_vectors_and_words_have_by_themselves(prompts, vocabulary, language_model):
    told = []
    table = trade(
        prompts, get_task("toy"), vocabulary, language_model=language_model, limit=3, report=lambda share, doing: told.append(share)
    )
    assert table.columns.tolist() == COLUMNS
    assert table["prompt"].tolist() == ["plain", "drawn", "endless"]
    assert table["readable"].tolist() == [0.0, 2.0, float("inf")]
    by_name = {prompt.name: prompt for prompt in prompts}
    bare = evaluate("", None, "toy", language_model=language_model, limit=3).iloc[0]
    for row in table.itertuples():
        prompt = by_name[row.prompt]
        ids = nearest_token(prompt.embeddings, vocabulary)
        for rows, found in ((prompt.embeddings, row[8:11]), (vocabulary.embeddings[ids], row[11:14])):
            alone = evaluate("", np.array(rows, np.float32), "toy", language_model=language_model, limit=3).iloc[0]
            assert found == (alone["score"], alone["low"], alone["high"])
        assert (row.no_prompt, row.no_prompt_low, row.no_prompt_high) == (bare["score"], bare["low"], bare["high"])
        assert row.words == " ".join(vocabulary.tokens[i].strip() for i in ids)
        assert row.n == 3
    assert told == sorted(told) and told[-1] == pytest.approx(1.0)


def test_of_a_prompt_of_nothing_but_words_the_words_are_the_prompt(prompts, vocabulary):
    plain, endless = prompts[1], prompts[0]
    np.testing.assert_array_equal(discretised(endless, vocabulary).embeddings, endless.embeddings)
    words = discretised(plain, vocabulary)
    assert not np.array_equal(words.embeddings, plain.embeddings)
    np.testing.assert_array_equal(words.embeddings, vocabulary.embeddings[nearest_token(plain.embeddings, vocabulary)])
