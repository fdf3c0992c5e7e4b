"""400 random prompts, of both kinds and from three starts, are told nothing of by the lens and the effect."""

import numpy as np
import pytest

from soft_prompt_explorer.analysis.adapters import load_soft_prompt
from soft_prompt_explorer.analysis.behaviour.lens_null import SEED, displaced, displacement_of, look
from soft_prompt_explorer.analysis.behaviour.unrelated import Watch
from soft_prompt_explorer.analysis.core.folders import GALLERY
from tests.support.says_little import assert_says_little, assert_uniform, p_of_kl, smallest_p

STARTS = ("plural-words-1", "past-tense-random-3", "sentiment-text-1")  # rows of words, random rows, a text
DRAWN = 67  # of each kind, from each start


@pytest.mark.slow
def test_random_prompts_push_no_word_and_are_not_said_to_do_anything(embedded_model, embedded_vocabulary, own_cache):
    watch = Watch(embedded_model, layers=[30])
    own, among_all, far = {0: [], 1: []}, [], []
    for name in STARTS:
        prompt = load_soft_prompt(GALLERY / name)
        looked = look(prompt, watch, embedded_vocabulary, draws=100)
        start, lengths, like = displacement_of(prompt, embedded_vocabulary, SEED)
        (without,) = watch.of_rows(start[None])
        for kind, rows in enumerate((None, like)):
            drawn = list(watch.of_rows(displaced(start, lengths, DRAWN, np.random.default_rng([7, kind]), rows)))
            changes = [(seen.states - without.states).mean(0)[0] for seen in drawn]
            own[kind].extend(smallest_p(changes, looked.null_changes[[kind]], looked, embedded_model))
            among_all.extend(smallest_p(changes, looked.null_changes, looked, embedded_model))
            far.extend(p_of_kl([watch.divergences(seen, without).mean() for seen in drawn], looked.null_kl))
    assert_says_little(np.array(among_all), np.array(far))
    for p in own.values():
        assert_uniform(p)
