"""What a model computes in: as it is told, else float32, or bfloat16 for a large model where the machine has it in hardware; and no weight is held twice."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.core.remedies import speaking
from soft_prompt_explorer.analysis.models.computing import DTYPE_VARIABLE, device_of, dtype_of, has_bfloat16, parameters_in
from soft_prompt_explorer.analysis.models.weights import gains_from_16_bits, in_16_bits, load_model
from tests.support.places import EMBEDDED, REPOSITORY
from tests.support.tiny_models import model_of, saved

IDS = torch.tensor([[5, 6, 7, 8, 9, 10]])
LARGEST_IN_FLOAT32 = 500_000_000


@pytest.mark.slow
def test_a_model_is_copied_into_16_bits_where_that_gains_time_and_nobody_chose_numbers(embedded_model, language_model, monkeypatch):
    has = "soft_prompt_explorer.analysis.models.weights.has_bfloat16"
    monkeypatch.delenv(DTYPE_VARIABLE, raising=False)
    monkeypatch.setattr(has, lambda device: True)
    assert gains_from_16_bits(embedded_model)
    assert not gains_from_16_bits(language_model)  # a tiny one
    with monkeypatch.context() as chosen:
        chosen.setenv(DTYPE_VARIABLE, "float32")
        assert not gains_from_16_bits(embedded_model)
    monkeypatch.setattr(has, lambda device: False)
    assert not gains_from_16_bits(embedded_model)
    short = in_16_bits(embedded_model)
    assert (short.dtype, embedded_model.dtype) == ("bfloat16", "float32")
    assert not gains_from_16_bits(short)
    with torch.inference_mode():
        ids = embedded_model.tokenizer("The capital of France is", return_tensors="pt").input_ids
        a, b = (each.model(input_ids=ids, use_cache=False).logits[0, -1].float().softmax(dim=-1) for each in (embedded_model, short))
        loaded = load_model(EMBEDDED, device="cpu", dtype="bfloat16").model
        as_loaded = loaded(input_ids=ids, use_cache=False).logits[0, -1].float().softmax(dim=-1)
    assert a.argmax() == b.argmax()
    assert 0 < (a - b).abs().max() < 0.1
    torch.testing.assert_close(b, as_loaded, atol=0, rtol=0)
    assert short.model.get_input_embeddings().weight is short.model.get_output_embeddings().weight  # tied as before


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="the processor's features are read from Linux")
def test_the_processor_has_bfloat16_where_linux_says_so():
    features = set(Path("/proc/cpuinfo").read_text().split())
    assert has_bfloat16("cpu") == bool(features & {"avx512_bf16", "amx_bf16", "bf16", "svebf16"})


def test_a_large_model_computes_in_bfloat16_where_the_device_has_it_and_every_other_in_float32(monkeypatch):
    monkeypatch.delenv(DTYPE_VARIABLE, raising=False)
    for has_it, large in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr("soft_prompt_explorer.analysis.models.computing.has_bfloat16", lambda device, has_it=has_it: has_it)
        for named in (None, "auto"):
            assert dtype_of(named, "cpu", LARGEST_IN_FLOAT32) == torch.float32
            assert dtype_of(named, "cpu", LARGEST_IN_FLOAT32 + 1) == large
            assert dtype_of(named, "cpu", None) == torch.float32
        assert dtype_of("bfloat16", "cpu", 1) == torch.bfloat16
        assert dtype_of("float32", "cpu", 10**12) == torch.float32


def test_the_environment_chooses_where_nobody_else_does(monkeypatch, llama_folder, own_cache):
    monkeypatch.setenv(DTYPE_VARIABLE, "bfloat16")
    assert load_model(str(llama_folder), device="cpu").dtype == "bfloat16"
    assert load_model(str(llama_folder), dtype="float16", device="cpu").dtype == "float16"


def test_in_16_bits_a_model_answers_nearly_the_same(llama_folder, own_cache):
    whole, half = (load_model(str(llama_folder), dtype=dtype, device="cpu") for dtype in ("float32", "bfloat16"))
    assert (whole.dtype, half.dtype, half.device) == ("float32", "bfloat16", "cpu")
    assert {parameter.dtype for parameter in half.model.parameters()} == {torch.bfloat16}
    assert not any(parameter.requires_grad for parameter in half.model.parameters())
    expected, found = whole.model(IDS).logits, half.model(IDS).logits.float()
    assert not torch.equal(expected, found)
    torch.testing.assert_close(found, expected, atol=1e-2, rtol=1e-2)


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "opt"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_weights_that_are_converted_as_they_are_read_are_those_that_transformers_loads(
    family, dtype, byte_level_tokenizer, own_cache, tmp_path
):
    from transformers import AutoModelForCausalLM

    stored = {"float32": torch.bfloat16, "bfloat16": torch.float32}[dtype]
    folder = saved(model_of(family, byte_level_tokenizer).to(stored), byte_level_tokenizer, tmp_path / "model", max_shard_size="20KB")
    settings = json.loads((folder / "generation_config.json").read_text()) | {"max_new_tokens": 7}
    (folder / "generation_config.json").write_text(json.dumps(settings))
    ours = load_model(str(folder), dtype=dtype, device="cpu").model
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
    tensors, expected = (dict([*model.named_parameters(), *model.named_buffers()]) for model in (ours, theirs))
    assert tensors.keys() == expected.keys()
    assert all(tensors[name].dtype == expected[name].dtype and torch.equal(tensors[name], expected[name]) for name in expected)
    assert torch.equal(ours(IDS).logits, theirs(IDS).logits)
    assert ours.generation_config.to_dict() == theirs.generation_config.to_dict() and ours.generation_config.max_new_tokens == 7
    assert (ours.config.to_dict(), ours.config.name_or_path) == (theirs.config.to_dict(), theirs.config.name_or_path)


def test_what_there_is_not_is_refused_in_the_words_of_each_face():
    with pytest.raises(InputError, match=r"not in 'int8'; name one of them as `dtype`"):
        dtype_of("int8", "cpu", 1)
    with speaking("command line"), pytest.raises(InputError, match=r"no device 'cuda:99' here, but .*cpu; name one of them with --device"):
        device_of("cuda:99")


def test_a_command_refuses_what_there_is_not(command, training_command, prompt_file, llama_folder, own_cache, own_runs):
    prompt = prompt_file(np.ones((3, 16)))
    for call, asked in ((command, ("lens", prompt)), (training_command, ("train", "--task", "sentiment", "--name", "it"))):
        for option, value, says in (("--dtype", "int4", "in float32, bfloat16 or float16"), ("--device", "tpu", "no device 'tpu' here")):
            done = call(*asked, "--model", llama_folder, option, value)
            assert (done.status, says in done.err) == (2, True), done.err


def test_parameters_are_counted_from_the_headers(sharded_llama_folder, tiny_llama, tmp_path):
    assert parameters_in(sharded_llama_folder) == tiny_llama.num_parameters()
    assert parameters_in(tmp_path) is None
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 100)
    assert parameters_in(tmp_path) is None


def test_a_table_says_what_its_model_computed_in(command, training_command, toy_task, prompt_file, llama_folder, own_cache, tmp_path):
    prompt = prompt_file(np.random.default_rng(0).standard_normal((2, 16)).astype(np.float32))
    for dtype in ("float32", "bfloat16"):
        asked = ("evaluate", prompt, "--task", "toy", "--model", llama_folder, "--dtype", dtype, "--device", "cpu")
        done = training_command(*asked, "--out", tmp_path / f"{dtype}.csv")
        assert done.status == 0, done.err
        (model,) = json.loads((tmp_path / f"{dtype}.csv.provenance.json").read_bytes())["models"]
        assert (model["dtype"], model["device"]) == (dtype, "cpu")
    assert command("neighbours", prompt, "--model", llama_folder, "--out", tmp_path / "read.csv").status == 0
    assert "dtype" not in json.loads((tmp_path / "read.csv.provenance.json").read_bytes())["models"][0]  # nothing ran
    assert DTYPE_VARIABLE not in os.environ  # a command's choice ends with it


LOADED = """
import sys
from soft_prompt_explorer.analysis.models.weights import load_model
peak = lambda: int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))) * 1024
load_model(sys.argv[1], device="cpu")
before = peak()
model = load_model(sys.argv[2], dtype=sys.argv[3], device="cpu").model
assert all(float(weight.sum()) == float(weight.sum()) for weight in model.parameters())  # every page is read
print((peak() - before) / sum(weight.nbytes for weight in model.parameters()))
"""


@pytest.fixture(scope="module")
def large_folder(tmp_path_factory, byte_level_tokenizer):
    """A model of random weights in shards, 0.9 GB in bfloat16, made a shard at a time."""
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 7, "num_attention_heads": 16, "num_key_value_heads": 4}
    config = LlamaConfig(vocab_size=len(byte_level_tokenizer), dtype="bfloat16", **sizes)
    torch.manual_seed(0)
    with torch.device("meta"):
        model = LlamaForCausalLM(config).to(torch.bfloat16)
    model = model.to_empty(device="cpu")
    for parameter in model.parameters():
        parameter.data.uniform_(-0.02, 0.02)
    return saved(model, byte_level_tokenizer, tmp_path_factory.mktemp("large") / "model", max_shard_size="150MB")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process is read from Linux")
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_no_weight_is_held_twice_while_a_model_is_loaded(dtype, large_folder, llama_folder, own_cache):
    arguments = [sys.executable, "-c", LOADED, str(llama_folder), str(large_folder), dtype]
    done = subprocess.run(arguments, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, check=True)
    assert 0.9 < float(done.stdout) <= 1.2
