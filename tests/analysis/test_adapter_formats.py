"""Soft prompts in every layout that others write them in, read as PEFT, numpy and torch hold them."""

import json
import zipfile

import numpy as np
import pytest
import torch
from peft import MultitaskPromptTuningConfig, PrefixTuningConfig, PromptEncoderConfig, PromptTuningConfig, get_peft_model
from safetensors.torch import load_file, save_file

from analysis.adapters import AdapterError, load_adapter, load_soft_prompt
from analysis.inspection import inspect

ROWS = torch.randn(5, 16, generator=torch.Generator().manual_seed(0))


def assert_holds(path, rows=ROWS):
    assert np.array_equal(load_adapter(path).embeddings, rows.float().numpy())


# --- PEFT ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def peft_folder(llama_folder, tmp_path):
    """Save a PEFT model of this config, and answer it with its folder."""

    def save(config):
        from transformers import AutoModelForCausalLM

        torch.manual_seed(1)
        model = get_peft_model(AutoModelForCausalLM.from_pretrained(llama_folder), config)
        model.save_pretrained(tmp_path / "adapter")
        return model.eval(), tmp_path / "adapter"

    return save


def as_pickle(folder):
    """The same adapter with `.bin` weights."""
    weights = folder / "adapter_model.safetensors"
    torch.save({name: tensor.requires_grad_() for name, tensor in load_file(weights).items()}, folder / "adapter_model.bin")
    weights.unlink()


@pytest.mark.parametrize("pickled", [False, True])
@pytest.mark.parametrize("config", [PromptTuningConfig, PromptEncoderConfig])
def test_a_prompt_is_what_the_peft_model_puts_in_front(peft_folder, config, pickled):
    options = {"encoder_hidden_size": 8} if config is PromptEncoderConfig else {}
    model, folder = peft_folder(config(task_type="CAUSAL_LM", num_virtual_tokens=5, **options))
    if pickled:
        as_pickle(folder)
    expected = model.get_prompt(batch_size=1)[0].detach()
    prompt = load_adapter(folder)
    assert torch.allclose(torch.tensor(prompt.embeddings), expected, atol=1e-6)
    assert prompt.method == json.loads((folder / "adapter_config.json").read_text())["peft_type"]
    weights = next(folder.glob("adapter_model.*"))
    assert np.array_equal(load_adapter(weights).embeddings, prompt.embeddings)
    assert load_adapter(weights).method == prompt.method, "the config beside says what the weights are"
    (folder / "adapter_config.json").unlink()
    for path in (folder, weights):
        bare = load_adapter(path)
        assert np.array_equal(bare.embeddings, prompt.embeddings)
        assert bare.method is None
        assert "method is unknown" in bare.notes[0]


def test_of_several_tasks_each_ones_prompt_is_what_peft_makes_of_its_factors(peft_folder):
    model, folder = peft_folder(MultitaskPromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=5, num_tasks=3, num_ranks=1))
    shared, *tasks = load_adapter(folder).split()
    assert shared.name == "adapter (shared)"
    assert [task.name for task in tasks] == [f"adapter (task {i})" for i in range(3)]
    for i, task in enumerate(tasks):
        with torch.no_grad():
            expected = model.get_prompt(batch_size=1, task_ids=torch.tensor([i]))[0]
        assert np.allclose(task.embeddings, expected.numpy(), atol=1e-6)


def test_the_first_rows_of_an_encoder_decoder_go_to_the_encoder(tmp_path):
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(vocab_size=300, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, decoder_start_token_id=0)
    torch.manual_seed(0)
    base = T5ForConditionalGeneration(config)
    model = get_peft_model(base, PromptTuningConfig(task_type="SEQ_2_SEQ_LM", num_virtual_tokens=3)).eval()
    model.save_pretrained(tmp_path / "adapter")
    seen = []
    base.encoder.register_forward_pre_hook(lambda module, args, kwargs: seen.append(kwargs["inputs_embeds"]), with_kwargs=True)
    with torch.no_grad():
        model(input_ids=torch.tensor([[5, 6]]), labels=torch.tensor([[7]]))
    encoder, decoder = load_adapter(tmp_path / "adapter").split()
    assert (encoder.name, decoder.name) == ("adapter (encoder)", "adapter (decoder)")
    assert np.array_equal(encoder.embeddings, seen[0][0, :3].numpy())
    assert np.array_equal(decoder.embeddings, model.prompt_encoder["default"].embedding.weight[3:].detach().numpy())


def test_a_prefix_is_shown_as_keys_and_values_and_never_read_as_words(peft_folder, command):
    _, folder = peft_folder(PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4))
    row = inspect([folder]).iloc[0]
    assert (row["kind"], row["virtual_tokens"], row["width"]) == ("prefix", 4, 2 * 2 * 16)
    assert "2 layers of 2 × 16" in row["notes"]
    outcome = command("neighbours", folder)
    assert outcome.status == 2
    assert "keys and values" in outcome.err


# --- Bare tensors ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["prompt.pt", "prompt.bin", "Prompt", "prompt.npy", "prompt.safetensors"])
def test_a_tensor_of_torch_save_is_read_whatever_its_name(tmp_path, dtype, name):
    torch.save(ROWS.to(dtype), tmp_path / name)
    assert_holds(tmp_path / name, ROWS.to(dtype))
    assert load_adapter(tmp_path / name).source.dtype == str(dtype).removeprefix("torch.")


@pytest.mark.parametrize(
    "content",
    [
        torch.nn.Parameter(ROWS),
        ROWS.clone().requires_grad_(),
        {"anything": ROWS},
        {"prompt_embeddings": ROWS, "other": torch.zeros(7, 3)},
        ROWS[None],
        {
            "model": {"soft_prompt": ROWS, "head": torch.zeros(4, 4)},
            "step": 3,
            "optimizer": {"state": {0: {"exp_avg": torch.zeros(5, 16)}}},
        },
        {"state_dict": {"prompt_encoder.default.embedding.weight": ROWS, "base.weight": torch.zeros(9, 9)}},
        {"epoch": 1, "soft_prompt.weight": ROWS, "bias": torch.zeros(3, 3)},
        [ROWS, torch.zeros(3)],
        ROWS.t().contiguous().t(),
    ],
    ids=["parameter", "grad", "dict", "named", "three", "checkpoint", "raw-peft", "weight", "list", "strided"],
)
@pytest.mark.parametrize("new", [True, False], ids=["zip", "old"])
def test_the_prompt_is_found_in_what_torch_saved(tmp_path, content, new):
    torch.save(content, tmp_path / "checkpoint", _use_new_zipfile_serialization=new)
    assert_holds(tmp_path / "checkpoint")


@pytest.mark.parametrize("rows", [ROWS[0], ROWS[:1]])
def test_a_vector_is_a_prompt_of_one_token(tmp_path, rows):
    torch.save(rows, tmp_path / "one.pt")
    np.save(tmp_path / "one.npy", rows.numpy())
    for name in ("one.pt", "one.npy"):
        assert_holds(tmp_path / name, ROWS[:1])


def test_a_tensor_that_was_saved_on_a_gpu_is_read_on_the_cpu(tmp_path):
    torch.save(ROWS, tmp_path / "cpu.pt")
    with zipfile.ZipFile(tmp_path / "cpu.pt") as saved, zipfile.ZipFile(tmp_path / "gpu.pt", "w") as patched:
        for record in saved.infolist():
            content = saved.read(record)
            if record.filename.endswith("data.pkl"):  # the place is a string of the pickle: BINUNICODE, length, text
                assert b"X\x03\x00\x00\x00cpu" in content
                content = content.replace(b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0")
            patched.writestr(record.filename, content)
    assert_holds(tmp_path / "gpu.pt")


def test_bfloat16_as_numpy_keeps_it_is_read(tmp_path):
    halves = ROWS.bfloat16()
    np.save(tmp_path / "prompt.npy", halves.view(torch.uint16).numpy().view("V2"))
    assert_holds(tmp_path / "prompt.npy", halves)
    assert load_adapter(tmp_path / "prompt.npy").source.dtype == "bfloat16"


def test_a_checkpoint_whose_prompt_passes_through_an_encoder_is_refused(tmp_path):
    names = ("embedding.weight", "mlp_head.0.weight")
    torch.save({f"prompt_encoder.default.{name}": ROWS for name in names}, tmp_path / "checkpoint.pt")
    with pytest.raises(AdapterError, match="encoder that makes the prompt"):
        load_adapter(tmp_path / "checkpoint.pt")


def test_the_files_of_an_encoder_and_a_decoder_make_one_prompt(tmp_path):
    torch.save(ROWS, tmp_path / "decoder.pt")
    alone = load_adapter(tmp_path)
    assert (len(alone), alone.parts) == (5, ())
    torch.save(-ROWS[:3], tmp_path / "encoder.pt")
    encoder, decoder = load_adapter(tmp_path).split()
    assert np.array_equal(encoder.embeddings, -ROWS[:3].numpy())
    assert np.array_equal(decoder.embeddings, ROWS.numpy())
    torch.save(ROWS[:, :7], tmp_path / "encoder.pt")
    with pytest.raises(AdapterError, match="equally wide"):
        load_adapter(tmp_path)


# --- Textual inversion and zips ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"<cat-toy>": ROWS[0]}, ["<cat-toy>"]),
        ({"<a>": ROWS[0], "<b>": ROWS[1:3]}, ["<a>", "<b>", "<b>"]),
        ({"string_to_token": {"*": 265}, "string_to_param": {"*": ROWS[:2]}, "name": "style", "step": 99}, ["*", "*"]),
        ({"emb_params": ROWS[:2]}, ["emb_params", "emb_params"]),
    ],
)
def test_the_vectors_of_new_words_are_read_with_their_words(tmp_path, content, words):
    torch.save(content, tmp_path / "learned_embeds.bin")
    paths = [tmp_path / "learned_embeds.bin"]
    if all(isinstance(value, torch.Tensor) for value in content.values()):
        save_file(content, tmp_path / "learned_embeds.safetensors")
        paths.append(tmp_path / "learned_embeds.safetensors")
    for path in paths:
        prompt = load_adapter(path)
        assert prompt.kind == "textual_inversion"
        assert prompt.metadata["words"] == words
        assert np.array_equal(prompt.embeddings, ROWS[: len(words)].numpy())


def test_new_words_beside_a_lora_are_what_a_reader_of_words_gets(tmp_path):
    factors = {"unet:0:up": torch.ones(4, 1), "unet:0:down": torch.ones(1, 4)}
    save_file(factors | {"<s1>": ROWS[0]}, tmp_path / "lora.safetensors")
    assert np.array_equal(load_soft_prompt(tmp_path / "lora.safetensors").embeddings, ROWS[:1].numpy())


def zipped(path, files):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, file in files.items():
            archive.write(file, name)
    return path


def test_a_koboldai_zip_is_read_with_what_it_says_of_itself(tmp_path):
    np.save(tmp_path / "tensor.npy", ROWS.numpy())
    (tmp_path / "meta.json").write_text('{"name": "Noir", "author": "somebody"}')
    path = zipped(tmp_path / "noir.zip", {name: tmp_path / name for name in ("tensor.npy", "meta.json")})
    assert_holds(path)
    assert load_adapter(path).metadata["author"] == "somebody"
    assert load_adapter(path).source.path == path


@pytest.mark.parametrize("top", ["", "adapter/"])
def test_a_zip_of_a_peft_folder_is_read_as_the_folder(peft_folder, tmp_path, top):
    _, folder = peft_folder(PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=5))
    files = {f"{top}{path.name}": path for path in folder.iterdir()}
    path = zipped(tmp_path / "adapter.zip", files | {"__MACOSX/._adapter_config.json": folder / "README.md"})
    assert np.array_equal(load_adapter(path).embeddings, load_adapter(folder).embeddings)
    assert load_adapter(path).method == "PROMPT_TUNING"
    assert load_adapter(path).source.sha256 == load_adapter(folder).source.sha256
