"""A prompt in PEFT's own folder is what PEFT gives the model."""

import numpy as np
import pytest
import torch
from peft import MultitaskPromptTuningConfig, PrefixTuningConfig, PromptEncoderConfig, PromptTuningConfig

from soft_prompt_explorer.analysis.adapters import AdapterError, load_adapter
from soft_prompt_explorer.analysis.report.inspection import inspect
from tests.support.adapter_files import WIDTH, refusal, same, torch_saved

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


@pytest.mark.parametrize("config", [ENCODED["p-tuning by an MLP"], ENCODED["p-tuning by an LSTM"]], ids=["MLP", "LSTM"])
def test_a_raw_checkpoint_of_p_tuning_is_refused_since_its_embedding_is_not_the_prompt(make_peft, tmp_path, config):
    model = make_peft(config)
    trained = {name: tensor for name, tensor in model.state_dict().items() if "prompt_encoder" in name}
    assert not np.array_equal(trained["prompt_encoder.default.embedding.weight"], model.get_prompt(1)[0].detach())
    path = torch_saved({"model": trained, "step": 3}, tmp_path / "checkpoint.pt")
    assert "encoder that makes the prompt" in refusal(path)
