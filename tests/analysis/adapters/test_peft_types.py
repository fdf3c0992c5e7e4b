"""What PEFT saves beside the plain cases: rows of tokens, several adapters in one file, biases, heads; and files that promise what they do not hold."""

import json
import tracemalloc

import numpy as np
import pytest
import torch
from peft import AdaLoraConfig, LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora.config import KasaConfig
from safetensors.torch import load_file, save_file

from soft_prompt_explorer.analysis.adapters import AdapterError, LoraAdapter, load_adapter, load_lora, load_soft_prompt
from soft_prompt_explorer.analysis.adapters.delta import DeltaFactors, Weight
from soft_prompt_explorer.analysis.adapters.delta_names import TYPES
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.models.vocabulary import load_vocabulary
from soft_prompt_explorer.analysis.prompts.starts import mark_of, start_from_config
from soft_prompt_explorer.analysis.report.inspection import inspect
from tests.support.peft_types import OPTIONS, made, moved

WEIGHTS = "adapter_model.safetensors"


@pytest.fixture
def load(llama_folder):
    from transformers import AutoModelForCausalLM

    return lambda: AutoModelForCausalLM.from_pretrained(llama_folder)


def update(factors) -> np.ndarray:
    a, b = factors.both()
    return factors.scaling * b @ a


def edited(folder, **changes) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


# --- Rows of tokens --------------------------------------------------------------------------------------------------


def test_trained_tokens_are_the_models_rows_and_start_as_they_were(load, llama_folder, own_cache, tmp_path, command):
    model = made(load(), "TRAINABLE_TOKENS", tmp_path / "adapter")
    ids = OPTIONS["TRAINABLE_TOKENS"]["token_indices"]
    prompt = load_adapter(tmp_path / "adapter")
    now = model.merge_and_unload().get_input_embeddings().weight.detach().numpy()[ids]
    assert prompt.kind == "soft_prompt"
    assert np.allclose(prompt.embeddings, now)
    assert "trained anew, of the base model's tokens 3, 7, 5" in prompt.notes[0]
    vocabulary = load_vocabulary(str(llama_folder))
    started = start_from_config(prompt, vocabulary)
    assert np.array_equal(started.start, load().get_input_embeddings().weight.detach().numpy()[ids])
    assert mark_of(started) == " (from the config's token ids)"
    read = command("readings", tmp_path / "adapter", "--model", llama_folder, "--format", "csv")
    assert read.status == 0
    assert len(read.out.splitlines()) == 1 + len(ids)
    asked = command("lens", tmp_path / "adapter", "--model", llama_folder)
    assert asked.status == 2
    assert "stand in front of nothing" in asked.err


def test_rows_that_started_at_random_or_of_tokens_that_are_not_there_have_no_known_start(load, llama_folder, own_cache, tmp_path):
    made(load(), "TRAINABLE_TOKENS", tmp_path / "adapter")
    vocabulary = load_vocabulary(str(llama_folder))
    for changes, note in (({"init_weights": False}, ""), ({"token_indices": [3, 7, 10**9]}, "none of"), ({"token_indices": "all"}, "")):
        edited(tmp_path / "adapter", **{"init_weights": True, "token_indices": [3, 7, 5]} | changes)
        prompt = start_from_config(load_adapter(tmp_path / "adapter"), vocabulary)
        assert prompt.initial is None
        assert note in " ".join(prompt.notes)
    edited(tmp_path / "adapter", token_indices=[3, 7])
    with pytest.raises(AdapterError, match="the rows of 3 tokens and its config lists 2"):
        load_adapter(tmp_path / "adapter")


@pytest.mark.parametrize("listed", [[4, 8], {"embed_tokens": [4, 8], "lm_head": [2]}])
def test_tokens_trained_beside_a_lora_are_read_too(load, llama_folder, own_cache, tmp_path, listed, command):
    model = get_peft_model(load(), LoraConfig(r=2, target_modules=["q_proj"], trainable_token_indices=listed, task_type="CAUSAL_LM"))
    moved(model)
    model.save_pretrained(tmp_path / "adapter")
    lora = load_adapter(tmp_path / "adapter")
    assert isinstance(lora, LoraAdapter)
    assert (len(lora), lora.saved_modules) == (2, ())
    rows = load_soft_prompt(tmp_path / "adapter")
    now = model.merge_and_unload().get_input_embeddings().weight.detach().numpy()[[4, 8]]
    assert np.allclose(rows.embeddings, now)
    assert start_from_config(rows, load_vocabulary(str(llama_folder))).initial is not None
    notes = inspect([tmp_path / "adapter"])["notes"].item()
    assert "also holds rows of model.embed_tokens" in notes
    assert isinstance(listed, list) or "also holds rows of lm_head, which are left out" in " ".join(rows.notes)
    read = command("readings", tmp_path / "adapter", "--model", llama_folder, "--format", "csv")
    assert (read.status, len(read.out.splitlines())) == (0, 3)


# --- LoRA's own variations -------------------------------------------------------------------------------------------


def test_adalora_after_ranks_were_given_out_is_what_peft_merges(load, tmp_path):
    config = AdaLoraConfig(init_r=5, target_r=2, lora_alpha=9, total_step=10, target_modules=["q_proj"], task_type="CAUSAL_LM")
    model = get_peft_model(load(), config)
    moved(model)
    kept = [True, False, True, True, False]
    names = [name for name, _ in model.named_modules() if name.endswith("q_proj")]
    config.rank_pattern = {f"{name.removeprefix('base_model.model.')}.lora_E.default": kept for name in names}
    model.peft_config["default"].rank_pattern = config.rank_pattern
    model.save_pretrained(tmp_path / "adapter")
    before = dict(load().named_parameters())
    merged = dict(PeftModel.from_pretrained(load(), tmp_path / "adapter").merge_and_unload().named_parameters())
    lora = load_lora(tmp_path / "adapter")
    assert {factors.rank for factors in lora.modules.values()} == {3}
    for path, factors in lora.modules.items():
        assert np.allclose(update(factors), (merged[f"{path}.weight"] - before[f"{path}.weight"]).detach().numpy(), atol=1e-6)


def test_a_module_of_adalora_with_no_rank_left_changes_nothing_as_peft_has_it(load, tmp_path):
    config = AdaLoraConfig(init_r=5, target_r=2, lora_alpha=9, total_step=10, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    model = get_peft_model(load(), config)
    moved(model)
    names = [name.removeprefix("base_model.model.") for name, _ in model.named_modules() if name.endswith(("q_proj", "v_proj"))]
    patterns = {f"{name}.lora_E.default": [name.endswith("q_proj"), False, False, False, False] for name in names}
    config.rank_pattern = model.peft_config["default"].rank_pattern = patterns
    model.save_pretrained(tmp_path / "adapter")
    assert any(0 in tensor.shape for tensor in load_file(tmp_path / "adapter" / "adapter_model.safetensors").values())
    before = dict(load().named_parameters())
    merged = dict(PeftModel.from_pretrained(load(), tmp_path / "adapter").merge_and_unload().named_parameters())
    lora = load_lora(tmp_path / "adapter")
    assert [*lora.modules] == [name for name in names if name.endswith("q_proj")]
    assert f"2 modules have, the first of them {names[1]}, no rank left, and nothing is changed there" in lora.notes
    for name in names:
        change = (merged[f"{name}.weight"] - before[f"{name}.weight"]).detach().numpy()
        assert np.allclose(change, update(lora.modules[name]) if name in lora.modules else 0.0, atol=1e-6)
    config.rank_pattern = model.peft_config["default"].rank_pattern = dict.fromkeys(patterns, [False] * 5)
    model.save_pretrained(tmp_path / "nothing")
    with pytest.raises(AdapterError, match=r"took every rank of the AdaLoRA in .* away, so it changes nothing"):
        load_lora(tmp_path / "nothing")


@pytest.mark.parametrize("options", [{}, {"use_rslora": True}])
def test_a_lora_with_a_diagonal_is_what_its_layers_add(load, tmp_path, options):
    model = get_peft_model(load(), LoraConfig(r=3, lora_alpha=7, target_modules=["q_proj"], kasa_config=KasaConfig(), **options))
    moved(model)
    model.save_pretrained(tmp_path / "adapter")
    lora = load_lora(tmp_path / "adapter")
    assert lora.method == "LORA (KaSA)"
    assert "smallest directions" in " ".join(lora.notes)
    for path, factors in lora.modules.items():
        layer = model.base_model.model.get_submodule(path)
        with torch.no_grad():
            added = layer(torch.eye(16)) - layer.get_base_layer()(torch.eye(16))
        assert np.allclose(update(factors), added.T.numpy(), atol=1e-5)


def test_what_a_lora_takes_of_groups_of_inputs_is_refused_and_what_acts_behind_tokens_is_told(load, tmp_path):
    made(load(), "LORA", tmp_path / "adapter")
    edited(tmp_path / "adapter", alora_invocation_tokens=[4, 5])
    assert "acts only behind the tokens that invoke it" in " ".join(load_lora(tmp_path / "adapter").notes)
    edited(tmp_path / "adapter", use_qalora=True)
    with pytest.raises(AdapterError, match="means of groups of inputs"):
        load_adapter(tmp_path / "adapter")


# --- What else one file holds ----------------------------------------------------------------------------------------


def test_each_of_several_adapters_in_one_file_is_read_when_it_is_asked_for(tmp_path, command):
    generator = torch.Generator().manual_seed(0)
    factors = {
        f"base_model.model.layers.{i}.q_proj.lora_{part}.{adapter}.weight": torch.randn(*shape, generator=generator)
        for adapter, rank in (("default", 2), ("second", 3))
        for i in range(2)
        for part, shape in (("A", (rank, 8)), ("B", (8, rank)))
    }
    torch.save(factors, tmp_path / "two.bin")
    second = load_lora(tmp_path / "two.bin").named("second")
    assert second.name == "two (second)"
    for path, each in second.modules.items():
        a, b = (factors[f"base_model.model.{path}.lora_{part}.second.weight"].numpy() for part in "AB")
        assert np.array_equal(each.A, a) and np.array_equal(each.B, b)
    ranks = {}
    for named in ("", "second"):
        told = command("spectra", tmp_path / "two.bin", *(("--adapter", named) if named else ()), "--format", "json")
        ranks[named] = {row["rank"] for row in json.loads(told.out)}
    assert ranks == {"": {2}, "second": {3}}
    refused = command("spectra", tmp_path / "two.bin", "--adapter", "third")
    assert refused.status == 2
    assert "holds no other adapter 'third'; beside the first it holds second." in refused.err


def test_a_second_adapter_of_another_type_is_listed(load, tmp_path):
    made(load(), "LOHA", tmp_path / "adapter")
    tensors = load_file(tmp_path / "adapter" / WEIGHTS)
    both = {f"{name}.default": tensor for name, tensor in tensors.items()} | {
        f"{name}.second": tensor + 1 for name, tensor in tensors.items()
    }
    save_file(both, tmp_path / "adapter" / WEIGHTS)
    adapter = load_adapter(tmp_path / "adapter")
    assert sorted(adapter.saved_modules) == sorted(name for name in both if name.endswith(".second"))
    save_file(tensors, tmp_path / "adapter" / WEIGHTS)
    for path, factors in load_adapter(tmp_path / "adapter").modules.items():
        assert np.array_equal(update(factors), update(adapter.modules[path]))


@pytest.mark.parametrize("kind", ["LORA", "LOHA", "OFT"])
def test_biases_and_modules_kept_whole_are_told(load, tmp_path, kind):
    model = load()
    for layer in model.model.layers:
        layer.self_attn.q_proj.bias = torch.nn.Parameter(torch.zeros(16))
    bias = {"LORA": "lora_only", "OFT": "oft_only"}.get(kind)
    made(model, kind, tmp_path / "adapter", modules_to_save=["lm_head"], **({} if bias is None else {"bias": bias}))
    adapter = load_adapter(tmp_path / "adapter")
    notes = " ".join(adapter.notes)
    assert ("also trains 2 biases, which no ΔW holds" in notes) == (bias is not None)
    assert "kept whole, listed and not analysed: base_model.model.lm_head.weight" in notes
    assert "base_model.model.lm_head.weight" in adapter.saved_modules
    tensors = load_file(tmp_path / "adapter" / WEIGHTS)
    save_file({name: tensor for name, tensor in tensors.items() if "lm_head" not in name}, tmp_path / "adapter" / WEIGHTS)
    assert "names modules_to_save (lm_head), and the file holds none of them" in " ".join(load_adapter(tmp_path / "adapter").notes)


def test_an_empty_tensor_that_sharded_training_left_is_told(load, tmp_path):
    made(load(), "LOHA", tmp_path / "adapter")
    tensors = load_file(tmp_path / "adapter" / WEIGHTS) | {"base_model.model.lm_head.weight": torch.zeros(0)}
    save_file(tensors, tmp_path / "adapter" / WEIGHTS)
    assert "empty, as training with ZeRO-3 leaves what it did not gather" in " ".join(load_adapter(tmp_path / "adapter").notes)
    name = next(name for name in tensors if name.endswith("w1_a"))
    save_file(tensors | {name: torch.zeros(0)}, tmp_path / "adapter" / WEIGHTS)
    with pytest.raises(AdapterError, match="do not make an update of LoHa"):
        load_adapter(tmp_path / "adapter")


@pytest.mark.parametrize("kind", ["LORA", "LOHA"])
def test_an_adapter_of_a_masked_model_is_not_asked_what_comes_next(kind, tmp_path, llama_folder, own_cache, command):
    from transformers import BertConfig, BertForMaskedLM

    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    bert = BertForMaskedLM(BertConfig(vocab_size=30, **sizes))
    made(bert, kind, tmp_path / "adapter", target_modules=["query"], task_type=None)
    adapter = load_lora(tmp_path / "adapter")
    with pytest.raises(AdapterError, match="was trained in a BertForMaskedLM"):
        adapter.check_is_causal()
    refused = command("lens", tmp_path / "adapter", "--model", llama_folder)
    assert refused.status == 2
    assert "was trained in a BertForMaskedLM" in refused.err
    edited(tmp_path / "adapter", task_type="CAUSAL_LM")
    load_lora(tmp_path / "adapter").check_is_causal()


# --- A stranger's files ----------------------------------------------------------------------------------------------

SHAPES = ((), (0,), (1,), (1, 1), (2**18, 1), (1, 2**18), (2**9, 2**9), (2, 3, 4), (1, 1, 1, 2**18), (3, 3, 3, 3))
NUMBERS = (0, -1, 2**52, 10**400, 1e-300, "many", None, True, [], {}, [[2]], float("nan"))
MOST_MEMORY = 400 * 2**20


def whole_or_refused(folder, weight: np.ndarray) -> None:
    """Read an adapter and every update of it; whatever is in it, it is read or refused in a sentence."""
    try:
        adapter = load_adapter(folder)
        if not isinstance(adapter, LoraAdapter):
            return
        for factors in adapter.modules.values():
            if isinstance(factors, DeltaFactors):
                object.__setattr__(factors, "weight", lambda: Weight(weight, None))
            factors.both()
    except InputError as error:
        assert str(error).endswith(".") and str(error).isprintable()


@pytest.mark.parametrize("kind", sorted(set(TYPES) & set(OPTIONS)))
def test_whatever_a_file_or_its_config_says_is_read_or_refused_and_fills_no_memory(kind, load, tmp_path, request):
    folder = tmp_path / "adapter"
    made(load(), kind, folder)
    tensors = load_file(folder / WEIGHTS)
    one = next((name for name in tensors if "layers.0" in name and "q_proj" in name), next(iter(tensors)))
    module = one.split("q_proj")[0]
    few = {name: tensor for name, tensor in tensors.items() if "model.layers" not in name or name.startswith(module)}
    config = json.loads((folder / "adapter_config.json").read_text())
    weight = np.random.default_rng(0).normal(size=(16, 16))
    request.addfinalizer(tracemalloc.stop)
    tracemalloc.start()
    for name in few:
        for shape in SHAPES:
            save_file(few | {name: torch.ones(shape)}, folder / WEIGHTS)
            whole_or_refused(folder, weight)
        save_file({other: tensor for other, tensor in few.items() if other != name}, folder / WEIGHTS)
        whole_or_refused(folder, weight)
        save_file({other: torch.full_like(tensor, 2**30) for other, tensor in few.items()}, folder / WEIGHTS)
        whole_or_refused(folder, weight)
    save_file(few, folder / WEIGHTS)
    for key in config:
        for number in NUMBERS if key != "peft_type" else ():
            (folder / "adapter_config.json").write_text(json.dumps(config | {key: number}))
            whole_or_refused(folder, weight)
    assert tracemalloc.get_traced_memory()[1] < MOST_MEMORY
