"""Five methods of training: each learns, leaves the frozen model as it was, and keeps what PEFT and transformers load to the same logits."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.numpy import load_file
from transformers import AutoModelForCausalLM, DynamicCache

from soft_prompt_explorer.analysis.adapters import LoraAdapter, load_adapter
from soft_prompt_explorer.analysis.asking.in_front import in_peft, with_prefix, with_prompt
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.models.vocabulary import load_vocabulary
from soft_prompt_explorer.analysis.models.weights import LanguageModel, load_model
from soft_prompt_explorer.trained_prompts.runs import store
from soft_prompt_explorer.trained_prompts.runs.scores import evaluate_run, recorded
from soft_prompt_explorer.trained_prompts.training.config import TrainingConfig
from soft_prompt_explorer.trained_prompts.training.methods import learner
from soft_prompt_explorer.trained_prompts.training.trainer import train
from tests.support.tiny_models import random_llama, saved
from tests.support.training import trained

IDS = torch.tensor([[5, 6, 7, 8], [9, 4, 3, 2]])
SETTINGS = {
    "prompt-tuning": {"tokens": 3, "init": "random", "learning_rate": 0.1},
    "p-tuning": {"tokens": 3, "learning_rate": 0.01},
    "prefix-tuning": {"tokens": 3, "init": "random", "learning_rate": 0.05},
    "lora": {"rank": 3, "learning_rate": 0.02},
    "full": {"learning_rate": 0.003},
}
ADAPTERS = [method for method in SETTINGS if method != "full"]
every_method = pytest.mark.parametrize("method", SETTINGS)
every_adapter = pytest.mark.parametrize("method", ADAPTERS)


@pytest.fixture
def config_of(toy_config):
    def config(method: str, **changes) -> TrainingConfig:
        common = {"task": "toy", "model": toy_config.model, "steps": 6, "batch_size": 4, "seed": 1}
        return TrainingConfig(method=method, **common | SETTINGS[method] | changes)

    return config


@pytest.fixture
def save_run(own_runs, language_model):
    """Train and keep; answers the recording, and the folder it was kept in."""

    def save(config, of=language_model):
        recording = trained(config, of)
        return recording, store.save(recording, "mine", evaluate_run(recording, language_model=of))

    return save


@pytest.fixture(scope="session")
def grouped_folder(byte_level_tokenizer, tmp_path_factory):
    """A Llama with four heads, two of keys and values, and heads of 6 where the width over the heads is 4."""
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2}
    model = random_llama(byte_level_tokenizer, head_dim=6, **sizes)
    return saved(model, byte_level_tokenizer, tmp_path_factory.mktemp("models") / "grouped-llama")


def fingerprint(model) -> dict:
    """All that a method could leave behind in a model."""
    return {
        "modules": [name for name, _ in model.named_modules()],
        "learns": [parameter.requires_grad for parameter in model.parameters()],
        "config": model.config.to_dict(),
        "attributes": sorted(vars(model)),
        "hooks": [len(part._forward_hooks) + len(part._forward_pre_hooks) for part in model.modules()],
        "training": [part.training for part in model.modules()],
    }


def logits(model, ids=IDS) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=ids).logits


def our_logits(recording, language_model) -> torch.Tensor:
    with recorded(recording, language_model) as subject, torch.no_grad():
        return subject.forward(input_ids=IDS).logits[:, subject.virtual_tokens :]


@every_method
def test_the_loss_falls_on_examples_seen_again_and_again(method, config_of, language_model):
    losses = trained(config_of(method, steps=40), language_model).losses()["loss"]
    assert losses[-5:].max() < losses[:3].min()


@every_method
def test_a_seed_gives_the_same_curve_twice_and_another_seed_another(method, config_of, language_model):
    config = config_of(method, batch_size=3)
    first, again, other = (trained(c, language_model).losses()["loss"].tolist() for c in (config, config, replace(config, seed=2)))
    assert first == again
    assert first != other


@every_method
@pytest.mark.parametrize(("steps", "learns"), [(None, False), (2, False), (2, True)], ids=["to its end", "broken off", "not frozen"])
def test_the_frozen_model_is_bit_for_bit_as_it_was_found(method, steps, learns, config_of, language_model):
    model = language_model[0].requires_grad_(learns)
    before, weights = fingerprint(model), {name: tensor.clone() for name, tensor in model.state_dict().items()}
    answered = logits(model)
    run = train(config_of(method), language_model=language_model)
    for made, _ in enumerate(run):
        if made == steps:
            run.close()
    assert fingerprint(model) == before
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(logits(model), answered)


@every_adapter
def test_peft_loads_what_was_saved_to_the_same_logits_and_so_does_our_reader(method, config_of, save_run, language_model):
    recording, path = save_run(config_of(method))
    ours = our_logits(recording, language_model)
    assert (ours - logits(language_model[0])).abs().max() > 1e-3
    theirs = logits(PeftModel.from_pretrained(load_model(recording.config.model, device="cpu")[0], path))
    theirs = theirs[:, theirs.shape[1] - IDS.shape[1] :]
    assert (ours - theirs).abs().max() < 1e-4

    adapter, rows = load_adapter(path), load_file(path / "adapter_model.safetensors")
    if method == "lora":
        assert isinstance(adapter, LoraAdapter)
        for module, factors in adapter.modules.items():
            np.testing.assert_array_equal(factors.A, rows[f"base_model.model.{module}.lora_A.weight"].astype(np.float32))
        return
    assert adapter.kind == ("prefix" if method == "prefix-tuning" else "soft_prompt")
    np.testing.assert_array_equal(adapter.embeddings, rows["prompt_embeddings"])
    put_in = (with_prefix if method == "prefix-tuning" else with_prompt)(language_model, adapter.embeddings)
    assert (logits(put_in.model)[:, put_in.virtual_tokens :] - theirs).abs().max() < 1e-4


def test_a_whole_model_that_was_saved_is_loaded_by_transformers_to_the_same_logits(config_of, save_run, language_model):
    recording, path = save_run(config_of("full"))
    theirs = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    assert (logits(theirs) - our_logits(recording, language_model)).abs().max() < 1e-4
    assert (logits(theirs) - logits(language_model[0])).abs().max() > 1e-3
    again = load_model(str(path), device="cpu")
    assert again[1](" the cat").input_ids == language_model[1](" the cat").input_ids


def test_full_fine_tuning_is_adam_on_every_weight_of_a_copy(config_of, toy_task, language_model):
    config = config_of("full", steps=1)
    recording = trained(config, language_model)
    model, tokenizer = load_model(config.model, device="cpu")
    table = toy_task.examples("train")
    total, count = 0.0, 0
    for text, target in zip(table["text"], table["target"], strict=True):
        read, answer = tokenizer(text).input_ids, tokenizer(target, add_special_tokens=False).input_ids
        labels = torch.tensor([[-100] * len(read) + answer])
        total = total + model.requires_grad_(True)(input_ids=torch.tensor([read + answer]), labels=labels).loss * len(answer)
        count += len(answer)
    (total / count).backward()
    assert recording.losses()["loss"].tolist() == [pytest.approx((total / count).item(), abs=1e-5)]
    for name, parameter in recording.model.named_parameters():
        before = model.get_parameter(name)
        far = before.grad.abs() > 1e-5  # where Adam's first step is the rate itself, against the sign of the gradient
        expected = before.detach() - config.learning_rate * before.grad.sign()
        assert (parameter - expected)[far].abs().max() < 1e-4 if far.any() else name == "model.embed_tokens.weight"


def test_the_rows_of_p_tuning_are_what_its_encoder_answers(config_of, language_model):
    config = config_of("p-tuning")
    torch.manual_seed(123)  # the encoder is drawn with the run's own seed, whatever this is
    with learner(config, *language_model) as learning:
        for parameter in learning.parameters:
            with torch.no_grad():
                parameter.add_(0.1)
        encoder = learning.model.prompt_encoder["default"]
        weights = {name: tensor.numpy() for name, tensor in encoder.state_dict().items()}
        rows = learning.embeddings()
    hidden = weights["embedding.weight"]
    for i in (0, 2, 4):  # Liu et al. 2021: two hidden layers; PEFT's have ReLU between them
        hidden = hidden @ weights[f"mlp_head.{i}.weight"].T + weights[f"mlp_head.{i}.bias"]
        hidden = np.maximum(hidden, 0) if i < 4 else hidden
    np.testing.assert_allclose(rows, hidden, atol=1e-5)
    assert len(learning.parameters) == 7


def test_what_p_tuning_keeps_is_what_it_was_trained_with(config_of, language_model, toy_task):
    """The loss of the step after the last is the loss of the rows kept, put in front by plain calls."""
    model, tokenizer = language_model
    run = list(train(config_of("p-tuning"), language_model=language_model))
    table = toy_task.examples("train")
    total, count = 0.0, 0
    for text, target in zip(table["text"], table["target"], strict=True):
        read, answer = tokenizer(text).input_ids, tokenizer(target, add_special_tokens=False).input_ids
        inputs = torch.cat([torch.from_numpy(run[-2].embeddings), model.get_input_embeddings()(torch.tensor(read + answer))])[None]
        labels = torch.tensor([[-100] * (3 + len(read)) + answer])
        total += model(inputs_embeds=inputs, labels=labels).loss.item() * len(answer)
        count += len(answer)
    assert run[-1].loss == pytest.approx(total / count, abs=1e-5)


@pytest.mark.parametrize("grouped", [False, True])
def test_a_prefix_starts_as_what_the_model_makes_of_words_that_it_reads_first(grouped, config_of, grouped_folder):
    """With the activations of real tokens as the prefix, the model answers as if it had read these tokens."""
    config = config_of("prefix-tuning", init="text", init_text=" the cat sat", tokens=5)
    config = replace(config, model=str(grouped_folder)) if grouped else config
    model, tokenizer = load_model(config.model, device="cpu")
    words = tokenizer(" the cat sat", add_special_tokens=False).input_ids
    words = torch.tensor([(words * 5)[:5]])
    first = next(train(config, language_model=LanguageModel(model, tokenizer)))
    rows = first.weights["prompt_embeddings"]
    read_first = logits(model, torch.cat([words.expand(2, 5), IDS], dim=1))[:, 5:]
    assert (logits(with_prefix(LanguageModel(model, tokenizer), rows).model) - read_first).abs().max() < 1e-4

    cache = model(input_ids=words, use_cache=True).past_key_values
    heads, width = model.config.num_key_value_heads, model.config.head_dim
    cut = rows.reshape(5, len(cache.layers), 2, heads, width)
    for i, layer in enumerate(cache.layers):
        for j, part in enumerate((layer.keys, layer.values)):
            np.testing.assert_allclose(cut[:, i, j].transpose(1, 0, 2), part[0].detach().numpy(), atol=1e-5)


def test_a_prefix_of_any_rows_is_the_cache_that_transformers_is_given(config_of, grouped_folder):
    model, tokenizer = load_model(str(grouped_folder), device="cpu")
    rows = np.random.default_rng(0).normal(size=(5, 3 * 2 * 2 * 6)).astype(np.float32)
    cut = torch.from_numpy(rows).reshape(5, 3, 2, 2, 6).permute(1, 2, 3, 0, 4)
    cache = DynamicCache()
    for i, (keys, values) in enumerate(cut):
        cache.update(keys.expand(2, -1, -1, -1), values.expand(2, -1, -1, -1), i)
    with torch.no_grad():
        expected = model(input_ids=IDS, past_key_values=cache).logits
    assert (logits(with_prefix(LanguageModel(model, tokenizer), rows).model) - expected).abs().max() < 1e-4


@every_adapter
def test_a_model_with_fewer_heads_of_keys_than_of_queries_is_adapted_as_peft_adapts_it(method, config_of, grouped_folder, save_run):
    config = config_of(method, model=str(grouped_folder))
    of = load_model(config.model, device="cpu")
    recording, path = save_run(config, of)
    ours = our_logits(recording, of)
    theirs = logits(PeftModel.from_pretrained(load_model(config.model, device="cpu")[0], path))
    assert (ours - theirs[:, theirs.shape[1] - IDS.shape[1] :]).abs().max() < 1e-4
    assert (ours - logits(of[0])).abs().max() > 1e-4
    if method == "prefix-tuning":
        assert recording.weights["prompt_embeddings"].shape == (3, 3 * 2 * 2 * 6)


@every_method
def test_as_many_parameters_are_said_to_learn_as_peft_counts(method, config_of, language_model):
    step = next(train(config_of(method), language_model=language_model))
    width, layers = 16, 2
    encoder = 3 * width + 3 * (width * width + width)
    expected = {
        "prompt-tuning": 3 * width,
        "p-tuning": encoder,
        "prefix-tuning": 3 * layers * 2 * width,
        "lora": layers * 2 * 3 * (width + width),
    }
    assert step.trainable == expected.get(method, language_model[0].num_parameters())


def test_what_peft_draws_at_first_leaves_everybodys_random_numbers_alone(language_model):
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    in_peft(language_model[0], "p-tuning", 3, seed=1)
    assert torch.equal(torch.rand(3), expected)


def test_rows_of_another_shape_are_refused(language_model):
    with pytest.raises(InputError, match="trained for another model"):
        with_prompt(language_model, np.zeros((3, 15), dtype=np.float32))
    with pytest.raises(InputError, match="trained for another model"):
        with_prefix(language_model, np.zeros((3, 16), dtype=np.float32))


@pytest.mark.parametrize(("method", "in_front"), [("prompt-tuning", 3), ("p-tuning", 3), ("prefix-tuning", 3), ("lora", 0), ("full", 0)])
def test_what_stands_in_front_counts_towards_the_models_context(method, in_front, config_of, toy_task, language_model):
    model, tokenizer = language_model
    table = toy_task.examples("train")
    longest = max(len(tokenizer(text + target).input_ids) for text, target in zip(table["text"], table["target"], strict=True)) - 1
    for context, fits in ((longest + in_front, True), (longest + in_front - 1, False)):
        model.config.max_position_embeddings = context
        run = train(config_of(method), language_model=language_model)
        if fits:
            next(run)
            continue
        with pytest.raises(InputError, match=f"needs {longest + in_front} positions"):
            next(run)


def test_a_vocabulary_and_its_model_hold_the_same_rows(config_of, language_model):
    """What initial values rest on, for a model whose tokenizer has fewer tokens than it has rows."""
    rows = language_model[0].get_input_embeddings().weight.numpy()
    vocabulary = load_vocabulary(config_of("lora").model)
    np.testing.assert_allclose(vocabulary.embeddings, rows[: len(vocabulary.embeddings)], atol=1e-6)
