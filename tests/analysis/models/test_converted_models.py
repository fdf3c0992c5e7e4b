"""A model that was converted from a GGUF file is the same whatever happens to what was kept of it."""

import functools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from soft_prompt_explorer.analysis.core import folders
from soft_prompt_explorer.analysis.models.weights import is_prepared, load_model, prepare_model
from tests.support.damage import MUTATIONS, damage_again_and_again, files_in
from tests.support.figures import of_model
from tests.support.full_disk import a_file_in_its_place, a_read_only_folder, fresh_cache
from tests.support.lora_files import gaussian, lora_file
from tests.support.places import REPOSITORY


@pytest.mark.slow
def test_no_damage_to_a_converted_model_ever_changes_it(llama_gguf, llama_folder, tiny_llama, own_cache):
    assert np.array_equal(load_model(str(llama_gguf), device="cpu")[0].lm_head.weight.numpy(), tiny_llama.lm_head.weight.detach().numpy())
    damage_again_and_again(functools.partial(of_model, llama_gguf), own_cache, files_in(llama_folder), MUTATIONS)


@pytest.mark.parametrize("trouble", [a_file_in_its_place, a_read_only_folder])
def test_where_it_cannot_be_kept_a_converted_model_is_the_same_and_stands_among_temporary_files(
    trouble, llama_gguf, own_cache, tmp_path, monkeypatch
):
    with fresh_cache(monkeypatch, tmp_path / "fresh"):
        expected = of_model(llama_gguf)
        assert not folders._temporary
    with trouble(own_cache, llama_gguf.parent):
        assert of_model(llama_gguf) == expected
        assert is_prepared(str(llama_gguf)) and prepare_model(str(llama_gguf)).parent.parent == Path(folders._temporary[0].name)


# What comes of a model and of a LoRA beside its weights, in a process of its own: here pytest catches what is printed in a file, which has no room either.
ASKED_ON_A_FULL_DISK = """
import hashlib, resource, sys
from pathlib import Path
from soft_prompt_explorer.analysis.adapters import load_lora
from soft_prompt_explorer.analysis.loras.base_weights import against_base
from soft_prompt_explorer.analysis.core.errors import NoRoomError
from soft_prompt_explorer.analysis.models.weights import prepare_model
from tests.support.figures import of_model

gguf, adapter = Path(sys.argv[1]), load_lora(sys.argv[2])
if sys.argv[3] == "full":
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
print(hashlib.sha256(repr(of_model(gguf)).encode()).hexdigest())
print(against_base(adapter, str(gguf)).to_csv())
try:
    prepare_model(str(gguf))
except NoRoomError as refusal:
    print(refusal, file=sys.stderr)
"""


@pytest.mark.slow
def test_on_a_full_disk_a_model_is_unpacked_in_memory_and_is_the_same(llama_gguf, tmp_path):
    lora_file(tmp_path / "a.safetensors", {"model.layers.1.mlp.up_proj": gaussian(32, 16, 2, np.random.default_rng(0))})
    free, full = (
        subprocess.run(
            [sys.executable, "-c", ASKED_ON_A_FULL_DISK, llama_gguf, tmp_path / "a.safetensors", disk],
            cwd=REPOSITORY, env=os.environ | {"SOFT_PROMPT_EXPLORER_CACHE": str(tmp_path / disk)}, capture_output=True, text=True, check=False,
        )
        for disk in ("free", "full")
    )  # fmt: skip
    assert free.returncode == full.returncode == 0, full.stderr
    assert full.stdout == free.stdout and free.stdout.count("\n") == 4
    assert "no room in" in full.stderr and "no room in" not in free.stderr
    assert files_in(tmp_path / "free") and not files_in(tmp_path / "full")
