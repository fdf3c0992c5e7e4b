"""What is kept of adapters that know nothing, and of words in sentences, never changes a figure, however it is damaged."""

import functools

import numpy as np
import pytest

from soft_prompt_explorer.analysis.adapters import SoftPrompt
from soft_prompt_explorer.analysis.behaviour.contextual import contextual_neighbours, index_of
from soft_prompt_explorer.analysis.behaviour.lens_null import look
from soft_prompt_explorer.analysis.behaviour.unrelated import Watch
from soft_prompt_explorer.analysis.core.kept import KeptArrays
from soft_prompt_explorer.analysis.models.vocabulary import Vocabulary
from soft_prompt_explorer.analysis.models.weights import LanguageModel
from tests.support.damage import MUTATIONS, damage_again_and_again, files_in
from tests.support.figures import figures

TEXTS = ["the cat sat:", "the text of the mat"]
SENTENCES = ["the cat sat on the mat", "a new line of the text", "the café sat on the line"]


def of_lens(prompt: SoftPrompt, model: LanguageModel, vocabulary: Vocabulary) -> list:
    looked = look(prompt, Watch(model, TEXTS), vocabulary, draws=2)
    return [looked.against, *figures(looked.change, looked.kl, looked.common, looked.null_changes, looked.null_kl)]


def of_index(prompt: SoftPrompt, model: LanguageModel, vocabulary: Vocabulary) -> list:
    index = index_of(model, vocabulary, sentences=SENTENCES)
    return [index.key, *figures(index.means, index.states, index.token_ids, index.ids, index.places)]


def of_neighbours(prompt: SoftPrompt, model: LanguageModel, vocabulary: Vocabulary) -> str:
    """Of both: the index, and the random prompts before the model."""
    index = index_of(model, vocabulary, sentences=SENTENCES)
    return contextual_neighbours(prompt, model, vocabulary, index=index, draws=3, top_k=2).to_csv()


KINDS = {"lens": of_lens, "contextual": of_index, "contextual-null": of_neighbours}


@pytest.mark.parametrize("kind", KINDS)
def test_no_damage_to_what_is_kept_ever_changes_a_figure(kind, language_model, own_cache, tmp_path):
    rows = np.random.default_rng(0).standard_normal((2, 3, 16)).astype(np.float32)
    tokens = [f" w{i}" for i in range(300)]
    vocabulary = Vocabulary.from_embeddings(tokens, np.random.default_rng(1).standard_normal((300, 16)).astype(np.float32), model="small")
    prompt = SoftPrompt("mine", rows[0], rows[1], None, None, None)
    KeptArrays(tmp_path / "others" / kind, "it", 1).keep({"u": np.ones((3, 3))})
    figure = functools.partial(KINDS[kind], prompt, language_model, vocabulary)
    figure()
    assert {path.parent.name for path in files_in(own_cache)} >= {kind}
    damage_again_and_again(figure, own_cache / kind, files_in(tmp_path / "others"), MUTATIONS)
