"""LoRAs that are more than their factors, and configs that PEFT cannot use: put in and taken out whole, or refused in a sentence; PEFT itself is the reference."""

import json
import shutil

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from soft_prompt_explorer.analysis.adapters import load_lora
from soft_prompt_explorer.analysis.asking.lora import applied
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.loras.truncation import truncate
from tests.support.peft_types import moved

IDS = torch.arange(10)[None]
BESIDE = {
    "pissa": ({"init_lora_weights": "pissa"}, "started from the base weights' own directions"),
    "olora": ({"init_lora_weights": "olora"}, "started from the base weights' own directions"),
    "token rows": ({"trainable_token_indices": [3, 7]}, "also holds rows of tokens"),
    "a whole module": ({"modules_to_save": ["down_proj"]}, "also holds 2 tensors that are kept whole"),
    "biases of its own": ({"lora_bias": True}, "also holds 4 tensors that are kept whole"),
    "repeated layers": ({"layer_replication": [[0, 2], [1, 2]]}, "some layers of which were repeated"),
    "aLoRA": ({"alora_invocation_tokens": [4, 5]}, "acts only behind the tokens that invoke it"),
}


@pytest.fixture
def load(llama_folder):
    return lambda: AutoModelForCausalLM.from_pretrained(llama_folder).eval()


@pytest.fixture
def saved(load, tmp_path):
    """The folder of a LoRA with such settings, as after training."""

    def made(**settings):
        torch.manual_seed(0)
        model = get_peft_model(load(), LoraConfig(r=3, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM", **settings))
        moved(model)
        model.save_pretrained(tmp_path / "adapter")
        return tmp_path / "adapter"

    return made


def logits(model) -> torch.Tensor:
    with torch.inference_mode():
        return model(IDS).logits


@pytest.mark.parametrize("start", ["pissa", "olora", True])
def test_a_lora_that_peft_takes_off_the_weights_leaves_them_as_they_were(start, load, saved):
    folder = saved(init_lora_weights=start)
    expected = logits(PeftModel.from_pretrained(load(), folder).eval())
    model = load()
    before, alone = {name: tensor.clone() for name, tensor in model.state_dict().items()}, logits(model)
    for _ in range(2):  # the second time as the first
        with applied(model, folder):
            assert torch.allclose(logits(model), expected, atol=1e-5)
            assert not torch.allclose(logits(model), alone, atol=1e-3)
        after = model.state_dict()
        assert after.keys() == before.keys()
        assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


@pytest.mark.parametrize("which", BESIDE)
def test_what_is_more_than_its_factors_is_neither_cut_nor_told_of_as_if_it_were_not(
    which, saved, llama_folder, own_cache, command, tmp_path
):
    settings, says = BESIDE[which]
    folder = saved(**settings)
    with pytest.raises(InputError, match=says):
        truncate(load_lora(folder), 1.0, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
    (tmp_path / "texts.txt").write_text("the cat sat on the mat\nthe café\n", encoding="utf-8")
    for asked in (("lens", folder), ("effect", folder, "--sentences", tmp_path / "texts.txt")):
        done = command(*asked, "--model", llama_folder)
        assert (done.status, done.out) == (2, "")
        assert says in done.err and "would be told of its factors alone" in done.err


@pytest.mark.parametrize(("which", "says"), [("aLoRA", "acts only behind the tokens"), ("repeated layers", "repeats layers of the model")])
def test_what_cannot_be_asked_here_is_refused(which, says, load, saved):
    model = load()
    before = list(model.state_dict())
    with pytest.raises(InputError, match=says), applied(model, saved(**BESIDE[which][0])):
        pass
    assert list(model.state_dict()) == before


@pytest.mark.parametrize(
    "changes",
    [
        {"modules_to_save": ["lm_head"]}, {"r": 8.5}, {"r": 0}, {"r": -3}, {"task_type": "CAUSAL"}, {"bias": "most"}, {"init_lora_weights": "loftq"},
        {"init_lora_weights": 3}, {"init_lora_weights": "corda"}, {"target_modules": "*("}, {"target_modules": 7}, {"lora_dropout": "much"},
        {"lora_dropout": 2.0}, {"megatron_config": {"a": 1}}, {"use_bdlora": True}, {"target_modules": ["nowhere"]},
    ],
    ids=json.dumps,
)  # fmt: skip
def test_a_config_that_contradicts_its_file_is_refused_in_a_sentence_and_the_model_stays(changes, load, saved, tmp_path):
    folder = shutil.copytree(saved(), tmp_path / "strange")
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | changes))
    model = load()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(InputError) as refused, applied(model, folder):
        pass
    assert "\n" not in str(refused.value)
    if changes != {"target_modules": ["nowhere"]}:
        assert "are not all in the model" not in str(refused.value)
    after = model.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
