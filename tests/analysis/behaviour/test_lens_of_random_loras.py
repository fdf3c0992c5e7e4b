"""200 random LoRAs are told nothing of by the lens and the effect; apart from the prompts, so that another process can run it."""

import numpy as np
import pytest

from soft_prompt_explorer.analysis.adapters import load_lora
from soft_prompt_explorer.analysis.behaviour.lens_null import look, random_factors
from soft_prompt_explorer.analysis.behaviour.unrelated import Watch, factors_in, factors_of
from soft_prompt_explorer.analysis.core.folders import GALLERY
from tests.support.says_little import assert_says_little, assert_uniform, p_of_kl, smallest_p


@pytest.mark.slow
def test_random_loras_push_no_word_and_are_not_said_to_do_anything(embedded_model, embedded_vocabulary, own_cache):
    watch = Watch(embedded_model, layers=[30])
    lora = load_lora(GALLERY / "capitals-lora-8")
    factors = factors_of(lora)
    values = {path: np.linalg.svd(b @ a, compute_uv=False)[: len(a)] for path, (a, b) in factors.items()}
    looked, bare, rng = look(lora, watch, embedded_vocabulary, draws=100), watch.bare(), np.random.default_rng(8)
    drawn = []
    for _ in range(200):
        with factors_in(embedded_model.model, random_factors(factors, values, rng)):
            drawn.append(watch.bare())
    changes = [(seen.states - bare.states).mean(0)[0] for seen in drawn]
    p = smallest_p(changes, looked.null_changes, looked, embedded_model)
    assert_says_little(p, p_of_kl([watch.divergences(seen, bare).mean() for seen in drawn], looked.null_kl))
    assert_uniform(p)
