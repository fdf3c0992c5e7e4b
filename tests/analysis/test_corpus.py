"""Files that others trained, where they lie beside this checkout: each gives what its own description says."""

import numpy as np
import pytest

from analysis.adapters import AdapterError, LoraAdapter, load_adapter
from analysis.inspection import inspect
from tests.conftest import REPOSITORY

CORPUS = REPOSITORY.parent / "shared" / "corpus"
pytestmark = pytest.mark.skipif(not CORPUS.is_dir(), reason="the corpus is not beside this checkout")

PROMPTS = [
    *((f"google_prompt_tuning_npy/{task}.npy", (100, 768), "float32") for task in ("mrpc", "rte", "sst2")),
    ("google_prompt_tuning_npy/prompt_5x256_float64.npy", (5, 256), "float64"),
    *((f"thunlp_tensor/{task}PromptT5Small", (100, 512), "float32") for task in ("IMDB", "MNLI", "QQP", "SST2")),
    *((f"thunlp_tensor/{task}PromptRoberta", (100, 768), "float32") for task in ("IMDB", "MNLI", "QNLI", "SST2")),
    *((f"thunlp_tensor/{task}PromptBert", (100, 768), "float32") for task in ("MNLI", "SST2")),
    ("tgis_pt/bloom_sentiment_1", (8, 1024), "float32"),
    ("tgis_pt/bloom_sentiment_1/decoder.pt", (8, 1024), "float32"),
    ("tgis_pt/mt0_sentiment_both", (16, 512), "float32"),
    ("tgis_pt/mt0_sentiment_both/encoder.pt", (8, 512), "float32"),
    ("tgis_pt/tiny_starcoder", (6, 768), "float32"),
    ("tgis_pt/tinyllama", (7, 64), "float32"),
    ("tgis_pt/tinyllama_peft_adapter", (8, 64), "float32"),
    ("tgis_pt/tinyllama_peft_adapter_raw", (8, 64), "float32"),
    ("tgis_pt/tinyllama_peft_adapter_raw/adapter_model.bin", (8, 64), "float32"),
    ("peft_prompt_tuning_bloomz", (8, 1024), "float32"),
    ("peft_prompt_tuning_bloomz/adapter_model.bin", (8, 1024), "float32"),
]


@pytest.mark.parametrize(("name", "shape", "dtype"), PROMPTS)
def test_a_soft_prompt_has_the_shape_that_is_known_of_it(name, shape, dtype):
    row = inspect([CORPUS / name]).iloc[0]
    assert (row["kind"], row["virtual_tokens"], row["width"], row["dtype"]) == ("soft_prompt", *shape, dtype)
    prompt = load_adapter(CORPUS / name)
    assert prompt.embeddings.shape == shape
    assert row["norm_median"] == pytest.approx(np.median(np.linalg.norm(prompt.embeddings.astype(np.float64), axis=1)))


def test_the_norms_of_googles_prompts_are_those_known_of_them():
    """The lower of the two middle norms, as torch.median has it."""
    for task, known in (("mrpc", 843), ("rte", 868), ("sst2", 1345)):
        norms = np.sort(np.linalg.norm(load_adapter(CORPUS / "google_prompt_tuning_npy" / f"{task}.npy").embeddings, axis=1))
        assert round(float(norms[(len(norms) - 1) // 2])) == known


def test_the_halves_of_an_encoder_decoder_are_told_apart():
    prompt = load_adapter(CORPUS / "tgis_pt" / "mt0_sentiment_both")
    assert [(part.name, len(part)) for part in prompt.split()] == [("mt0_sentiment_both (encoder)", 8), ("mt0_sentiment_both (decoder)", 8)]


def test_a_prompt_that_started_from_text_names_its_base_model():
    prompt = load_adapter(CORPUS / "peft_prompt_tuning_bloomz")
    assert (prompt.base_model, prompt.method) == ("bigscience/bloomz-560m", "PROMPT_TUNING")
    assert prompt.metadata["prompt_tuning_init"] == "TEXT"


def test_the_lora_is_of_rank_one_and_brings_two_words():
    lora = load_adapter(CORPUS / "cloneofsimo_lora" / "lora_disney.safetensors")
    assert isinstance(lora, LoraAdapter)
    assert len(lora) == 192
    assert {factors.rank for factors in lora.modules.values()} == {1}
    assert lora.textual_inversion.metadata["words"] == ["<s1>", "<s2>"]
    assert lora.textual_inversion.embeddings.shape == (2, 768)


@pytest.mark.parametrize(
    ("pattern", "word"),
    [
        ("broken/lfs_pointer_adapter_model.bin", "git lfs pull"),
        ("broken/not_really.safetensors", "neither"),
        ("broken/pickled_custom_class.pt", "weights_only"),
        ("mkultra_json/*.json", "mkultra"),
    ],
)
def test_what_cannot_be_read_safely_is_refused_in_one_sentence(pattern, word):
    paths = sorted(CORPUS.glob(pattern))
    assert paths
    for path, note in zip(paths, inspect(paths)["notes"], strict=True):
        with pytest.raises(AdapterError, match=word) as error:
            load_adapter(path)
        assert str(error.value) == note
        assert note.isprintable()
        assert note.endswith(".")
