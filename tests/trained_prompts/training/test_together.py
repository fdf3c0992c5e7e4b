"""Several processes that train one run, started by torch's launcher, as accelerate's does on graphics cards: the run is that of a single one."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load_file

from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.trained_prompts.training.together import of_this_process
from soft_prompt_explorer.trained_prompts.training.trainer import train
from tests.support.places import REPOSITORY
from tests.support.waiting import PATIENCE

pytestmark = pytest.mark.slow


@pytest.fixture
def launched(own_runs, toy_config, tmp_path):
    """A training on a file by so many processes on loopback; answers what ended."""
    rows = [f"{['bright', 'dark'][i % 2]} {word},{['yes', 'no'][i % 2]}" for i, word in enumerate("abcdefghijklmnopqrstuvwx")]
    (tmp_path / "mine.csv").write_text("\n".join(["input,target", *rows]) + "\n")

    def launch(processes: int, name: str, *asked) -> subprocess.CompletedProcess:
        # accelerate's launcher starts several processes on graphics cards by torch's, and on processors by MPI alone; torch's does both.
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", processes, "-m"]
        training = ["train", "--task", tmp_path / "mine.csv", "--model", toy_config.model, "--name", name, *asked]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "SOFT_PROMPT_EXPLORER_RUNS": str(own_runs)}
        whole = list(map(str, [*command, "soft_prompt_explorer", *training]))
        return subprocess.run(whole, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=PATIENCE)

    return launch


@pytest.mark.parametrize("method", ["prompt-tuning", "lora"])
def test_two_processes_make_the_run_that_one_makes(method, launched, own_runs):
    """Of a batch of three one process has two examples, of the last batch of an epoch one may have none."""
    asked = ("--method", method, "--steps", 7, "--tokens", 3, "--rank", 2, "--init", "random", "--learning-rate", 0.01, "--batch-size", 3)
    for processes, name in ((1, "alone"), (2, "together")):
        ended = launched(processes, name, *asked)
        assert ended.returncode == 0, ended.stderr
        assert ended.stdout.count("kept in") + ended.stderr.count("kept in") == 1
    alone, together = (load_file(own_runs / name / "adapter_model.safetensors") for name in ("alone", "together"))
    assert alone.keys() == together.keys()
    for key, values in alone.items():
        np.testing.assert_allclose(together[key], values, atol=2e-5)
    start = load_file(own_runs / "alone" / "initial.safetensors") if method == "prompt-tuning" else None
    assert start is None or all(np.abs(values - alone["prompt_embeddings"]).max() > 0.01 for values in start.values())
    one, two = (json.loads((own_runs / name / "run.json").read_text()) for name in ("alone", "together"))
    assert one["config"] == two["config"] and one["steps_done"] == two["steps_done"] == 7
    assert one["scores"].keys() == two["scores"].keys()


def test_what_is_refused_ends_all_of_them(launched, own_runs):
    assert launched(1, "taken", "--steps", 1, "--tokens", 2, "--init", "random").returncode == 0
    ended = launched(2, "taken", "--steps", 2, "--tokens", 2, "--init", "random")
    assert ended.returncode != 0 and "A run called taken is already in" in ended.stderr


def test_what_was_learned_before_the_loss_was_no_number_is_kept(launched, own_runs):
    asked = ("--steps", 9, "--method", "lora", "--rank", 2, "--dtype", "float16", "--learning-rate", 100)
    alone, together = (launched(processes, f"by-{processes}", *asked) for processes in (1, 2))
    for ended, name in ((alone, "by-1"), (together, "by-2")):
        assert ended.returncode != 0 and "is kept in" in ended.stderr and (own_runs / name / "run.json").is_file(), ended.stderr


def test_processes_that_do_not_find_the_same_checkpoint_are_refused(tmp_path):
    script = tmp_path / "apart.py"
    script.write_text(
        "from soft_prompt_explorer.trained_prompts.training.together import of_this_process\n"
        "together = of_this_process('cpu')\ntogether.check_same(7)\ntogether.check_same(20 * together.rank)\n"
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(script)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=PATIENCE)
    assert ended.returncode != 0 and "do not find the same checkpoint (steps [0, 20])" in ended.stderr


def test_training_in_a_script_of_ones_own_takes_part_in_nothing(toy_config, language_model, monkeypatch):
    """A sweep may be started by torchrun, or leave its variables behind: each of its runs is its own."""
    for name, value in {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    assert [step.step for step in train(replace(toy_config, steps=1), language_model=language_model)] == [0, 1]


def test_a_card_by_its_number_is_refused_where_each_process_has_its_own(monkeypatch):
    for name, value in {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match="leave its number out"):
        of_this_process("cuda:1")
