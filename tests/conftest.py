"""What several rooms' tests share: the embedded model, tiny models of random weights, and the command line in this process."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

os.environ["HF_HUB_OFFLINE"] = "1"  # read when huggingface_hub is imported: no test asks the real hub

EMBEDDED = "smollm2-135m"
REPOSITORY = Path(__file__).parents[1]
PATIENCE = int(
    os.environ.get("PATIENCE", 600)
)  # seconds that a test waits for what must come: a busy machine is slow, and no reason to fail


def wait_until(holds: Callable[[], object]) -> None:
    """Wait until this is true; a failure where it never is."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.05)


class Outcome(NamedTuple):
    status: int
    out: str
    err: str


@pytest.fixture
def command(monkeypatch, capsys):
    """Run `python -m analysis` with these arguments inside this process."""

    def call(*arguments) -> Outcome:
        from soft_prompt_explorer.analysis.__main__ import app
        from soft_prompt_explorer.analysis.command_line import run

        monkeypatch.setattr("sys.argv", ["analysis", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            run(app)
        captured = capsys.readouterr()
        return Outcome(ended.value.code or 0, captured.out, captured.err)

    return call


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

    return load_vocabulary(EMBEDDED)


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

    return load_model(EMBEDDED, device="cpu")


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
    return random_llama(byte_level_tokenizer, hidden_size=16, intermediate_size=32, num_hidden_layers=2)


@pytest.fixture(scope="session")
def llama_folder(tiny_llama, byte_level_tokenizer, tmp_path_factory) -> Path:
    return saved(tiny_llama, byte_level_tokenizer, tmp_path_factory.mktemp("models") / "tiny-llama")


@pytest.fixture(scope="session")
def sharded_llama_folder(tiny_llama, byte_level_tokenizer, tmp_path_factory) -> Path:
    folder = saved(tiny_llama, byte_level_tokenizer, tmp_path_factory.mktemp("models") / "sharded-llama", max_shard_size="20KB")
    assert len(list(folder.glob("*.safetensors"))) > 1
    return folder


@pytest.fixture
def prompt_file(tmp_path):
    """Save vectors as a .npy and answer its path."""

    def save(vectors: np.ndarray, name: str = "prompt") -> Path:
        path = tmp_path / f"{name}.npy"
        np.save(path, vectors)
        return path

    return save


def random_llama(tokenizer, **sizes):
    """A Llama of random weights, always the same for the same sizes, with five more rows than its tokenizer has tokens."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer) + 5, tie_word_embeddings=False, **heads | sizes))


def saved(model, tokenizer, folder: Path, **options) -> Path:
    """The folder of a model and its tokenizer, as save_pretrained writes them."""
    model.save_pretrained(folder, **options)
    tokenizer.save_pretrained(folder)
    return folder


def embedding_rows(model) -> np.ndarray:
    """What the transformers model's own embedding layer answers for every token id."""
    import torch

    layer = model.get_input_embeddings()
    with torch.no_grad():
        return layer(torch.arange(layer.num_embeddings)).float().numpy()


def names_in(folder: Path) -> list[str]:
    """The names of everything in a folder, hidden or not."""
    return sorted(path.name for path in folder.iterdir())
