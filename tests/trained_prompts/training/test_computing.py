"""Training in 16 bits and in parts: what learns stays float32, and the gradient is the same."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model

from soft_prompt_explorer.analysis.adapters import load_adapter
from soft_prompt_explorer.analysis.asking.in_front import subject_of
from soft_prompt_explorer.analysis.behaviour.unrelated import Watch
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.models.computing import DTYPE_VARIABLE
from soft_prompt_explorer.analysis.models.weights import load_model
from soft_prompt_explorer.trained_prompts.experiments.comparison import ComparisonConfig
from soft_prompt_explorer.trained_prompts.runs import recorded as runs
from soft_prompt_explorer.trained_prompts.runs import store
from soft_prompt_explorer.trained_prompts.training.config import TrainingConfig
from soft_prompt_explorer.trained_prompts.training.methods import recomputing
from soft_prompt_explorer.trained_prompts.training.trainer import train
from tests.support.tiny_models import FAMILIES, model_of

METHODS = ("prompt-tuning", "p-tuning", "prefix-tuning", "lora", "full")


def of_method(config: TrainingConfig, method: str, **changes) -> TrainingConfig:
    return replace(config, method=method, learning_rate=0.001, readable=0.0, **changes)


@pytest.fixture
def half_model(toy_config):
    return load_model(toy_config.model, dtype="bfloat16", device="cpu")


@pytest.mark.parametrize("method", METHODS)
def test_beside_a_model_in_16_bits_what_learns_is_float32(method, toy_config, language_model, half_model):
    config = of_method(toy_config, method)
    steps = list(train(config, language_model=half_model))
    if method == "full":
        assert {parameter.dtype for parameter in steps[-1].model.parameters()} == {torch.float32}
    else:
        assert {array.dtype for name, array in steps[-1].checkpoint().items() if name != "progress"} == {np.dtype("float32")}
    losses, expected = ([step.loss for step in each[1:]] for each in (steps, list(train(config, language_model=language_model))))
    assert losses == pytest.approx(expected, abs=0.03)
    assert losses != expected
    assert {parameter.dtype for parameter in half_model.model.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("method", METHODS[:-1])
@pytest.mark.parametrize("parts", [2, 3, 4])
def test_the_gradient_of_a_step_in_parts_is_that_of_the_whole_step(method, parts, toy_config, language_model):
    whole, apart = ((list(train(of_method(toy_config, method, accumulate=n), language_model=language_model))) for n in (1, parts))
    for i in (1, -1):  # of the first step Adam's first moment is a tenth of the gradient
        assert apart[i].loss == pytest.approx(whole[i].loss, rel=1e-5)
        expected, found = whole[i].checkpoint(), apart[i].checkpoint()
        moments = [name for name in expected if name.startswith("exp_avg.")]
        assert moments and any(np.abs(expected[name]).max() > 1e-6 for name in moments)
        for name in moments:
            np.testing.assert_allclose(found[name], expected[name], rtol=1e-4, atol=1e-5 * np.abs(expected[name]).max() + 1e-12)


def bytes_kept(make) -> int:
    """How much is kept for the way back while something is made; a tensor that several steps keep counts once."""
    kept: dict[int, int] = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        make()
    return sum(kept.values())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", ["prompt-tuning", "lora"])
def test_layers_that_are_computed_once_more_give_the_same_gradient_and_keep_less(family, method, byte_level_tokenizer):
    model = model_of(family, byte_level_tokenizer).eval()
    if method == "lora":
        get_peft_model(model, LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False))
    else:
        model.requires_grad_(False)
    rows = (0.1 * torch.randn(2, 24, 16, generator=torch.Generator().manual_seed(0))).requires_grad_(method != "lora")
    learns = [rows] if method != "lora" else [parameter for parameter in model.parameters() if parameter.requires_grad]

    def gradient() -> tuple[list[torch.Tensor], int]:
        made = []
        kept = bytes_kept(lambda: made.append(model(inputs_embeds=rows, use_cache=False).logits[:, -1:].square().sum()))
        return list(torch.autograd.grad(made[0], learns)), kept

    expected, before = gradient()
    with recomputing(model):
        found, kept = gradient()
    assert any(each.abs().max() > 0 for each in expected)
    for each, other in zip(found, expected, strict=True):
        torch.testing.assert_close(each, other)
    assert kept < 0.7 * before
    assert gradient()[1] == before  # as it was found


def test_a_run_with_checkpointing_is_the_same_run(toy_config, language_model):
    plain, again = (list(train(replace(toy_config, checkpointing=each), language_model=language_model)) for each in (False, True))
    assert [step.loss for step in again[1:]] == pytest.approx([step.loss for step in plain[1:]], rel=1e-6)
    np.testing.assert_allclose(again[-1].embeddings, plain[-1].embeddings, atol=1e-6)
    with pytest.raises(InputError, match="cannot be computed once more; leave `checkpointing` out"):
        replace(toy_config, method="prefix-tuning", checkpointing=True)


def test_a_step_in_one_part_is_the_step_that_it_always_was(toy_config, language_model):
    """The update by hand, to the last bit: one batch, one mean over all answers, one backward pass, Adam."""
    from soft_prompt_explorer.analysis.asking.batches import answer_logits, encode, like_length_batches
    from soft_prompt_explorer.trained_prompts.training.methods import learner

    made = list(train(toy_config, language_model=language_model))
    table = toy_config.asked_task().for_training(watched=False)[0]
    examples = encode(language_model.tokenizer, table["text"], table["target"])
    with learner(toy_config, *language_model) as learning:
        adam = torch.optim.Adam(learning.parameters, lr=toy_config.first_rate)
        batches = like_length_batches([len(example.ids) for example in examples], 4, np.random.default_rng(toy_config.seed))
        batch = [examples[i] for i in batches.pop()]
        logits = answer_logits(learning.forward, batch, virtual_tokens=toy_config.tokens, device="cpu")
        loss = torch.nn.functional.cross_entropy(logits, torch.tensor([token for example in batch for token in example.answer]))
        loss.backward()
        adam.step()
        assert made[1].loss == loss.item()
        assert np.array_equal(made[1].embeddings, learning.embeddings())


@pytest.mark.parametrize("method", ["prompt-tuning", "lora"])
def test_peft_loads_what_was_trained_beside_16_bits_and_answers_the_same(method, toy_config, half_model, own_runs):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    config, ids = replace(toy_config, method=method, dtype="bfloat16", device="cpu"), torch.tensor([[5, 6, 7, 8]])
    runs.run(config, "mine", language_model=half_model)
    bare = AutoModelForCausalLM.from_pretrained(config.model, dtype=torch.bfloat16).eval()
    expected = PeftModel.from_pretrained(bare, own_runs / "mine")(ids).logits[:, -4:].float()
    what = own_runs / "mine" if method == "lora" else load_adapter(own_runs / "mine")
    with subject_of(what, half_model) as subject:
        found = subject.forward(input_ids=ids).logits[:, -4:].float()
    torch.testing.assert_close(found, expected, atol=1e-2, rtol=0.0)
    assert not torch.allclose(found, half_model.model(ids).logits.float(), atol=1e-2)


def test_a_run_says_what_it_was_computed_in_and_how_to_do_so_again(toy_config, own_runs, training_command):
    asked = ("train", "--task", "toy", "--model", toy_config.model, "--steps", 2, "--tokens", 2, "--init", "random")
    assert training_command(*asked, "--name", "plain", "--device", "cpu").status == 0
    assert (
        training_command(*asked, "--name", "half", "--device", "cpu", "--dtype", "bfloat16", "--accumulate", 2, "--checkpointing").status
        == 0
    )
    plain, half = (json.loads((own_runs / name / "run.json").read_text()) for name in ("plain", "half"))
    assert (plain["computed_in"], half["computed_in"]) == ({"dtype": "float32", "device": "cpu"}, {"dtype": "bfloat16", "device": "cpu"})
    assert not {"dtype", "device", "accumulate"} & {*plain["config"]}
    assert (half["config"]["dtype"], half["config"]["accumulate"]) == ("bfloat16", 2)
    card = store.read_card("half")
    assert "--dtype bfloat16 --accumulate 2" in card and "--checkpointing" in card
    assert "in bfloat16 on cpu" in card
    assert store.list_runs().set_index("name").loc["half", "tokens"] == 2


def test_settings_that_cannot_be_are_refused(toy_config):
    with pytest.raises(InputError, match="in 1 to 4 parts, not in 5"):
        replace(toy_config, accumulate=5)
    with pytest.raises(InputError, match="float32, bfloat16 or float16"):
        replace(toy_config, dtype="float8")


def test_a_comparison_in_other_numbers_is_another_one(monkeypatch):
    keys = [ComparisonConfig(task="plural", dtype=dtype).key for dtype in ("auto", "float32", "bfloat16")]
    assert len({*keys}) == 3
    assert ComparisonConfig(task="plural", device="cuda").key == keys[0]
    monkeypatch.setenv(DTYPE_VARIABLE, "bfloat16")
    assert ComparisonConfig(task="plural").key == keys[2]
    assert TrainingConfig(task="plural").described()["dtype"] == "bfloat16"


@pytest.mark.slow
def test_the_commands_that_ask_compute_in_16_bits(config, own_file, command, training_command, prompt_file):
    prompt = prompt_file(0.1 * np.random.default_rng(0).standard_normal((3, 16)).astype(np.float32))
    chosen = ("--task", own_file, "--model", config.model, "--dtype", "bfloat16", "--device", "cpu")
    for call, asked in (
        (training_command, ("evaluate", prompt)),
        (training_command, ("evaluate", prompt, "--scorecard")),
        (command, ("behaviour", prompt, "--limit", 4)),
        (command, ("translate", prompt)),
    ):
        done = call(*asked, *chosen)
        assert done.status == 0, (asked, done.err)


def test_what_is_seen_in_16_bits_is_nearly_the_same(language_model, half_model):
    rows = 0.1 * np.random.default_rng(1).standard_normal((1, 3, 16)).astype(np.float32)
    expected, seen = (next(Watch(each, ["the cat sat", "on the mat:"]).of_rows(rows)) for each in (language_model, half_model))
    np.testing.assert_allclose(seen.states, expected.states, atol=0.05)
    torch.testing.assert_close(seen.log_probabilities, expected.log_probabilities, atol=0.05, rtol=0.0)
