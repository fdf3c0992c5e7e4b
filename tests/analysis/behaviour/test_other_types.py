"""An adapter of another type than LoRA does in a model what PEFT's own merge of it does."""

import pytest
import torch

from soft_prompt_explorer.analysis.adapters import load_lora
from soft_prompt_explorer.analysis.asking.lora import applied
from soft_prompt_explorer.analysis.behaviour.unrelated import factors_in, factors_of
from soft_prompt_explorer.analysis.core.errors import AdapterError, InputError
from soft_prompt_explorer.analysis.loras.weights import with_base
from tests.support.peft_types import made


@pytest.fixture
def load(llama_folder):
    from transformers import AutoModelForCausalLM

    return lambda: AutoModelForCausalLM.from_pretrained(llama_folder)


@pytest.mark.parametrize("kind", ["LOHA", "OFT", "VERA", "HRA"])
def test_its_updates_change_the_model_as_peft_merges_them(kind, load, llama_folder, own_cache, tmp_path):
    changed = made(load(), kind, tmp_path / "adapter")
    adapter = with_base(load_lora(tmp_path / "adapter"), str(llama_folder))
    ids, model = torch.tensor([[3, 9, 4, 17]]), load()
    with torch.no_grad():
        bare = model(ids).logits
        with factors_in(model, factors_of(adapter)):
            found = model(ids).logits
        expected = changed.merge_and_unload()(ids).logits
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(found, bare, atol=1e-3)


def test_without_the_weights_it_is_refused_and_not_put_in_as_a_lora(load, tmp_path):
    made(load(), "OFT", tmp_path / "adapter")
    with pytest.raises(AdapterError, match="made of the weight that it changes"):
        factors_of(load_lora(tmp_path / "adapter"))
    with (
        pytest.raises(InputError, match="is of the type OFT, and only a LoRA can be put into a model here"),
        applied(load(), tmp_path / "adapter"),
    ):
        pass


def test_the_lens_takes_the_weights_from_the_model_that_it_asks(load, llama_folder, own_cache, tmp_path, command):
    made(load(), "OFT", tmp_path / "adapter")
    told = command("lens", tmp_path / "adapter", "--model", llama_folder, "--top-k", "2", "--format", "csv")
    assert told.status == 0
    assert len(told.out.splitlines()) > 2
    page = command("report", tmp_path / "adapter", "--model", llama_folder, "--out", tmp_path / "page.html")
    assert page.status == 0
    assert "OFT" in (tmp_path / "page.html").read_text()
