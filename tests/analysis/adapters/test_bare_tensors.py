"""A prompt is found in what numpy and torch saved, whatever stands around it."""

import zipfile
from pathlib import Path

import pytest
import torch

from soft_prompt_explorer.analysis.adapters import load_adapter
from tests.support.adapter_files import WIDTH, same, torch_saved, values


def test_bfloat16_that_numpy_knows_no_name_for_is_read(prompt_file, vectors):
    saved = torch.tensor(vectors).bfloat16()
    path = prompt_file(saved.view(torch.int16).numpy().view("V2"))  # as numpy.save writes JAX's
    prompt = load_adapter(path)
    assert same(prompt, saved)
    assert prompt.source.dtype == "bfloat16"


@pytest.mark.parametrize("new_format", [True, False], ids=["zip", "before PyTorch 1.6"])
@pytest.mark.parametrize("name", ["prompt.pt", "prompt.bin", "IMDBPrompt", "prompt.npy", "prompt.safetensors"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_a_tensor_of_torch_save_is_read_whatever_its_name(tmp_path, vectors, dtype, name, new_format):
    saved = torch.tensor(vectors).to(dtype)
    prompt = load_adapter(torch_saved(saved, tmp_path / name, _use_new_zipfile_serialization=new_format))
    assert same(prompt, saved)
    assert (prompt.source.format, prompt.source.tensors) == ("PyTorch", 1)
    assert prompt.source.dtype == str(dtype).removeprefix("torch.")


@pytest.mark.parametrize(
    "content",
    [
        lambda rows: rows.requires_grad_(),
        lambda rows: torch.nn.Parameter(rows),
        lambda rows: {"my_tensor": rows},
        lambda rows: {"my_tensor": rows, "step": 3, "note": "mine", "loss": torch.tensor(0.5), "ids": torch.arange(5)},
        lambda rows: {"soft_prompt": rows, "classifier": torch.ones(2, WIDTH)},
        lambda rows: {"model": {"soft_prompt.weight": rows, "head.weight": torch.ones(2, WIDTH)}},
        lambda rows: [rows],
        lambda rows: torch.nn.Embedding.from_pretrained(rows).state_dict(),
        lambda rows: torch.cat([torch.ones(3, WIDTH), rows])[3:],
        lambda rows: rows.T.contiguous().T,
        lambda rows: rows[None],
        lambda rows: {"my_tensor": rows[None], "bias": torch.ones(4)},
    ],
    ids=[
        "it requires grad",
        "a parameter",
        "a dictionary",
        "numbers beside it",
        "a known name among others",
        "a known name deeper down",
        "a list",
        "a state_dict with attributes of its own",
        "a view of a larger tensor",
        "a transposed tensor",
        "an axis of 1 before",
        "a vector beside it",
    ],
)
@pytest.mark.parametrize("new_format", [True, False], ids=["zip", "before PyTorch 1.6"])
def test_the_prompt_is_found_in_what_torch_saved(tmp_path, content, new_format):
    rows = values(5, WIDTH)
    path = torch_saved(content(rows.clone()), tmp_path / "prompt.pt", _use_new_zipfile_serialization=new_format)
    assert same(load_adapter(path), rows)


def on_a_gpu(path: Path) -> Path:
    """The same file as if its tensors had been on a GPU when they were saved: it says so by one word for each storage."""

    def moved(content: bytes) -> bytes:
        cpu, gpu = (b"X" + len(word).to_bytes(4, "little") + word for word in (b"cpu", b"cuda:0"))
        assert cpu in content
        return content.replace(cpu, gpu)

    if not zipfile.is_zipfile(path):
        path.write_bytes(moved(path.read_bytes()))
        return path
    with zipfile.ZipFile(path) as archive:
        files = {record.filename: archive.read(record) for record in archive.infolist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, moved(content) if name.endswith("data.pkl") else content)
    return path


@pytest.mark.parametrize("new_format", [True, False], ids=["zip", "before PyTorch 1.6"])
@pytest.mark.parametrize(
    "content", [lambda rows: rows, lambda rows: {"soft_prompt": torch.nn.Parameter(rows)}], ids=["tensor", "parameter"]
)
def test_a_tensor_saved_on_a_gpu_is_read_without_one(tmp_path, content, new_format):
    rows = values(5, WIDTH)
    path = on_a_gpu(torch_saved(content(rows), tmp_path / "prompt.pt", _use_new_zipfile_serialization=new_format))
    assert b"cuda:0" in path.read_bytes()
    assert same(load_adapter(path), rows)


@pytest.mark.parametrize("shape", [(WIDTH,), (1, WIDTH), (1, 1, WIDTH)])
def test_a_single_vector_is_a_prompt_of_one_token(prompt_file, tmp_path, shape):
    rows = values(*shape)
    for path in (prompt_file(rows.numpy()), torch_saved(rows, tmp_path / "a"), torch_saved({"step": 9, "soft": rows}, tmp_path / "b")):
        assert same(load_adapter(path), rows.reshape(1, WIDTH))


@pytest.mark.parametrize("name", ["prompt_encoder.default.embedding.weight", "base_model.prompt_encoder.mine.embedding.weight"])
def test_a_checkpoint_holds_the_prompt_beside_the_optimizers_state(tmp_path, name):
    rows = torch.nn.Parameter(values(5, WIDTH))
    optimizer = torch.optim.AdamW([rows], lr=0.3)
    rows.square().sum().backward()
    optimizer.step()
    checkpoint = {
        "epoch": 3,
        "global_step": 150,
        "model_state_dict": {name: rows, "word_embeddings.weight": torch.ones(30, WIDTH)},
        "optimizer_state_dict": optimizer.state_dict(),
        "scheduler": {"last_lr": [0.3], "base_lrs": [0.3]},
        "rng": torch.get_rng_state(),
    }
    prompt = load_adapter(torch_saved(checkpoint, tmp_path / "checkpoint-150.pt"))
    assert same(prompt, rows)
    assert prompt.metadata["global_step"] == 150


def test_a_checkpoint_with_one_matrix_beside_the_optimizers_is_that_matrix(tmp_path):
    rows = values(5, WIDTH)
    state = {"state": {0: {"exp_avg": torch.ones(5, WIDTH), "exp_avg_sq": torch.ones(5, WIDTH), "step": torch.tensor(3.0)}}}
    assert same(load_adapter(torch_saved({"prefix": rows, "optimizer": state}, tmp_path / "last.ckpt")), rows)
