"""A prompt that was never trained is told, and a trained one hardly ever is called so."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from soft_prompt_explorer.analysis.adapters import SoftPrompt, Source, load_adapter
from soft_prompt_explorer.analysis.prompts.never_trained import LOOKS_UNTOUCHED, NEVER_TRAINED, untrained
from soft_prompt_explorer.analysis.prompts.starts import recover_initial
from soft_prompt_explorer.analysis.report.inspection import inspect
from soft_prompt_explorer.trained_prompts.runs import store

DRAWS = {
    "torch's Embedding": lambda rng, shape: torch.nn.Embedding(*shape).weight.detach().numpy(),
    "N(0, 0.02²)": lambda rng, shape: 0.02 * rng.normal(size=shape),
    "uniform about 0": lambda rng, shape: rng.uniform(-0.5, 0.5, shape),
    "uniform from 0 to 1": lambda rng, shape: rng.uniform(0, 1, shape),
}


def bare(rows, initial=None, dtype="float32") -> SoftPrompt:
    source = Source("p", "", "", dtype, 1)
    return SoftPrompt("p", np.asarray(rows, dtype=np.float32), initial, None, None, source)


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
@pytest.mark.parametrize("shape", [(20, 576), (8, 512), (100, 768), (2, 4096)])
def test_an_untouched_random_start_is_told_nearly_always(draw, shape):
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    found = [untrained(bare(draw(rng, shape))) for _ in range(60)]
    assert sum(why is not None and why.startswith(LOOKS_UNTOUCHED) for why in found) >= 54  # 97 % on average


@pytest.mark.parametrize("half", [np.float16, "bfloat16"])
def test_what_was_stored_in_16_bits_is_told_too(half):
    rows = np.random.default_rng(1).normal(size=(20, 576)).astype(np.float32)
    stored = torch.from_numpy(rows).to(torch.bfloat16).float().numpy() if half == "bfloat16" else rows.astype(half)
    assert untrained(bare(stored)).startswith(LOOKS_UNTOUCHED)


def test_the_trainers_own_random_start_is_told_by_the_size_of_the_words(embedded_vocabulary):
    from soft_prompt_explorer.trained_prompts.training.config import TrainingConfig
    from soft_prompt_explorer.trained_prompts.training.initial import initial_values

    found = []
    for seed in range(20):
        rows = initial_values(TrainingConfig(task="sentiment", init="random", seed=seed), embedded_vocabulary, None)
        found.append(untrained(bare(rows), embedded_vocabulary))
        assert untrained(bare(rows)) is None  # their size is no trainer's but this vocabulary's
    assert sum(why is not None and why.startswith(LOOKS_UNTOUCHED) for why in found) >= 18


def test_no_trained_prompt_of_the_gallery_is_called_untrained_with_its_start_or_without(embedded_vocabulary):
    runs = store.list_runs()
    names = runs.loc[(runs["origin"] == "gallery") & runs["method"].isin(["prompt-tuning", "p-tuning"]), "name"]
    assert len(names) >= 20
    for name in names:
        prompt = load_adapter(store.adapter_path(name))
        assert prompt.initial is not None
        for known in (prompt, replace(prompt, initial=None)):
            assert untrained(known, embedded_vocabulary) is None
        assert untrained(prompt.at_start(), embedded_vocabulary).startswith(NEVER_TRAINED)


@pytest.mark.parametrize("size", [0.5, 1.0, 2.0])
def test_a_random_start_that_training_moved_by_half_its_length_is_trained(size):
    rng = np.random.default_rng(2)
    shared = rng.normal(size=576)
    for share in (0.0, 0.7):  # each token its own way, and all of them together
        moved = size * (share**0.5 * shared + (1 - share) ** 0.5 * rng.normal(size=(10, 576)))
        assert untrained(bare(rng.normal(size=(10, 576)) + moved)) is None


def test_rows_of_a_vocabulary_are_no_random_start(embedded_vocabulary):
    rng = np.random.default_rng(3)
    for _ in range(100):
        rows = embedded_vocabulary.embeddings[rng.choice(len(embedded_vocabulary), 10)]
        for scale in (1.0, 1 / np.sqrt((rows.astype(np.float64) ** 2).mean())):
            assert untrained(bare(rows * scale), embedded_vocabulary) is None


def test_a_few_values_tell_nothing():
    assert untrained(bare(np.random.default_rng(0).normal(size=(1, 768)))) is None


@pytest.mark.parametrize(("dtype", "cast"), [("float32", torch.float32), ("float16", torch.float16), ("bfloat16", torch.bfloat16)])
def test_rows_equal_to_their_start_up_to_storage_were_never_trained(dtype, cast):
    start = np.random.default_rng(4).normal(size=(6, 64)).astype(np.float32) * 3
    now = torch.from_numpy(start).to(cast).float().numpy()
    assert untrained(bare(now, start, dtype)) == "never trained: every row is the one that it started from"
    now = now * np.array([1, 1, 1, 1, 1, 1.05], dtype=np.float32)[:, None]
    assert untrained(bare(now, start, dtype)) is None


def test_zeros_were_never_trained():
    assert untrained(bare(np.zeros((4, 64)))).startswith(NEVER_TRAINED)


def test_a_start_from_a_quantised_copys_rows_is_judged_by_its_rounding(embedded_vocabulary):
    rng = np.random.default_rng(5)
    rows = embedded_vocabulary.embeddings[2000:2010]
    noise = rng.normal(size=rows.shape)
    noise *= np.linalg.norm(rows, axis=1, keepdims=True) / np.linalg.norm(noise, axis=1, keepdims=True)
    near, far = (recover_initial(bare(rows + size * noise), embedded_vocabulary) for size in (0.005, 0.05))
    assert untrained(near, embedded_vocabulary).startswith("looks never trained")
    assert untrained(far, embedded_vocabulary) is None


def test_inspect_says_so(tmp_path, prompt_file):
    rows = np.random.default_rng(6).normal(size=(20, 576)).astype(np.float32)
    notes = inspect([prompt_file(rows, "random"), prompt_file(rows + 3.0, "moved"), prompt_file(0 * rows, "zero")])["notes"]
    assert LOOKS_UNTOUCHED in notes[0]
    assert "untouched" not in notes[1]
    assert "never trained" not in notes[1]
    assert NEVER_TRAINED in notes[2]
