"""200 random prompts are told nothing of by the lens and the effect."""

import numpy as np
import pytest

from soft_prompt_explorer.analysis.adapters import load_soft_prompt
from soft_prompt_explorer.analysis.behaviour.lens_null import displaced, look
from soft_prompt_explorer.analysis.behaviour.unrelated import Watch
from soft_prompt_explorer.analysis.core.folders import GALLERY
from tests.support.says_little import assert_says_little


@pytest.mark.slow
def test_random_prompts_push_no_word_and_are_not_said_to_do_anything(embedded_model, embedded_vocabulary, own_cache):
    watch = Watch(embedded_model, layers=[30])
    prompt = load_soft_prompt(GALLERY / "plural-words-1")
    lengths = np.linalg.norm(prompt.embeddings - prompt.initial, axis=1)
    looked = look(prompt, watch, embedded_vocabulary, draws=100)
    (start,) = watch.of_rows(prompt.initial[None])
    drawn = list(watch.of_rows(displaced(prompt.initial, lengths, 200, np.random.default_rng(7))))
    changes = [(seen.states - start.states).mean(0)[0] for seen in drawn]
    assert_says_little(changes, [watch.divergences(seen, start).mean() for seen in drawn], looked, embedded_model)
