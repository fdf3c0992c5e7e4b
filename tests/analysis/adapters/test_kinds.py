"""What a file holds is told for what it is: keys and values, queries, heads and weights are no virtual tokens; experts are a module each."""

import json
import re
import tarfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from soft_prompt_explorer.analysis.adapters import AdapterError, load_adapter, load_soft_prompt
from soft_prompt_explorer.analysis.core.errors import ModelError
from soft_prompt_explorer.analysis.loras.base_weights import against_base
from soft_prompt_explorer.analysis.loras.ranks import spectra, values_of
from soft_prompt_explorer.analysis.loras.truncation import planned, truncate
from soft_prompt_explorer.analysis.models.weights import check_is_causal, load_model
from soft_prompt_explorer.analysis.report.inspection import inspect

r = torch.randn


@pytest.mark.parametrize("name", ["transformer.prefix_encoder.embedding.weight", "prefix_encoder.embedding.weight"])
def test_p_tuning_v2_is_a_prefix(name, tmp_path, command):
    rows = r(16, 4 * 2 * 32).half()
    torch.save({name: rows, "transformer.other": r(3)}, tmp_path / "pytorch_model.bin")
    prompt = load_adapter(tmp_path / "pytorch_model.bin")
    assert prompt.kind == "prefix"
    assert np.array_equal(prompt.embeddings, rows.float().numpy())
    row = inspect([tmp_path / "pytorch_model.bin"]).iloc[0]
    assert (row["kind"], row["virtual_tokens"], row["width"]) == ("prefix", 16, 256)
    assert "keys and values" in row["notes"]
    assert "transformer.other (3,)" in row["notes"]
    done = command("neighbours", tmp_path / "pytorch_model.bin")
    assert done.status == 2
    assert "keys and values" in done.err


LAYERS = {
    "its own file": ({"adapter_query.weight": r(12, 64)} | {f"layers.{i}.attention.gate": r(1, 8, 1, 1) for i in (0, 1, 2)}, [4, 4, 4]),
    "its queries alone": ({"adapter_query.weight": r(12, 64)}, []),
    "PEFT's": ({f"base_model.model.model.layers.{i}.self_attn.adaption_prompt": r(1, 5, 64) for i in (10, 2)}, [5, 5]),
    "lit-gpt's": ({f"transformer.h.{i}.attn.adapter_wte.weight": r(6, 64) for i in (2, 3)}, [6, 6]),
}


@pytest.mark.parametrize(("content", "rows"), LAYERS.values(), ids=LAYERS)
def test_a_llama_adapter_is_prompts_of_its_layers(content, rows, tmp_path, command):
    torch.save(content, tmp_path / "file.bin")
    prompt = load_adapter(tmp_path / "file.bin")
    assert prompt.kind == "adaption_prompt"
    assert [length for _, length in prompt.parts] == rows
    done = command("neighbours", tmp_path / "file.bin")
    assert done.status == 2
    assert "LLaMA-Adapter" in done.err


@pytest.mark.parametrize("beside", [{}, {"model.qformer.layernorm.weight": r(768)}])
def test_the_queries_of_a_q_former_are_what_they_are(beside, tmp_path, command):
    rows = r(1, 32, 768)
    torch.save({"model.query_tokens": rows} | beside, tmp_path / "file.bin")
    prompt = load_adapter(tmp_path / "file.bin")
    assert (prompt.kind, prompt.is_embeddings) == ("queries", False)
    assert np.array_equal(prompt.embeddings, rows[0].numpy())
    for asked in (("neighbours",), ("behaviour", "--task", "sentiment")):
        done = command(asked[0], tmp_path / "file.bin", *asked[1:])
        assert done.status == 2
        assert "the queries of a Q-Former" in done.err


OTHERS = {
    "a Q-Former": ({"qformer.layernorm.weight": r(768)}, "the queries of a Q-Former"),
    "the encoder of a prefix": ({"prefix_encoder.embedding.weight": r(16, 64), "prefix_encoder.trans.0.weight": r(32, 64)}, "the encoder that makes a prefix's"),
    "a head": ({"classifier.weight": r(2, 768), "classifier.bias": r(2)}, "the head of a classification"),
    "a head's matrix": ({"score.weight": r(3, 768)}, "the head of a classification"),
    "RoBERTa's head": ({"classifier.out_proj.weight": r(2, 768)}, "the head of a classification"),
    "an encoder's layer": ({"bert.encoder.layer.0.attention.self.query.weight": r(64, 64)}, "weights of a model or of an encoder"),
    "an image encoder": ({"vision_model.embeddings.class_embedding": r(768)}, "weights of a model or of an encoder"),
    "positions": ({"transformer.wpe.weight": r(100, 64)}, "a model's own embeddings"),
    "LyCORIS IA3": ({"lora_unet_a.weight": r(64, 1), "lora_unet_a.on_input": torch.tensor(True)}, "LyCORIS"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "says"), OTHERS.values(), ids=OTHERS)
def test_what_is_no_soft_prompt_is_named_in_a_sentence(content, says, tmp_path):
    torch.save(content, tmp_path / "file.bin")
    with pytest.raises(AdapterError, match=says) as refused:
        load_adapter(tmp_path / "file.bin")
    assert str(refused.value).count(". ") == 0
    assert len(str(refused.value)) < 500 + len(str(tmp_path))


@pytest.mark.parametrize("beside", ["classifier.weight", "model.layers.0.q_proj.weight", "query_tokens"])
def test_a_prompt_beside_other_tensors_is_read_and_they_are_named(beside, tmp_path):
    rows = r(8, 64)
    torch.save({"soft_prompt.weight": rows, beside: r(2, 64), "gathered.weight": torch.zeros(0)}, tmp_path / "both.bin")
    prompt = load_soft_prompt(tmp_path / "both.bin")
    assert np.array_equal(prompt.embeddings, rows.numpy())
    notes = inspect([tmp_path / "both.bin"])["notes"][0]
    assert f"{beside} (2, 64)" in notes
    assert "empty, as training with ZeRO-3 leaves what it did not gather: gathered.weight (0,)" in notes


def test_the_head_of_a_classifiers_prompt_is_named(tmp_path):
    save_file({"prompt_embeddings": r(4, 16), "base_model.classifier.weight": r(2, 16)}, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(
        json.dumps({"peft_type": "PROMPT_TUNING", "task_type": "SEQ_CLS", "num_virtual_tokens": 4})
    )
    assert "left out: base_model.classifier.weight (2, 16)" in inspect([tmp_path])["notes"][0]


def test_of_two_adapters_in_one_file_one_is_read_whole_and_the_other_named(tmp_path):
    factors = {}
    for adapter, modules in (("another", ("q_proj",)), ("default", ("q_proj", "v_proj"))):
        for module in modules:
            factors |= {
                f"base_model.model.layers.0.{module}.lora_{part}.{adapter}.weight": r(*shape)
                for part, shape in (("A", (4, 16)), ("B", (16, 4)))
            }
    torch.save(factors, tmp_path / "two.bin")
    adapter = load_adapter(tmp_path / "two.bin")
    assert sorted(adapter.modules) == ["layers.0.q_proj", "layers.0.v_proj"]
    assert np.array_equal(adapter.modules["layers.0.q_proj"].A, factors["base_model.model.layers.0.q_proj.lora_A.default.weight"].numpy())
    assert "holds 2 adapters: default is read, another when asked for by name" in inspect([tmp_path / "two.bin"])["notes"][0]


def test_other_packages_folders_and_archives_are_named(tmp_path):
    hub = tmp_path / "adapterhub"
    hub.mkdir()
    rows = r(10, 64)
    torch.save({"roberta.prompt_tuning.prompt_tunings.my.prompt_embedding.weight": rows}, hub / "pytorch_adapter.bin")
    for architecture in ("prompt_tuning", "prefix_tuning"):
        config = {"config": {"architecture": architecture}, "model_type": "roberta", "name": "my"}
        (hub / "adapter_config.json").write_text(json.dumps(config))
        if architecture == "prompt_tuning":
            assert np.array_equal(load_soft_prompt(hub).embeddings, rows.numpy())
    with pytest.raises(AdapterError, match=r"AdapterHub.*prefix_tuning.*PEFT's layout"):
        load_adapter(hub)
    torch.save({"prompt_table": {"prompt_table.squad.prompt_embeddings.weight": rows}}, tmp_path / "model_weights.ckpt")
    for name, inside, how in (
        ("prompt", "./model_weights.ckpt", "w"),
        ("packed", "model_weights.ckpt", "w:gz"),
        ("other", "weights.ckpt", "w"),
        ("other-packed", "weights.ckpt", "w:gz"),
    ):
        with tarfile.open(tmp_path / f"{name}.nemo", how) as archive:
            archive.addfile(tarfile.TarInfo("./model_config.yaml"))
            archive.add(tmp_path / "model_weights.ckpt", inside)
    for name in ("prompt", "packed"):
        prompt = load_soft_prompt(tmp_path / f"{name}.nemo")
        assert np.array_equal(prompt.embeddings, rows.numpy())
        assert (prompt.name, prompt.source.path, prompt.source.format) == (name, tmp_path / f"{name}.nemo", "PyTorch in a tar")
    for name in ("other", "other-packed"):
        with pytest.raises(AdapterError, match=r"NeMo.*tar -xf.*model_weights.ckpt"):
            load_adapter(tmp_path / f"{name}.nemo")
    assert np.array_equal(load_soft_prompt(tmp_path / "model_weights.ckpt").embeddings, rows.numpy())


@pytest.mark.parametrize("damage", ["cut", "no number", "larger than the file"])
def test_a_damaged_nemo_is_refused_in_a_sentence(damage, tmp_path):
    torch.save({"prompt_embeddings": r(10, 64)}, tmp_path / "model_weights.ckpt")
    with tarfile.open(tmp_path / "p.nemo", "w") as archive:
        archive.add(tmp_path / "model_weights.ckpt", "model_weights.ckpt")
    content = bytearray((tmp_path / "p.nemo").read_bytes())
    if damage == "cut":
        content = content[:2200]
    else:
        content[124:136] = b"not a size!\0" if damage == "no number" else b"77777777777\0"
    (tmp_path / "p.nemo").write_bytes(content)
    with pytest.raises(AdapterError, match=r"The tar .* (announces|is damaged)"):
        load_adapter(tmp_path / "p.nemo")


@pytest.mark.parametrize("damage", ["cut", "changed", "a bomb"])
def test_a_damaged_or_hostile_packed_nemo_is_refused_in_a_sentence(damage, tmp_path):
    torch.save({"prompt_embeddings": r(100, 640)}, tmp_path / "model_weights.ckpt")
    with tarfile.open(tmp_path / "p.nemo", "w:gz") as archive:
        if damage == "a bomb":  # a file of zeros before it, larger than all that is unpacked
            zeros = tarfile.TarInfo("zeros")
            zeros.size = 200 * 2**20
            with (tmp_path / "zeros").open("wb") as file:
                file.truncate(zeros.size)
            with (tmp_path / "zeros").open("rb") as file:
                archive.addfile(zeros, file)
        archive.add(tmp_path / "model_weights.ckpt", "model_weights.ckpt")
    content = bytearray((tmp_path / "p.nemo").read_bytes())
    if damage == "cut":
        content = content[: len(content) // 2]
    elif damage == "changed":
        content[len(content) // 2 :] = bytes(len(content) - len(content) // 2)
    (tmp_path / "p.nemo").write_bytes(content)
    with pytest.raises(AdapterError, match=r"The tar .* (would unpack to more than|cannot be unpacked)"):
        load_adapter(tmp_path / "p.nemo")


def test_a_gguf_is_told_as_a_model(tmp_path):
    import gguf

    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "llama")
    writer.add_type("model")
    writer.add_tensor("blk.0.attn_q.weight", np.ones((4, 64), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(AdapterError, match="a model as GGUF"):
        load_adapter(tmp_path / "model.gguf")


# --- Experts ---------------------------------------------------------------------------------------------------------


@pytest.fixture(
    scope="module", params=[{}, {"use_rslora": True}, {"rank_pattern": {"mlp.experts.down_proj": 3}}], ids=["plain", "rslora", "ranks"]
)
def experts(request, tmp_path_factory):
    """(the adapter's folder, what PEFT adds to each expert's weights by the parameter's name)."""
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import MixtralConfig, MixtralForCausalLM

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("experts")
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2}
    base = MixtralForCausalLM(MixtralConfig(vocab_size=32, num_local_experts=4, **sizes))
    before = {name: parameter.detach().clone() for name, parameter in base.named_parameters()}
    targets = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
    config = LoraConfig(task_type="CAUSAL_LM", r=2, lora_alpha=8, target_modules=["q_proj"], target_parameters=targets, **request.param)
    model = get_peft_model(base, config)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.05 * r(parameter.shape)
    model.save_pretrained(folder)
    fresh = MixtralForCausalLM(base.config)
    fresh.load_state_dict(before)
    merged = PeftModel.from_pretrained(fresh, folder).merge_and_unload()
    return folder, {
        name: (p.detach() - before[name]).double().numpy() for name, p in merged.named_parameters() if not torch.equal(p, before[name])
    }


def test_every_expert_is_a_module_with_the_spectrum_of_what_peft_adds(experts):
    folder, added = experts
    adapter = load_adapter(folder)
    expected = {}
    for name, change in added.items():
        owner, _, parameter = name.rpartition(".")
        if change.ndim == 3:
            expected |= {f"{owner}.{i}.{parameter}": each for i, each in enumerate(change)}
        else:
            expected[owner] = change
    assert sorted(adapter.modules) == sorted(expected)
    assert len(expected) == 2 * (1 + 2 * 4)
    for _, row in spectra(adapter).iterrows():
        values = np.linalg.svd(expected[row["module"]], compute_uv=False)[: row["rank"]]
        assert values_of(row) == pytest.approx(values, rel=1e-4)
        assert (row["out_features"], row["in_features"]) == expected[row["module"]].shape
        factors = adapter.modules[row["module"]]
        np.testing.assert_allclose(factors.scaling * factors.B @ factors.A, expected[row["module"]], atol=1e-6)


def test_experts_are_told(experts):
    folder, _ = experts
    notes = inspect([folder])["notes"][0]
    assert "16 of the modules are experts, 4 to a parameter" in notes
    assert "another rank" not in notes


@pytest.mark.parametrize("energy", [1.0, 0.6])
def test_a_truncated_copy_of_experts_is_what_peft_merges(experts, tmp_path, energy):
    from peft import PeftModel
    from transformers import MixtralConfig, MixtralForCausalLM

    folder, added = experts
    adapter = load_adapter(folder)
    table = truncate(adapter, energy, tmp_path / "cut").set_index("module")
    assert planned(spectra(adapter), energy, adapter).set_index("module")["kept"].tolist() == table["kept"].tolist()
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2}
    base = MixtralForCausalLM(MixtralConfig(vocab_size=32, num_local_experts=4, **sizes)).double()
    before = {name: parameter.detach().clone() for name, parameter in base.named_parameters()}
    merged = dict(PeftModel.from_pretrained(base, tmp_path / "cut").merge_and_unload().named_parameters())
    for name, change in added.items():
        owner, _, parameter = name.rpartition(".")
        found = (merged[name].detach() - before[name]).numpy()
        for i, (each, whole) in enumerate(zip(found, change, strict=True) if change.ndim == 3 else [(found, change)]):
            module = f"{owner}.{i}.{parameter}" if change.ndim == 3 else owner
            kept = table.loc[module, "kept"]
            u, values, vt = np.linalg.svd(whole, full_matrices=False)
            np.testing.assert_allclose(each, u[:, :kept] * values[:kept] @ vt[:kept], atol=1e-6)
    if energy < 1:
        assert table["kept"][:-1].sum() < table["rank"][:-1].sum()


def test_a_parameter_of_one_weight_is_that_weights_module(tmp_path, llama_folder, own_cache):
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(llama_folder)
    path = "model.layers.1.self_attn.q_proj"
    before = model.get_submodule(path).weight.detach().clone()
    changed = get_peft_model(
        model, LoraConfig(r=2, lora_alpha=6, target_modules=[], target_parameters=["q_proj.weight"], task_type="CAUSAL_LM")
    )
    for parameter in changed.parameters():
        parameter.data += 0.05 * r(parameter.shape) * parameter.requires_grad
    changed.save_pretrained(tmp_path)
    fresh = AutoModelForCausalLM.from_pretrained(llama_folder)
    merged = PeftModel.from_pretrained(fresh, tmp_path).merge_and_unload().get_submodule(path).weight.detach()
    factors = load_adapter(tmp_path).modules[path]
    np.testing.assert_allclose(factors.scaling * factors.B @ factors.A, (merged - before).numpy(), atol=1e-6)
    assert against_base(load_adapter(tmp_path), str(llama_folder))["relative_norm"].notna().all()


# --- Causal questions to causal models -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "bert"},
        {"model_type": "bert", "architectures": ["BertForMaskedLM"]},
        {"model_type": "roberta", "architectures": ["RobertaForSequenceClassification"]},
        {"model_type": "bert", "architectures": ["BertLMHeadModel"], "is_decoder": False},
        {"model_type": "llama", "architectures": ["LlamaForSequenceClassification"]},
        {"model_type": "gpt2", "architectures": ["GPT2ForTokenClassification"]},
        {"model_type": "t5", "architectures": ["T5ForConditionalGeneration"], "is_encoder_decoder": True},
        {"model_type": "bart", "architectures": ["BartForConditionalGeneration"], "is_encoder_decoder": True},
        {"model_type": "modernbert"},
    ],
)
def test_a_model_that_does_not_write_on_is_refused(config):
    with pytest.raises(ModelError, match="no causal language model"):
        check_is_causal("m", config)


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "llama"},
        {"model_type": "llama", "architectures": ["LlamaForCausalLM"]},
        {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]},
        {"model_type": "bert", "architectures": ["BertLMHeadModel"], "is_decoder": True},
        {"model_type": "gemma3", "architectures": ["Gemma3ForConditionalGeneration"]},
    ],
)
def test_a_model_that_writes_on_is_taken(config):
    check_is_causal("m", config)


def bert(rows):
    from transformers import BertConfig, BertForMaskedLM

    return BertForMaskedLM(BertConfig(vocab_size=rows, **SIZES)), "an encoder (BertForMaskedLM)"


def classifier(rows):
    from transformers import LlamaConfig, LlamaForSequenceClassification

    return LlamaForSequenceClassification(LlamaConfig(vocab_size=rows, **SIZES)), "of another kind (LlamaForSequenceClassification)"


SIZES = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}


@pytest.mark.parametrize("make", [bert, classifier])
def test_a_model_that_does_not_write_on_is_refused_by_every_command_that_asks(
    make, tmp_path, own_cache, byte_level_tokenizer, command, training_command, prompt_file
):
    folder = tmp_path / "model"
    model, what = make(len(byte_level_tokenizer))
    model.save_pretrained(folder)
    byte_level_tokenizer.save_pretrained(folder)
    with pytest.raises(ModelError, match=re.escape(what)):
        load_model(str(folder))
    prompt = prompt_file(np.ones((3, 16)))
    assert command("neighbours", prompt, "--model", folder).status == 0  # its words may be read
    of_a_task = ("--task", "sentiment", "--model", folder)
    for call, asked in (
        (command, ("behaviour", prompt, *of_a_task)),
        (command, ("report", prompt, *of_a_task, "--out", tmp_path / "r.html")),
        (command, ("lens", prompt, "--model", folder)),
        (command, ("effect", prompt, "--model", folder)),
        (command, ("translate", prompt, *of_a_task)),
        (training_command, ("evaluate", prompt, *of_a_task)),
        (training_command, ("compare", *of_a_task)),
        (training_command, ("train", *of_a_task, "--name", "a-run")),
        (training_command, ("train", *of_a_task, "--name", "a-run", "--method", "lora")),
    ):
        done = call(*asked)
        assert done.status == 2, asked
        assert f"is {what} and no causal language model" in done.err


def test_a_prefix_of_another_model_is_refused_before_anything_is_asked(tmp_path, llama_folder, own_cache):
    from soft_prompt_explorer.analysis.asking.scores import compare_with_bare_model

    torch.save({"transformer.prefix_encoder.embedding.weight": r(6, 128)}, tmp_path / "prefix.bin")
    with pytest.raises(AdapterError, match=r"128 wide and the model's keys and values of all layers are 64"):
        compare_with_bare_model(load_adapter(tmp_path / "prefix.bin"), "sentiment", language_model=load_model(str(llama_folder)))


def test_a_classifiers_lora_is_put_into_no_causal_model(tmp_path, llama_folder, own_cache):
    from peft import LoraConfig

    from soft_prompt_explorer.analysis.asking.lora import applied

    LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["q_proj"]).save_pretrained(tmp_path)
    save_file({"base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight": r(2, 16)}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(AdapterError, match=r"classification by a head \(SEQ_CLS\)"), applied(load_model(str(llama_folder))[0], tmp_path):
        pass


@pytest.mark.parametrize("task_type", ["SEQ_CLS", "TOKEN_CLS", "QUESTION_ANS", "FEATURE_EXTRACTION", "SEQ_2_SEQ_LM"])
def test_an_adapter_of_another_purpose_is_asked_nothing(task_type, tmp_path, command, embedded_vocabulary):
    save_file({"prompt_embeddings": torch.from_numpy(embedded_vocabulary.embeddings[5:8].copy())}, tmp_path / "adapter_model.safetensors")
    config = {"peft_type": "PROMPT_TUNING", "task_type": task_type, "num_virtual_tokens": 3}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    for asked in (
        ("behaviour", tmp_path, "--task", "sentiment"),
        ("report", tmp_path, "--task", "sentiment", "--out", tmp_path / "r.html"),
    ):
        done = command(*asked)
        assert done.status == 2
        assert f"({task_type})" in done.err
    assert command("neighbours", tmp_path).status == 0


def test_a_model_that_lacks_weights_is_refused(llama_folder, tmp_path, own_cache):
    import shutil

    from safetensors.torch import load_file

    folder = tmp_path / "headless"
    shutil.copytree(llama_folder, folder)
    weights = load_file(folder / "model.safetensors")
    del weights["lm_head.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks 1 .*lm_head\.weight"):
        load_model(str(folder))
