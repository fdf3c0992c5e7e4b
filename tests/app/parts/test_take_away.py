"""What a page says of where an adapter lies: it can be used, and tells nothing of this machine's folders."""

import shlex
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

import soft_prompt_explorer as spe
from soft_prompt_explorer.analysis.adapters import load_adapter
from soft_prompt_explorer.app.parts.take_away import Place, place_of
from soft_prompt_explorer.trained_prompts.runs import store
from tests.support.places import REPOSITORY


def opened(place: Place):
    """What the words for Python open."""
    return eval(f"spe.load_adapter({place.python})", {"spe": spe, "Path": Path})


def test_what_ships_is_named_from_a_clone_on_and_by_the_package():
    place = place_of("plural-words-1", load_adapter(store.adapter_path("plural-words-1")))
    assert (REPOSITORY / place.shell / "adapter_config.json").is_file()
    assert len(opened(place)) == 10
    assert str(REPOSITORY) not in "".join(place)


def test_a_run_of_ones_own_is_named_from_home_on(tmp_path, monkeypatch, saved_lora):
    monkeypatch.setenv("HOME", str(tmp_path))
    place = place_of("mine", load_adapter(saved_lora))
    assert str(tmp_path) not in "".join(place)
    assert shlex.split(place.shell) == ["~/runs/mine"] and Path(place.shell).expanduser() == saved_lora
    assert opened(place).name == "mine"


def test_a_run_that_lies_elsewhere_and_a_file_that_was_uploaded_are_not_told_by_folder(tmp_path, monkeypatch, saved_lora):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert "".join(place_of("mine", load_adapter(saved_lora))) == "path/to/mine'path/to/mine'"
    save_file({"prompt_embeddings": np.ones((2, 4), np.float32)}, tmp_path / "a b.safetensors")
    assert place_of("file-0123456789", load_adapter(tmp_path / "a b.safetensors")).shell == "path/to/a-b"
