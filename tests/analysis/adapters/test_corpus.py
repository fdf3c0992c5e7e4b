"""Files that others trained, where they lie beside this checkout: each gives what its own description says."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from soft_prompt_explorer.analysis.adapters import AdapterError, LoraAdapter, load_adapter
from soft_prompt_explorer.analysis.report.inspection import inspect
from tests.support.places import REPOSITORY

CORPUS = REPOSITORY.parent / "shared" / "corpus"
pytestmark = pytest.mark.skipif(not CORPUS.is_dir(), reason="the corpus is not beside this checkout")

NPY, TORCH = "NumPy array", "PyTorch"
PROMPTS = {
    **{f"google_prompt_tuning_npy/{task}.npy": ((100, 768), "float32", NPY) for task in ("mrpc", "rte", "sst2")},
    "google_prompt_tuning_npy/prompt_5x256_float64.npy": ((5, 256), "float64", NPY),
    **{f"thunlp_tensor/{task}PromptT5Small": ((100, 512), "float32", TORCH) for task in ("IMDB", "MNLI", "QQP", "SST2")},
    **{f"thunlp_tensor/{task}PromptRoberta": ((100, 768), "float32", TORCH) for task in ("IMDB", "MNLI", "QNLI", "SST2")},
    **{f"thunlp_tensor/{task}PromptBert": ((100, 768), "float32", TORCH) for task in ("MNLI", "SST2")},
    **{
        f"tgis_pt/{folder}{file}": (shape, "float32", TORCH if file else "decoder, PyTorch in a folder")
        for folder, shape in (("bloom_sentiment_1", (8, 1024)), ("tiny_starcoder", (6, 768)), ("tinyllama", (7, 64)))
        for file in ("", "/decoder.pt")
    },
    "tgis_pt/mt0_sentiment_both": ((16, 512), "float32", "encoder and decoder, PyTorch in a folder"),
    "tgis_pt/mt0_sentiment_both/encoder.pt": ((8, 512), "float32", TORCH),
    "tgis_pt/mt0_sentiment_both/decoder.pt": ((8, 512), "float32", TORCH),
    "tgis_pt/tinyllama_peft_adapter": ((8, 64), "float32", "safetensors in a folder"),
    "tgis_pt/tinyllama_peft_adapter/adapter_model.safetensors": ((8, 64), "float32", "safetensors"),
    "tgis_pt/tinyllama_peft_adapter_raw": ((8, 64), "float32", "PyTorch in a folder"),
    "tgis_pt/tinyllama_peft_adapter_raw/adapter_model.bin": ((8, 64), "float32", TORCH),
    "peft_prompt_tuning_bloomz": ((8, 1024), "float32", "PEFT folder, PyTorch"),
    "peft_prompt_tuning_bloomz/adapter_model.bin": ((8, 1024), "float32", "PEFT, PyTorch"),
}
LORA = "cloneofsimo_lora/lora_disney.safetensors"
REFUSED = {
    "README.md": "neither",
    "peft_prompt_tuning_bloomz/adapter_config.json": "give the folder that holds both",
    "broken/lfs_pointer_adapter_model.bin": "git lfs pull",
    "broken/not_really.safetensors": "neither",
    "broken/pickled_custom_class.pt": "weights_only",
    "mkultra_json/*.json": "mkultra",
}


def rows_of(path: Path) -> np.ndarray:
    """The vectors in a file or folder, read without this project."""
    if path.is_dir():
        files = sorted((file for file in path.iterdir() if file.suffix in (".pt", ".bin", ".safetensors")), reverse=True)
        return np.concatenate([rows_of(file) for file in files])  # the encoder's before the decoder's
    if path.suffix == ".npy":
        return np.load(path)
    content = load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True, map_location="cpu")
    (tensor,) = content.values() if isinstance(content, dict) else [content]
    return tensor.detach().numpy()


@pytest.mark.parametrize("name", PROMPTS)
def test_a_soft_prompt_holds_what_is_known_of_it(name):
    shape, dtype, form = PROMPTS[name]
    expected = rows_of(CORPUS / name)
    prompt = load_adapter(CORPUS / name)
    assert prompt.embeddings.shape == shape
    assert np.array_equal(prompt.embeddings, expected.astype(np.float32))
    row = inspect([CORPUS / name]).iloc[0]
    assert (row["kind"], row["format"], row["virtual_tokens"], row["width"], row["dtype"]) == ("soft_prompt", form, *shape, dtype)
    assert row["norm_median"] == pytest.approx(np.median(np.linalg.norm(expected.astype(np.float64), axis=1)))
    assert row["sha256"] == prompt.source.sha256


def test_no_file_is_left_out():
    known = {CORPUS / name for name in (*PROMPTS, LORA)} | {path for pattern in REFUSED for path in CORPUS.glob(pattern)}
    assert {path for path in CORPUS.rglob("*") if path.is_file()} <= known


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
    lora = load_adapter(CORPUS / LORA)
    assert isinstance(lora, LoraAdapter)
    assert len(lora) == 192
    assert {factors.rank for factors in lora.modules.values()} == {1}
    assert lora.textual_inversion.metadata["words"] == ["<s1>", "<s2>"]
    assert lora.textual_inversion.embeddings.shape == (2, 768)
    row = inspect([CORPUS / LORA]).iloc[0]
    assert (row["kind"], row["format"], row["dtype"], row["tensors"]) == ("lora", "LoRA (cloneofsimo), safetensors", "float32", 386)
    assert "textual-inversion vectors 2 × 768 (<s1>, <s2>)" in row["notes"]


@pytest.mark.parametrize(("pattern", "word"), REFUSED.items())
def test_what_cannot_be_read_safely_is_refused_in_one_sentence(pattern, word):
    paths = sorted(CORPUS.glob(pattern))
    assert paths
    for path, note in zip(paths, inspect(paths)["notes"], strict=True):
        with pytest.raises(AdapterError, match=word) as error:
            load_adapter(path)
        assert str(error.value) == note
        assert note.isprintable()
        assert note.endswith(".")


def test_every_module_of_the_lora_has_the_spectrum_of_its_formed_update():
    from soft_prompt_explorer.analysis.loras.ranks import spectra, values_of

    adapter = load_adapter(CORPUS / LORA)
    table = spectra(adapter)
    assert table["module"].tolist() == list(adapter.modules)
    for (_, row), factors in zip(table.iterrows(), adapter.modules.values(), strict=True):
        formed = torch.from_numpy(factors.scaling * factors.B.astype(np.float64) @ factors.A)
        short = formed if len(formed) <= formed.shape[1] else formed.T
        squares = torch.linalg.eigvalsh(short @ short.T).numpy()[::-1]  # a fifth of the time of its SVD, and right to 1e-8 of the largest
        expected = np.sqrt(np.clip(squares, 0, None))[: factors.rank]
        assert np.abs(values_of(row) - expected).max() <= 1e-6 * expected[0]
