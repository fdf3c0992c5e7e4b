"""What several rooms' tests share: the embedded model, tiny models of random weights, and the command line in this process."""

import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.register_assert_rewrite("tests.support")  # what they assert says what it found, as in a test

from tests.support import commands, places, tiny_models  # noqa: E402

os.environ["HF_HUB_OFFLINE"] = "1"  # read when huggingface_hub is imported: no test asks the real hub


@pytest.fixture(autouse=True)
def own_main() -> Iterator[None]:
    """Streamlit's driver leaves its script as `__main__`, which a process that a later test starts would run."""
    before = sys.modules["__main__"]
    yield
    sys.modules["__main__"] = before


@pytest.fixture
def command(monkeypatch, capsys):
    """Run `python -m analysis` with these arguments inside this process."""
    from soft_prompt_explorer.analysis.__main__ import app

    return commands.caller_of("analysis", app, monkeypatch, capsys)


@pytest.fixture
def training_command(monkeypatch, capsys):
    """Run `python -m trained_prompts` with these arguments inside this process."""
    from soft_prompt_explorer.trained_prompts.__main__ import app

    return commands.caller_of("trained_prompts", app, monkeypatch, capsys)


@pytest.fixture
def own_cache(tmp_path, monkeypatch) -> Iterator[Path]:
    """A cache folder of this test's own, so that made-up models stay out of the person's; and its own temporary one."""
    folder, temporary = tmp_path / "cache", []
    monkeypatch.setenv("SOFT_PROMPT_EXPLORER_CACHE", str(folder))
    monkeypatch.setattr("soft_prompt_explorer.analysis.core.folders._temporary", temporary)
    yield folder
    for beside in temporary:
        beside.cleanup()


@pytest.fixture(scope="session")
def embedded_vocabulary():
    from soft_prompt_explorer.analysis.models.vocabulary import load_vocabulary

    return load_vocabulary(places.EMBEDDED)


@pytest.fixture(scope="module", params=[places.EMBEDDED, "isotropic", "hub-ridden"])
def each_vocabulary(request, tmp_path_factory):
    """The embedded one; 4,000 words in no direction of preference; and one with a common direction, few strong ones, and forty hubs near its mean."""
    from tests.support.made_prompts import made_vocabulary

    if request.param == places.EMBEDDED:
        return request.getfixturevalue("embedded_vocabulary")
    return replace(made_vocabulary(request.param), cache=tmp_path_factory.mktemp("cache"))  # so that its null is drawn once


@pytest.fixture(scope="module")
def words_test(each_vocabulary):
    """Of each of these."""
    from soft_prompt_explorer.analysis.prompts.directions import WordsTest

    return WordsTest(each_vocabulary)


@pytest.fixture(scope="session")
def embedded_map(embedded_vocabulary):
    """The map of the embedded vocabulary, made and kept: minutes on a slow machine, once, whichever of the tests' processes comes first."""
    from filelock import FileLock

    from soft_prompt_explorer.analysis.prompts.projection import vocabulary_map

    with FileLock(str(embedded_vocabulary.cache) + ".tests-lock"):
        return vocabulary_map(embedded_vocabulary)


@pytest.fixture(scope="session")
def embedded_model():
    """The embedded language model and its tokenizer, as transformers load them."""
    from soft_prompt_explorer.analysis.models.weights import load_model

    return load_model(places.EMBEDDED, device="cpu")


@pytest.fixture(scope="session")
def byte_level_tokenizer():
    """A small byte-level BPE tokenizer with one special token, trained on a few sentences."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["the cat sat on the mat", "the naïve café, the 中文 café", "a\nnew\tline of the text"] * 20, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>")


@pytest.fixture(scope="session")
def tiny_llama(byte_level_tokenizer):
    """A Llama of random weights, 16 wide, with five more rows than its tokenizer has tokens."""
    return tiny_models.random_llama(byte_level_tokenizer, hidden_size=16, intermediate_size=32, num_hidden_layers=2)


@pytest.fixture(scope="session")
def llama_folder(tiny_llama, byte_level_tokenizer, tmp_path_factory) -> Path:
    return tiny_models.saved(tiny_llama, byte_level_tokenizer, tmp_path_factory.mktemp("models") / "tiny-llama")


@pytest.fixture(scope="session")
def sharded_llama_folder(tiny_llama, byte_level_tokenizer, tmp_path_factory) -> Path:
    folder = tiny_models.saved(tiny_llama, byte_level_tokenizer, tmp_path_factory.mktemp("models") / "sharded-llama", max_shard_size="20KB")
    assert len(list(folder.glob("*.safetensors"))) > 1
    return folder


@pytest.fixture
def tiny_lora(tiny_llama, tmp_path):
    """A LoRA of the tiny model's q and v in PEFT's own folder, B drawn at random with falling columns."""
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(3)
    model = get_peft_model(tiny_llama, LoraConfig(r=6, lora_alpha=9, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data = torch.randn_like(parameter) * 0.5 ** torch.arange(6)
    model.save_pretrained(tmp_path / "lora")
    model.unload()
    return tmp_path / "lora"


@pytest.fixture
def prompt_file(tmp_path):
    """Save vectors as a .npy and answer its path."""

    def save(vectors: np.ndarray, name: str = "prompt") -> Path:
        path = tmp_path / f"{name}.npy"
        np.save(path, vectors)
        return path

    return save


@pytest.fixture
def own_runs(tmp_path, monkeypatch) -> Path:
    """A folder of this test's own for runs."""
    folder = tmp_path / "runs"
    monkeypatch.setenv("SOFT_PROMPT_EXPLORER_RUNS", str(folder))
    return folder


@pytest.fixture
def toy_task(monkeypatch):
    """Four sentences of different lengths; one label has several tokens, the other one shares its first token with no other."""
    import pandas as pd

    from soft_prompt_explorer.analysis.tasks.shipped import TASKS
    from soft_prompt_explorer.analysis.tasks.task import Task, _loaded

    table = pd.DataFrame(
        {
            "input": ["the cat sat", "the mat", "a new line of the text on the mat", "the text"] * 2,
            "target": [" the cat", " mat", " mat", " the cat"] * 2,
            "split": ["train"] * 4 + ["held-out"] * 4,
        }
    )
    task = Task("toy", "A toy.", "{input}\nAnswer:", (" the cat", " mat"), "made here", lambda: table)
    monkeypatch.setitem(TASKS, "toy", task)
    yield task
    _loaded.cache_clear()


@pytest.fixture
def toy_config(toy_task, llama_folder, own_cache):
    """The toy task on the tiny model: trains in milliseconds, by the same code as the real ones."""
    from soft_prompt_explorer.trained_prompts.training.config import TrainingConfig

    return TrainingConfig(task="toy", model=str(llama_folder), tokens=3, steps=4, batch_size=4, init="random", learning_rate=0.1)


@pytest.fixture
def language_model(llama_folder, own_cache):
    """The tiny model, this test's own, and its tokenizer."""
    from soft_prompt_explorer.analysis.models.weights import load_model

    return load_model(str(llama_folder), device="cpu")


@pytest.fixture
def lora_config(toy_config):
    """A LoRA for the toy task."""
    from soft_prompt_explorer.trained_prompts.training.config import TrainingConfig

    return TrainingConfig(task="toy", model=toy_config.model, method="lora", rank=3, steps=4, batch_size=4, learning_rate=0.05, seed=2)


@pytest.fixture
def saved_lora(lora_config, language_model, own_runs) -> Path:
    """The run of that LoRA, called "mine"."""
    from soft_prompt_explorer.trained_prompts.runs import store
    from soft_prompt_explorer.trained_prompts.runs.scores import evaluate_run
    from tests.support.training import trained

    recording = trained(lora_config, language_model)
    return store.save(recording, "mine", evaluate_run(recording, language_model=language_model))
