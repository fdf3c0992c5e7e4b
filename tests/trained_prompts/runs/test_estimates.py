"""What is said of a run before it starts is what runs like it took; what cannot fit into the memory does not start."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from soft_prompt_explorer.analysis.adapters.run_file import read_description
from soft_prompt_explorer.analysis.models import computing
from soft_prompt_explorer.analysis.models.computing import NoMemoryError, memory_of
from soft_prompt_explorer.analysis.models.weights import load_model
from soft_prompt_explorer.trained_prompts.experiments.comparison import TOO_LARGE
from soft_prompt_explorer.trained_prompts.runs import recorded as runs
from soft_prompt_explorer.trained_prompts.runs import store
from soft_prompt_explorer.trained_prompts.runs.estimates import estimate, trainable_parameters
from soft_prompt_explorer.trained_prompts.training.config import TrainingConfig
from soft_prompt_explorer.trained_prompts.training.trainer import train


def estimated(config, limit=4):
    return estimate(config, limit=limit, runs=store.list_runs())


@pytest.fixture
def on_cpu(toy_config, own_runs) -> TrainingConfig:
    return replace(toy_config, device="cpu")


def test_what_a_run_took_here_is_what_the_next_one_is_said_to_take(on_cpu, own_runs, language_model):
    assert estimated(on_cpu).basis == "how fast this machine multiplies"
    runs.run(on_cpu, "mine", language_model=language_model)
    taken, made = estimated(on_cpu), read_description(own_runs / "mine")
    assert (taken.basis, taken.computed_in) == ("a run of yours", ("float32", "cpu"))
    assert taken.memory == made["peak_memory_bytes"]
    assert taken.seconds >= 0.9 * made["seconds_training"]
    assert trainable_parameters(on_cpu) == made["trainable_parameters"]


def test_other_numbers_and_another_device_are_measured_anew(on_cpu, own_runs, language_model):
    runs.run(on_cpu, "mine", language_model=language_model)
    half = estimated(replace(on_cpu, dtype="bfloat16"))
    assert half.basis == "how fast this machine multiplies"  # the run was in float32
    assert half.computed_in == ("bfloat16", "cpu")
    whole = estimated(replace(on_cpu, dtype="bfloat16", method="full", learning_rate=None))
    assert whole.computed_in == ("float32", "cpu")  # of a model in 16 bits a float32 copy learns
    path = own_runs / "mine" / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"computed_in": {"dtype": "float32", "device": "cuda:0"}}))
    assert estimated(on_cpu).basis == "how fast this machine multiplies"  # another device's time is not this one's


def test_the_memory_grows_with_the_numbers_and_with_what_learns():
    """By hand, of the embedded model's 134,515,008 parameters: 4 bytes a frozen weight or 2, and 16 more for each that learns."""
    base = TrainingConfig(task="sentiment", device="cpu", steps=10)
    frozen, half, whole, parts = (
        estimate(config, limit=10, runs=store.list_runs()).memory
        for config in (base, replace(base, dtype="bfloat16"), replace(base, method="full", learning_rate=None), replace(base, accumulate=4))
    )
    count = 134_515_008
    assert frozen > 4 * count
    assert whole - 20 * count == pytest.approx(frozen - 4 * count, rel=0.5)  # what a step keeps; without the virtual tokens
    assert half < frozen - 2 * count
    assert parts < frozen


def test_rank_checkpointing_and_a_prefix_are_counted():
    base = TrainingConfig(task="sentiment", method="lora", device="cpu", steps=10, rank=4)
    said = {
        name: estimate(config, limit=0, runs=store.list_runs())
        for name, config in {
            "lora": base,
            "wide": replace(base, rank=256, targets=("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")),
            "again": replace(base, checkpointing=True),
            "prompt": TrainingConfig(task="sentiment", device="cpu", steps=10, tokens=60),
            "prefix": TrainingConfig(task="sentiment", method="prefix-tuning", device="cpu", steps=10, tokens=60),
        }.items()
    }
    assert said["wide"].memory > said["lora"].memory and said["wide"].seconds > said["lora"].seconds
    assert said["again"].memory < said["lora"].memory and said["again"].seconds > said["lora"].seconds
    assert said["prefix"].seconds < said["prompt"].seconds


def test_a_run_of_another_model_or_kind_says_nothing_of_this_one(on_cpu, own_runs, language_model):
    runs.run(on_cpu, "mine", language_model=language_model)
    for other in (replace(on_cpu, model="smollm2-135m"), replace(on_cpu, method="full", learning_rate=None)):
        assert estimated(other).basis == "how fast this machine multiplies"


def test_a_tokenizer_that_does_not_work_and_a_config_that_is_none_are_no_end(llama_folder, tmp_path):
    for name, (file, content) in {
        "tokenizer": ("tokenizer.json", {"model": {"type": "Nope", "vocab": {"a": 0}}}),
        "config": ("config.json", {"text_config": "x", "model_type": "llama"}),
    }.items():
        folder = tmp_path / name
        shutil.copytree(llama_folder, folder)
        (folder / file).write_text(json.dumps(content))
        config = TrainingConfig(task="plural", model=str(folder), device="cpu", steps=10)
        said = estimate(config, limit=0, runs=store.list_runs())
        assert (said is None) == (name == "config")


def test_nothing_is_said_of_a_model_that_is_not_at_hand():
    config = TrainingConfig(task="plural", model="nobody/nothing", method="lora")
    assert estimate(config, limit=10, runs=store.list_runs()) is None
    assert trainable_parameters(config) is None


# --- What cannot fit -------------------------------------------------------------------------------------------------


@pytest.fixture
def huge_folder(tmp_path, llama_folder):
    """A model whose weights are twice this machine's memory, in a file with nothing in it."""
    folder = tmp_path / "huge"
    folder.mkdir()
    rows = 2 * memory_of("cpu") // (4 * 4096)
    header = json.dumps({"model.embed_tokens.weight": {"dtype": "F32", "shape": [rows, 4096], "data_offsets": [0, rows * 4096 * 4]}})
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header.encode())
        file.truncate(8 + len(header) + rows * 4096 * 4)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((llama_folder / name).read_bytes())
    return folder


def test_a_model_that_is_larger_than_the_memory_is_refused_before_it_is_read(huge_folder, own_cache, training_command, own_runs):
    with pytest.raises(
        NoMemoryError, match=r"The weights of .*huge in float32 take [\d.]+ GB, and cpu has [\d.]+ GB; give `dtype='bfloat16'`"
    ):
        load_model(str(huge_folder), dtype="float32", device="cpu")
    done = training_command("train", "--task", "sentiment", "--model", huge_folder, "--device", "cpu", "--dtype", "float32", "--name", "it")
    assert done.status == 2
    assert "give --dtype bfloat16, or a smaller --model" in done.err


def test_full_fine_tuning_that_does_not_fit_is_refused_and_a_comparison_goes_on_without_it(
    on_cpu, language_model, own_runs, monkeypatch, training_command
):
    weights = sum(weight.nbytes for weight in language_model.model.parameters())
    monkeypatch.setattr(computing, "memory_of", lambda device: 3 * weights)
    full = replace(on_cpu, method="full", learning_rate=None)
    with pytest.raises(NoMemoryError, match=r"a float32 copy, its gradient and Adam's two moments take .*; train with `method='lora'`"):
        next(train(full, language_model=language_model))
    assert next(train(on_cpu, language_model=language_model)).step == 0
    done = training_command("compare", "--task", "toy", "--model", on_cpu.model, "--device", "cpu", "--steps", 1, "--format", "json")
    assert done.status == 0, done.err
    *others, last = json.loads(done.out)
    assert last["what"].endswith(TOO_LARGE) and last["n"] == 0 and last["score"] is None
    assert all(row["n"] == 4 for row in others)


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="it is read from Linux")
def test_the_memory_of_this_machine_is_what_its_system_says():
    with Path("/proc/meminfo").open() as file:
        said = 1024 * int(next(line.split()[1] for line in file if line.startswith("MemTotal")))
    assert 0 < memory_of("cpu") <= said
