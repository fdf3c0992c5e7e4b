"""A full disk ends a run in a sentence, and leaves what was kept before."""

import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest

from soft_prompt_explorer.analysis.adapters import load_soft_prompt
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.trained_prompts.runs import recorded as runs
from soft_prompt_explorer.trained_prompts.runs import store
from soft_prompt_explorer.trained_prompts.runs.recording import checkpoint_path, unfinished
from soft_prompt_explorer.trained_prompts.runs.scores import evaluate_run
from tests.support.full_disk import files_limited_to
from tests.support.places import names_in
from tests.support.training import trained


@contextmanager
def full_disk(folder, size: int):
    """A disk of so many bytes at `folder`, where this process may mount one."""
    folder.mkdir(exist_ok=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("this user may not mount a disk")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def no_larger_files(folder, size: int):
    return files_limited_to(size)


@pytest.mark.skipif(sys.platform == "win32", reason="no such disks")
@pytest.mark.parametrize("limited", [full_disk, no_larger_files])
def test_a_full_disk_ends_a_run_in_a_sentence_and_leaves_its_earlier_checkpoint(
    limited, config, language_model, own_runs, checkpoint_each_step, monkeypatch
):
    config = replace(config, tokens=30, validate_every=None, patience=None)
    unbroken = trained(config, language_model)
    # 24 snapshots of 30 × 16 in 16 bits and eight states of as many numbers in 32 take 40 kB: the disk is full on the way
    with limited(own_runs, 28 * 1024 if limited is no_larger_files else 56 * 1024):  # where the new file stands beside the old one
        seen = []
        with pytest.raises(InputError, match="cannot be kept") as ended:
            runs.run(config, "mine", language_model=language_model, watch=lambda step: seen.append(step.step))
        assert "\n" not in str(ended.value) and "checkpoint of an earlier step is unchanged" in str(ended.value)
        assert 3 < len(seen) < 24
        assert names_in(own_runs / ".unfinished") == ["mine.safetensors"]
        assert unfinished()["steps"].tolist() == [seen[-1]]
        content = checkpoint_path("mine").read_bytes()
    checkpoint_path("mine").parent.mkdir(parents=True, exist_ok=True)
    checkpoint_path("mine").write_bytes(content)
    runs.run(config, "mine", language_model=language_model)
    np.testing.assert_array_equal(load_soft_prompt(own_runs / "mine").embeddings, unbroken.embeddings)


@pytest.mark.parametrize("method", ["prompt-tuning", "full"])
@pytest.mark.parametrize("limited", [full_disk, no_larger_files])
def test_a_run_that_does_not_fit_on_the_disk_is_refused_in_a_sentence(limited, method, config, language_model, own_runs):
    config = replace(config, method=method, steps=2, tokens=30, patience=None, validate_every=None, learning_rate=0.001)
    recording = trained(config, language_model)
    scores = evaluate_run(recording, language_model=language_model)
    with limited(own_runs, 1024 if limited is no_larger_files else 8 * 1024):
        with pytest.raises(InputError, match="cannot be kept in") as refused:
            store.save(recording, "mine", scores)
        assert "\n" not in str(refused.value)
        assert names_in(own_runs) == []
