"""What others trained is read back to the last bit; what is no soft prompt is refused in one sentence."""

import functools
import json
import os
import pickle
import shutil
import warnings

import numpy as np
import pytest
import torch
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from safetensors.torch import save_file

from soft_prompt_explorer.analysis.adapters import AdapterError, load_adapter, load_soft_prompt
from soft_prompt_explorer.analysis.report.inspection import inspect
from tests.support import adapter_files


def edit_config(folder, **changes):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


refusal = functools.partial(adapter_files.refusal, load=load_soft_prompt)


# --- What can be read ------------------------------------------------------------------------------------------------


def test_a_peft_folder_is_read_as_peft_holds_it(peft_model, peft_folder, llama_folder):
    prompt = load_adapter(peft_folder)
    assert np.array_equal(prompt.embeddings, peft_model.prompt_encoder["default"].embedding.weight.detach().numpy())
    assert prompt.embeddings.dtype == np.float32
    assert (len(prompt), prompt.width) == (5, 16)
    assert prompt.name == "adapter"
    assert prompt.base_model == str(llama_folder)
    assert prompt.method == "PROMPT_TUNING"
    assert prompt.initial is None
    assert prompt.metadata["num_virtual_tokens"] == 5


def test_an_encoder_decoders_prompt_holds_tokens_for_both_halves(tmp_path, byte_level_tokenizer):
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(vocab_size=300, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, decoder_start_token_id=0)
    model = get_peft_model(T5ForConditionalGeneration(config), PromptTuningConfig(task_type="SEQ_2_SEQ_LM", num_virtual_tokens=3))
    model.save_pretrained(tmp_path / "adapter")
    prompt = load_adapter(tmp_path / "adapter")
    assert np.array_equal(prompt.embeddings, model.prompt_encoder["default"].embedding.weight.detach().numpy())
    assert len(prompt) == 6


def test_initial_values_beside_a_peft_adapter_are_read(peft_folder):
    initial = torch.randn(5, 16)
    save_file({"initial": initial}, peft_folder / "initial.safetensors")
    assert np.array_equal(load_adapter(peft_folder).initial, initial.numpy())


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_a_npy_file_of_any_float_is_read(prompt_file, vectors, dtype, order):
    saved = np.asarray(vectors, dtype=dtype, order=order)
    prompt = load_adapter(prompt_file(saved, "mine"))
    assert np.array_equal(prompt.embeddings, saved.astype(np.float32))
    assert prompt.embeddings.dtype == np.float32
    assert prompt.name == "mine"
    assert (prompt.base_model, prompt.method, prompt.initial) == (None, None, None)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_a_bare_safetensors_file_of_any_float_is_read(tmp_path, vectors, dtype):
    saved = torch.tensor(vectors).to(dtype)
    save_file({"prompt_embeddings": saved, "other": torch.zeros(3)}, tmp_path / "prompt.safetensors")
    assert np.array_equal(load_adapter(tmp_path / "prompt.safetensors").embeddings, saved.to(torch.float32).numpy())


def test_the_only_matrix_of_a_safetensors_file_is_the_prompt_whatever_its_name(tmp_path, vectors):
    save_file({"my.tensor": torch.tensor(vectors), "step": torch.tensor([3.0])}, tmp_path / "prompt.safetensors")
    assert np.array_equal(load_adapter(tmp_path / "prompt.safetensors").embeddings, vectors.astype(np.float32))


def test_the_content_decides_and_not_the_name(prompt_file, vectors):
    path = prompt_file(vectors)
    shutil.move(path, path.with_suffix(".bin"))
    assert np.array_equal(load_adapter(path.with_suffix(".bin")).embeddings, vectors.astype(np.float32))


def test_a_prompt_can_be_given_a_name(prompt_file, vectors):
    assert load_adapter(prompt_file(vectors), name="sentiment").name == "sentiment"


# --- What is refused -------------------------------------------------------------------------------------------------


def test_a_missing_file_is_refused(tmp_path):
    assert "no file or folder" in refusal(tmp_path / "missing.npy")


def test_an_empty_file_is_refused(tmp_path):
    (tmp_path / "prompt.npy").touch()
    assert "empty" in refusal(tmp_path / "prompt.npy")


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"positive, negative\n", "neither"),
        (b"\x93NUM", "neither"),
        (b"\x80\x04\x95", "pickle"),
        (b"PK\x03\x04" + bytes(40), "zip"),
        (b"{}", "JSON"),
        (b"{" * 10_000, "JSON"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n", "run git lfs pull"),
    ],
)
def test_a_file_that_is_no_array_is_refused_for_what_it_is(tmp_path, content, word):
    (tmp_path / "prompt.npy").write_bytes(content)
    assert word in refusal(tmp_path / "prompt.npy")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (pickle.dumps([1.0, 2.0], protocol=4), "save the tensor alone"),
        (b"PK\x03\x04" + bytes(40), "end is missing"),
        (b"{}", "JSON"),
        (b"[[0.1, 0.2]]", "JSON"),
        (b"{", "starts like JSON"),
        (b'{"peft_type": "LORA"}', "config without its weights"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "this is a pointer, run git lfs pull"),
        (b'{"metadata": {"name": "x"}, "tensor": "gASV"}', "numpy.save"),
    ],
)
def test_a_file_of_another_kind_is_refused_by_what_it_is(tmp_path, content, told):
    (tmp_path / "prompt").write_bytes(content)
    assert told in refusal(tmp_path / "prompt")


def test_a_git_lfs_pointer_in_a_folder_is_told_from_weights(peft_folder):
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    (peft_folder / "adapter_model.safetensors").write_bytes(pointer)
    assert "run git lfs pull" in refusal(peft_folder)
    (peft_folder / "adapter_model.safetensors").rename(peft_folder / "other.bin")
    (peft_folder / "adapter_config.json").unlink()
    assert "run git lfs pull" in refusal(peft_folder)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_refused_by_their_place(prompt_file, vectors, value):
    vectors[2, 3] = value
    assert "row 2, column 3" in refusal(prompt_file(vectors))


def test_values_beyond_float32_are_refused(prompt_file, vectors):
    vectors[2, 3] = 1e39
    assert "range of float32" in refusal(prompt_file(vectors))


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((2, 0, 16)),
        np.zeros((1, 1, 3, 16)),
        np.zeros((0, 16)),
        np.zeros((5, 0)),
        np.float64(1.0),
        np.zeros((5, 16), dtype=np.int64),
        np.zeros((5, 16), dtype=bool),
        np.zeros((5, 16), dtype=complex),
        np.zeros((5, 16), dtype="U3"),
        np.zeros(5, dtype=[("a", "f4"), ("b", "f4")]),
        np.zeros((20_000, 2)),
    ],
    ids=lambda array: f"{array.dtype}-{array.shape}",
)
def test_an_array_that_is_no_matrix_of_floats_is_refused(prompt_file, array):
    refusal(prompt_file(array))


def test_a_pickle_in_a_npy_file_is_refused_and_not_run(tmp_path):
    class Planted:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "planted"),)

    with (tmp_path / "prompt.npy").open("wb") as file:
        np.save(file, np.array([[Planted()]], dtype=object), allow_pickle=True)
    refusal(tmp_path / "prompt.npy")
    assert not (tmp_path / "planted").exists()


@pytest.mark.parametrize("shape", [(5, 10**6), (10**9, 10**9), (-1, 16), (2**63, 2**63)])
def test_a_npy_header_that_promises_more_than_the_file_holds_is_refused(tmp_path, shape):
    with (tmp_path / "prompt.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
        file.write(bytes(320))
    refusal(tmp_path / "prompt.npy")


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"[1, 2]",
        b"{'descr': '<f4', 'shape': (5, 16)}",
        b"{1: 2, 'descr': '<f4'}",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (5, 16",
        b"{'descr': 'no such type', 'fortran_order': False, 'shape': (5, 16)}",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (5, 'x')}",
        b"(" * 9000,
        b"'''",
        b"\xff\xfe",
        b" " * 20_000,
    ],
    ids=lambda header: repr(header[:40]),
)
def test_a_broken_npy_header_is_refused(tmp_path, header):
    (tmp_path / "prompt.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(320))
    refusal(tmp_path / "prompt.npy")


@pytest.mark.parametrize("kept", [20, 100, 200, -1])
def test_truncated_safetensors_are_refused(tmp_path, vectors, kept):
    save_file({"prompt_embeddings": torch.tensor(vectors)}, tmp_path / "whole")
    (tmp_path / "prompt.safetensors").write_bytes((tmp_path / "whole").read_bytes()[:kept])
    refusal(tmp_path / "prompt.safetensors")


def test_a_safetensors_header_over_a_megabyte_is_refused(tmp_path, vectors):
    save_file({"prompt_embeddings": torch.tensor(vectors)}, tmp_path / "prompt.safetensors", metadata={"padding": "x" * 2**20})
    assert "header" in refusal(tmp_path / "prompt.safetensors").lower()


@pytest.mark.parametrize(
    "header", [b"{" + b"[" * 5000, b'{"a": 1}      ', b'{"__metadata__": 3}', b'{"prompt_embeddings": {}}', b"{\xff\xff}"]
)
def test_a_broken_safetensors_header_is_refused(tmp_path, header):
    (tmp_path / "prompt.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(320))
    refusal(tmp_path / "prompt.safetensors")


@pytest.mark.parametrize(
    "tensors",
    [
        {"first": torch.zeros(5, 16), "second": torch.zeros(5, 17)},
        {"prompt_embeddings": torch.zeros(5, 16, dtype=torch.int32)},
        {"prompt_embeddings": torch.zeros(5, 16).to(torch.float8_e4m3fn)},
        {"first": torch.zeros(16), "second": torch.zeros(16)},
        {"first\n\x1b[31m": torch.zeros(5, 16), "second": torch.zeros(5, 17)},
    ],
    ids=["two-matrices", "integers", "float8", "no-matrix", "name-with-control-characters"],
)
def test_safetensors_that_hold_no_one_prompt_are_refused(tmp_path, tensors):
    save_file(tensors, tmp_path / "prompt.safetensors")
    refusal(tmp_path / "prompt.safetensors")


def quantised() -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they are to go, and files with them are to stay
        return torch.quantize_per_tensor(torch.zeros(5, 16), 0.1, 0, torch.quint8)


@pytest.mark.parametrize(
    "content",
    [
        torch.zeros(5, 16).to_sparse(),
        quantised(),
        torch.zeros(5, 16, device="meta"),
        torch.zeros(5, 16, dtype=torch.complex64),
        {},
        [],
        "a prompt",
        None,
        torch.nn.Linear(2, 2),
    ],
    ids=["sparse", "quantised", "no-values", "complex", "nothing", "no-tensor", "text", "none", "a-module"],
)
def test_what_torch_saved_that_is_no_dense_tensor_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "prompt.pt")
    refusal(tmp_path / "prompt.pt")


@pytest.mark.parametrize("content", ["", "{", "[]", "3", "[" * 100_000, "\ufeff{}", "{}"], ids=lambda content: content[:5])
def test_a_peft_config_that_is_no_prompt_tunings_is_refused(peft_folder, content):
    (peft_folder / "adapter_config.json").write_text(content, encoding="utf-8")
    refusal(peft_folder)


def test_a_peft_config_that_is_not_utf8_is_refused(peft_folder):
    (peft_folder / "adapter_config.json").write_bytes(b'{"peft_type": "\xff"}')
    refusal(peft_folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"peft_type": "IA3"},
        {"peft_type": None},
        {"peft_type": ["PROMPT_TUNING"]},
        {"peft_type": "LORA\n\x1b[31m"},
        {"num_virtual_tokens": 4},
        {"num_virtual_tokens": "many"},
    ],
    ids=str,
)
def test_a_peft_config_that_does_not_fit_its_weights_is_refused(peft_folder, changes):
    edit_config(peft_folder, **changes)
    refusal(peft_folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"prefix_task_cols": torch.ones(3, 4, 2)},
        {"prefix_task_rows": torch.ones(2, 2, 16)},
        {"prefix_task_rows": torch.ones(3, 2, 15)},
        {"prefix_task_cols": torch.ones(3, 5)},
        {"prefix_task_cols": torch.full((3, 5, 2), torch.nan)},
    ],
    ids=["tokens", "tasks", "width", "axes", "nan"],
)
def test_task_factors_that_do_not_fit_the_prompt_are_refused(tmp_path, changes):
    tensors = {"prompt_embeddings": torch.ones(5, 16), "prefix_task_cols": torch.ones(3, 5, 2), "prefix_task_rows": torch.ones(3, 2, 16)}
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "MULTITASK_PROMPT_TUNING", "num_virtual_tokens": 5}))
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    load_adapter(tmp_path)
    save_file(tensors | changes, tmp_path / "adapter_model.safetensors")
    refusal(tmp_path)


def test_a_lora_is_no_soft_prompt(peft_folder, llama_folder, tmp_path):
    from transformers import AutoModelForCausalLM

    lora = get_peft_model(AutoModelForCausalLM.from_pretrained(llama_folder), LoraConfig(target_modules=["q_proj"]))
    lora.save_pretrained(tmp_path / "lora")
    assert "is a LoRA of 2 modules" in refusal(tmp_path / "lora")


def test_a_peft_folder_without_weights_is_refused(peft_folder):
    (peft_folder / "adapter_model.safetensors").unlink()
    assert "adapter_model.safetensors" in refusal(peft_folder)


@pytest.mark.parametrize(
    "tensors", [{"initial": torch.zeros(4, 16)}, {"other": torch.zeros(5, 16)}, {"initial": torch.full((5, 16), torch.nan)}]
)
def test_initial_values_that_do_not_fit_are_refused(peft_folder, tensors):
    save_file(tensors, peft_folder / "initial.safetensors")
    assert "initial" in refusal(peft_folder)


@pytest.mark.parametrize("files", [[], ["README.md"], [f"file-{i}.txt" for i in range(9)]])
def test_a_folder_without_an_adapter_is_refused_by_what_it_holds(tmp_path, files):
    for name in files:
        (tmp_path / name).touch()
    sentence = refusal(tmp_path)
    assert "adapter_config.json" in sentence
    assert (files[0] if files else "nothing") in sentence


@pytest.mark.parametrize("kind", ["npy", "safetensors"])
def test_every_damaged_copy_is_read_or_refused(tmp_path, vectors, kind):
    whole = tmp_path / "whole"
    if kind == "npy":
        with whole.open("wb") as file:
            np.save(file, vectors.astype(np.float32))
    else:
        save_file({"prompt_embeddings": torch.tensor(vectors, dtype=torch.float32)}, whole, metadata={"made": "by a test"})
    rng = np.random.default_rng(7)
    refused = 0
    for _ in range(300):
        content = bytearray(whole.read_bytes())
        for place in rng.integers(0, 140, size=rng.integers(1, 4)):
            content[place] = rng.integers(256)
        (tmp_path / "damaged").write_bytes(content)
        try:
            assert np.isfinite(load_adapter(tmp_path / "damaged").embeddings).all()
        except AdapterError as error:
            assert str(error).isprintable()
            refused += 1
    assert refused > 100


# --- What inspect says of them ---------------------------------------------------------------------------------------


def test_inspect_measures_what_is_in_a_file(prompt_file, peft_folder, llama_folder):
    array = np.zeros((3, 4), dtype=np.float16)
    array[:, 0] = [3, 4, 0]
    array[1, 1] = 3
    table = inspect([prompt_file(array), peft_folder])
    assert list(table.columns) == (
        [
            "path",
            "kind",
            "format",
            "tensors",
            "virtual_tokens",
            "width",
            "dtype",
            "base_model",
            "method",
            "norm_median",
            "sha256",
            "notes",
            "effective_rank",
        ]
    )
    row = table.iloc[0]
    assert (row["kind"], row["virtual_tokens"], row["width"], row["dtype"], row["tensors"]) == ("soft_prompt", 3, 4, "float16", 1)
    assert row["norm_median"] == 3.0
    assert "base model is unknown" in row["notes"]
    row = table.iloc[1]
    assert (row["base_model"], row["method"], row["virtual_tokens"]) == (str(llama_folder), "PROMPT_TUNING", 5)


def test_the_sha256_is_that_of_the_file_with_the_tensor(peft_folder):
    import hashlib

    expected = hashlib.sha256((peft_folder / "adapter_model.safetensors").read_bytes()).hexdigest()
    assert inspect([peft_folder])["sha256"].tolist() == [expected]


def test_a_prompt_of_zeros_or_of_repeated_rows_is_remarked_on(prompt_file):
    zeros, repeated = inspect([prompt_file(np.zeros((3, 4)), "zeros"), prompt_file(np.eye(4)[[0, 1, 1]], "repeated")])["notes"]
    assert "zero" in zeros
    assert "1 of 3 rows repeat" in repeated


def test_a_table_never_holds_an_unprintable_character_from_a_strangers_file(peft_folder):
    edit_config(peft_folder, base_model_name_or_path="model\n\x1b[31m\u202e")
    row = inspect([peft_folder]).iloc[0]
    assert all(cell.isprintable() for cell in row if isinstance(cell, str))
