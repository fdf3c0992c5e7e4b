"""Soft prompts in every layout that others write them in, read as PEFT, numpy and torch hold them."""

import hashlib
import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import MultitaskPromptTuningConfig, PrefixTuningConfig, PromptEncoderConfig, PromptTuningConfig, get_peft_model
from safetensors.torch import save_file

from soft_prompt_explorer.analysis.adapters import AdapterError, SoftPrompt, load_adapter, load_soft_prompt
from soft_prompt_explorer.analysis.report.inspection import inspect

WIDTH = 16  # of every model here


def values(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.fixture
def vectors() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(5, WIDTH))


@pytest.fixture
def make_peft(llama_folder):
    """A PEFT model over a tiny Llama, or over a tiny T5 where the config is for an encoder-decoder."""
    from transformers import AutoModelForCausalLM, T5Config, T5ForConditionalGeneration

    def make(config):
        torch.manual_seed(2)
        if config.task_type == "CAUSAL_LM":
            model = AutoModelForCausalLM.from_pretrained(llama_folder)
        else:
            sizes = {"d_model": WIDTH, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}
            model = T5ForConditionalGeneration(T5Config(vocab_size=300, **sizes, decoder_start_token_id=0))
        return get_peft_model(model, config).eval()

    return make


@pytest.fixture
def peft_folder(make_peft, tmp_path) -> Path:
    make_peft(ENCODED["prompt tuning"]).save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


def torch_saved(content, path: Path, **options) -> Path:
    torch.save(content, path, **options)
    return path


def same(prompt: SoftPrompt, expected) -> bool:
    """Whether a prompt's rows are these to the last bit, as float32."""
    expected = expected.detach().float().numpy() if isinstance(expected, torch.Tensor) else np.asarray(expected, dtype=np.float32)
    return prompt.embeddings.dtype == np.float32 and np.array_equal(prompt.embeddings, expected)


def refusal(path: Path) -> str:
    """The sentence that refuses a path."""
    with pytest.raises(AdapterError) as error:
        load_adapter(path)
    assert str(error.value).isprintable()
    assert str(error.value).endswith(".")
    return str(error.value)


# --- PEFT's folders ---------------------------------------------------------------------------------------------------


ENCODED = {
    "prompt tuning": PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=5),
    "p-tuning by an MLP": PromptEncoderConfig(task_type="CAUSAL_LM", num_virtual_tokens=5, encoder_hidden_size=12),
    "p-tuning by an LSTM": PromptEncoderConfig(
        task_type="CAUSAL_LM", num_virtual_tokens=5, encoder_hidden_size=12, encoder_reparameterization_type="LSTM"
    ),
    "an encoder-decoder's": PromptTuningConfig(task_type="SEQ_2_SEQ_LM", num_virtual_tokens=3),
    "an encoder-decoder's p-tuning": PromptEncoderConfig(task_type="SEQ_2_SEQ_LM", num_virtual_tokens=3, encoder_hidden_size=12),
}


@pytest.mark.parametrize("safetensors", [True, False], ids=["safetensors", "bin"])
@pytest.mark.parametrize("config", ENCODED.values(), ids=ENCODED)
def test_a_prompt_is_what_peft_gives_the_model(make_peft, tmp_path, config, safetensors):
    model = make_peft(config)
    model.save_pretrained(tmp_path / "adapter", safe_serialization=safetensors)
    weights = tmp_path / "adapter" / ("adapter_model.safetensors" if safetensors else "adapter_model.bin")
    received = model.get_prompt(batch_size=1)[0]

    for path in (tmp_path / "adapter", weights):
        prompt = load_adapter(path)
        assert same(prompt, received)
        assert prompt.method == config.peft_type.value
        assert prompt.source.format == (f"PEFT{' folder' if path.is_dir() else ''}, {'safetensors' if safetensors else 'PyTorch'}")
    (tmp_path / "adapter" / "adapter_config.json").unlink()
    for path in (tmp_path / "adapter", weights):
        prompt = load_adapter(path)
        assert same(prompt, received)
        assert (prompt.method, prompt.base_model) == (None, None), "without the config nobody knows"
        assert "without adapter_config.json" in prompt.notes[0]


@pytest.mark.parametrize("task_type", ["CAUSAL_LM", "SEQ_2_SEQ_LM"])
@pytest.mark.parametrize("ranks", [1, 2])
def test_multitask_prompt_tuning_splits_into_what_the_model_receives_for_each_task(make_peft, tmp_path, task_type, ranks):
    config = MultitaskPromptTuningConfig(task_type=task_type, num_virtual_tokens=4, num_tasks=3, num_ranks=ranks)
    model = make_peft(config)
    model.save_pretrained(tmp_path / "adapter")
    prompt = load_adapter(tmp_path / "adapter")
    encoder = model.prompt_encoder["default"]
    halves = ("encoder", "decoder") if task_type == "SEQ_2_SEQ_LM" else ("",)

    assert same(prompt, encoder.embedding.weight)
    assert prompt.task_factors.shape == (3, len(prompt), WIDTH)
    assert "3 tasks" in prompt.notes[0]
    expected = {"shared": encoder.embedding.weight}
    for task in range(3):
        indices = torch.arange(len(prompt))[None]
        expected[f"task {task}"] = encoder(indices, torch.tensor([task]))[0].detach()
    named = {part.name: part.embeddings for part in prompt.split()}
    assert list(named) == [f"adapter ({label}) ({half})" if half else f"adapter ({label})" for label in expected for half in halves]
    for label, rows in expected.items():
        found = np.concatenate([part for name, part in named.items() if f"({label})" in name])
        np.testing.assert_allclose(found, rows.detach().numpy(), rtol=1e-5, atol=1e-8)


def received_by(model, **inputs) -> dict[str, torch.Tensor]:
    """The embeddings that the two halves of a T5 are given in PEFT's own forward pass."""
    seen = {}
    hooks = [
        half.register_forward_pre_hook(lambda _, __, given, name=name: seen.update({name: given.get("inputs_embeds")}), with_kwargs=True)
        for name, half in (("encoder", model.get_base_model().encoder), ("decoder", model.get_base_model().decoder))
    ]
    with torch.no_grad():
        model(**inputs)
    for hook in hooks:
        hook.remove()
    return seen


@pytest.mark.parametrize("peft_type", [PromptTuningConfig, MultitaskPromptTuningConfig])
def test_an_encoder_decoders_first_rows_are_the_encoders(make_peft, tmp_path, peft_type):
    model = make_peft(peft_type(task_type="SEQ_2_SEQ_LM", num_virtual_tokens=3))
    tasks = {"task_ids": torch.tensor([0])} if peft_type is MultitaskPromptTuningConfig else {}
    words = {"input_ids": torch.tensor([[7, 8]]), "attention_mask": torch.ones(1, 2), "labels": torch.tensor([[5, 6]])}
    seen = received_by(model, **words, **tasks)
    model.save_pretrained(tmp_path / "adapter")
    prompt = load_adapter(tmp_path / "adapter")
    assert prompt.parts == (("encoder", 3), ("decoder", 3))
    encoder, decoder = prompt.split()[-2:]
    assert (encoder.name.split()[-1], decoder.name.split()[-1]) == ("(encoder)", "(decoder)")
    np.testing.assert_allclose(encoder.embeddings, seen["encoder"][0, :3].numpy(), rtol=1e-5, atol=1e-8)
    if peft_type is MultitaskPromptTuningConfig:
        np.testing.assert_allclose(decoder.embeddings, seen["decoder"][0, :3].numpy(), rtol=1e-5, atol=1e-8)
    else:
        assert seen["decoder"] is None, "of prompt tuning PEFT gives the decoder nothing, though it saves rows for it"
    notes = inspect([tmp_path / "adapter"])["notes"].item()
    assert "tokens 0 to 2 are the encoder's; tokens 3 to 5 are the decoder's" in notes


@pytest.mark.parametrize("projected", [False, True])
def test_a_prefix_holds_the_keys_and_values_of_every_layer(make_peft, tmp_path, projected):
    model = make_peft(PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=5, prefix_projection=projected, encoder_hidden_size=12))
    model.save_pretrained(tmp_path / "adapter")
    prefix = load_adapter(tmp_path / "adapter")
    assert (prefix.kind, prefix.method, prefix.parts) == ("prefix", "PREFIX_TUNING", ())
    cache = model.get_prompt(batch_size=1).layers
    heads = 2
    rows = prefix.embeddings.reshape(5, len(cache), 2, heads, WIDTH // heads)  # keys, then values, of one layer after the other
    for i, layer in enumerate(cache):
        assert np.array_equal(layer.keys[0].detach().numpy(), rows[:, i, 0].transpose(1, 0, 2))
        assert np.array_equal(layer.values[0].detach().numpy(), rows[:, i, 1].transpose(1, 0, 2))
    row = inspect([tmp_path / "adapter"]).iloc[0]
    assert (row["kind"], row["virtual_tokens"], row["width"]) == ("prefix", 5, 2 * 2 * WIDTH)
    assert "keys and values of every layer, not input embeddings: 2 layers of 2 × 16" in row["notes"]


def test_a_prefix_has_no_neighbours_and_the_command_says_why(make_peft, tmp_path, command, llama_folder, own_cache):
    make_peft(PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=5)).save_pretrained(tmp_path / "adapter")
    prefix = load_adapter(tmp_path / "adapter")
    with pytest.raises(AdapterError, match="keys and values of every layer"):
        prefix.check_is_embeddings()
    with pytest.raises(AdapterError, match="keys and values of every layer"):
        prefix.check_width(prefix.width, "any model")
    outcome = command("neighbours", tmp_path / "adapter", "--model", llama_folder)
    assert (outcome.status, outcome.out) == (2, "")
    assert "keys and values of every layer and no input embeddings" in outcome.err
    assert "Traceback" not in outcome.err


def test_the_config_beside_belongs_to_peft_weights_alone(peft_folder, prompt_file, vectors):
    prompt_file(vectors).rename(peft_folder / "mine.npy")
    assert load_adapter(peft_folder / "mine.npy").method is None


# --- Bare tensors -----------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("config", [ENCODED["p-tuning by an MLP"], ENCODED["p-tuning by an LSTM"]], ids=["MLP", "LSTM"])
def test_a_raw_checkpoint_of_p_tuning_is_refused_since_its_embedding_is_not_the_prompt(make_peft, tmp_path, config):
    model = make_peft(config)
    trained = {name: tensor for name, tensor in model.state_dict().items() if "prompt_encoder" in name}
    assert not np.array_equal(trained["prompt_encoder.default.embedding.weight"], model.get_prompt(1)[0].detach())
    path = torch_saved({"model": trained, "step": 3}, tmp_path / "checkpoint.pt")
    assert "encoder that makes the prompt" in refusal(path)


# --- Pairs of files, folders and zips --------------------------------------------------------------------------------


def test_an_encoders_and_a_decoders_file_are_one_prompt(tmp_path):
    encoder, decoder = values(4, WIDTH), values(3, WIDTH)
    torch_saved(encoder, tmp_path / "encoder.pt")
    torch_saved(decoder, tmp_path / "decoder.pt")
    prompt = load_adapter(tmp_path)
    assert same(prompt, torch.cat([encoder, decoder]))
    assert prompt.parts == (("encoder", 4), ("decoder", 3))
    first, second = prompt.split()
    assert same(first, encoder) and same(second, decoder)
    digests = [hashlib.sha256((tmp_path / name).read_bytes()).digest() for name in ("encoder.pt", "decoder.pt")]
    assert prompt.source.sha256 == hashlib.sha256(b"".join(digests)).hexdigest()
    assert prompt.source.format == "encoder and decoder, PyTorch in a folder"
    assert same(load_adapter(tmp_path / "decoder.pt"), decoder)


@pytest.mark.parametrize("half", ["encoder", "decoder"])
def test_one_of_the_two_files_alone_is_a_whole_prompt(tmp_path, half):
    rows = values(4, WIDTH)
    torch_saved(rows, tmp_path / f"{half}.pt")
    prompt = load_adapter(tmp_path)
    assert same(prompt, rows)
    assert prompt.parts == ()
    assert prompt.source.sha256 == hashlib.sha256((tmp_path / f"{half}.pt").read_bytes()).hexdigest()


@pytest.mark.parametrize(
    "decoder", [values(3, 8), {"a": values(3, WIDTH), "b": values(3, WIDTH)}, torch.arange(3)], ids=["width", "two", "integers"]
)
def test_halves_that_do_not_go_together_are_refused(tmp_path, decoder):
    torch_saved(values(4, WIDTH), tmp_path / "encoder.pt")
    torch_saved(decoder, tmp_path / "decoder.pt")
    refusal(tmp_path)


@pytest.mark.parametrize("name", ["prompt.npy", "prompt.pt", "weights"])
def test_a_folder_with_one_file_of_tensors_is_that_file(tmp_path, vectors, name):
    np.save(tmp_path / "saved.npy", vectors)
    (tmp_path / "saved.npy").rename(tmp_path / name)
    (tmp_path / "README.md").write_text("A prompt.")
    assert same(load_adapter(tmp_path), vectors)


def test_a_folder_with_several_files_of_tensors_is_refused_by_their_names(tmp_path, vectors):
    for name in ("first.npy", "second.npy"):
        np.save(tmp_path / name, vectors)
    assert "first.npy, second.npy" in refusal(tmp_path)


def zipped(folder: Path, path: Path, *, inside: str = "", more: dict[str, bytes] | None = None, how: int = zipfile.ZIP_DEFLATED) -> Path:
    """A zip of a folder's files, within a folder of its own where `inside` names one."""
    with zipfile.ZipFile(path, "w", how) as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, f"{inside}{file.name}")
        for name, content in (more or {}).items():
            archive.writestr(name, content)
    return path


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


LITTER = {
    "__MACOSX/adapter/._adapter_model.safetensors": b"\0\5\26\7",
    "__MACOSX/._adapter": b"\0\5\26\7",
    "adapter/.DS_Store": b"Bud1",
    "adapter/": b"",
}


@pytest.mark.parametrize("how", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED], ids=["stored", "packed"])
@pytest.mark.parametrize("inside", ["", "adapter/", "my adapters/adapter/"])
@pytest.mark.parametrize("litter", [{}, LITTER], ids=["alone", "with litter"])
def test_a_zip_of_a_peft_folder_is_the_folder(peft_folder, tmp_path, inside, litter, how):
    save_file({"initial": values(5, WIDTH)}, peft_folder / "initial.safetensors")
    path = zipped(peft_folder, tmp_path / "download", inside=inside, more=litter, how=how)
    prompt, folder = load_adapter(path), load_adapter(peft_folder)
    assert same(prompt, folder.embeddings)
    assert np.array_equal(prompt.initial, folder.initial)
    assert (prompt.name, prompt.method, prompt.base_model) == ("download", "PROMPT_TUNING", folder.base_model)
    assert prompt.source.format == "PEFT zip, safetensors"
    assert prompt.source.path == path
    assert prompt.source.sha256 == folder.source.sha256, "of the file with the tensors"


@pytest.mark.parametrize("how", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED], ids=["stored", "packed"])
def test_a_zip_of_koboldai_is_read(tmp_path, how):
    rows = values(5, WIDTH)
    meta = {"name": "Mine", "author": "me", "supported": "gpt-neo-2.7B", "description": "A style."}
    path = tmp_path / "mine.zip"
    with zipfile.ZipFile(path, "w", how) as archive:
        archive.writestr("tensor.npy", npy(rows.numpy()))
        archive.writestr("meta.json", json.dumps(meta))
    prompt = load_adapter(path)
    assert same(prompt, rows)
    assert meta.items() <= prompt.metadata.items()
    assert prompt.source.format == "NumPy array in a zip"


def test_a_zip_of_two_adapters_is_refused(peft_folder, tmp_path):
    more = {"second/adapter_config.json": b"{}", "second/adapter_model.safetensors": b""}
    assert "several files called adapter_config.json" in refusal(zipped(peft_folder, tmp_path / "two.zip", inside="first/", more=more))


@pytest.mark.parametrize("files", [{}, {"README.md": b"A prompt."}])
def test_a_zip_without_an_adapter_is_refused_by_what_it_holds(tmp_path, files):
    (tmp_path / "folder").mkdir()
    sentence = refusal(zipped(tmp_path / "folder", tmp_path / "nothing.zip", more=files))
    assert f"The zip {tmp_path / 'nothing.zip'} holds {next(iter(files), 'nothing')}" in sentence


# --- Textual inversion -----------------------------------------------------------------------------------------------


def diffusers_word(path: Path, rows: torch.Tensor) -> Path:
    save_file({"<cat-toy>": rows}, path)
    return path


def diffusers_word_in_a_pickle(path: Path, rows: torch.Tensor) -> Path:
    return torch_saved({"<cat-toy>": rows}, path)


def word_of_the_web_interface(path: Path, rows: torch.Tensor) -> Path:
    content = {"string_to_token": {"*": 265}, "string_to_param": {"*": rows.requires_grad_()}, "name": "cat", "step": 999}
    return torch_saved(content | {"sd_checkpoint": "0123abcd", "sd_checkpoint_name": "v1-5"}, path)


def word_of_the_web_interface_in_safetensors(path: Path, rows: torch.Tensor) -> Path:
    save_file({"emb_params": rows}, path, metadata={"name": "cat"})
    return path


@pytest.mark.parametrize("shape", [(1, 24), (3, 24), (24,)])
@pytest.mark.parametrize(
    ("write", "word"),
    [
        (diffusers_word, "<cat-toy>"),
        (diffusers_word_in_a_pickle, "<cat-toy>"),
        (word_of_the_web_interface, "*"),
        (word_of_the_web_interface_in_safetensors, "emb_params"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_vectors_of_a_new_word_are_read(tmp_path, write, word, shape):
    rows = values(*shape)
    found = load_adapter(write(tmp_path / "learned_embeds", rows.clone()))
    assert same(found, rows.reshape(-1, 24))
    assert (found.kind, found.method) == ("textual_inversion", "TEXTUAL_INVERSION")
    assert found.metadata["words"] == [word] * len(found)
    row = inspect([found.source.path]).iloc[0]
    assert (row["kind"], row["virtual_tokens"], row["width"]) == ("textual_inversion", len(found), 24)
    assert f"stands for {word}" in row["notes"]


def test_several_new_words_are_told_apart(tmp_path):
    words = {"<s1>": values(24), "<s2>": values(2, 24)}
    save_file(words, tmp_path / "words.safetensors")
    found = load_adapter(tmp_path / "words.safetensors")
    assert same(found, torch.cat([words["<s1>"][None], words["<s2>"]]))
    assert found.metadata["words"] == ["<s1>", "<s2>", "<s2>"]


def test_new_words_for_two_text_encoders_are_refused(tmp_path):
    save_file({"<s1>": values(24), "<s2>": values(32)}, tmp_path / "words.safetensors")
    assert "several text encoders" in refusal(tmp_path / "words.safetensors")


def test_new_words_beside_a_lora_come_with_it(tmp_path):
    word, down, up = values(1, 24), values(2, 8), values(8, 2)
    save_file({"<s1>": word, "unet:0:down": down, "unet:0:up": up}, tmp_path / "lora.safetensors")
    lora = load_adapter(tmp_path / "lora.safetensors")
    assert list(lora.modules) == ["unet:0"]
    assert same(lora.textual_inversion, word)
    assert lora.textual_inversion.name == "lora (words)"
    assert same(load_soft_prompt(tmp_path / "lora.safetensors"), word)
    row = inspect([tmp_path / "lora.safetensors"]).iloc[0]
    assert row["kind"] == "lora"
    assert "textual-inversion vectors 1 × 24 (<s1>)" in row["notes"]
