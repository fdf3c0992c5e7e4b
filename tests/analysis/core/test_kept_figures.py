"""What is kept never changes a figure: whatever happens to a cache, the answer is the one from a fresh one."""

import functools
import os
import resource
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from soft_prompt_explorer.analysis.core import kept
from soft_prompt_explorer.analysis.core.kept import KeptArrays
from soft_prompt_explorer.analysis.loras.base_weights import base_svd
from soft_prompt_explorer.analysis.models.digests import weights_sha256
from soft_prompt_explorer.analysis.models.names import resolve_model
from soft_prompt_explorer.analysis.models.vocabulary import Vocabulary, load_vocabulary
from soft_prompt_explorer.analysis.prompts.metrics import csls_crowding
from soft_prompt_explorer.analysis.prompts.null import null_of
from soft_prompt_explorer.analysis.prompts.over_prompts import token_index
from soft_prompt_explorer.analysis.prompts.projection import map_is_made, vocabulary_map
from tests.support.damage import MUTATIONS, damage_again_and_again, files_in
from tests.support.figures import figures
from tests.support.full_disk import a_file_in_its_place, a_full_disk, a_read_only_folder, fresh_cache
from tests.support.made_prompts import prompt_of
from tests.support.places import REPOSITORY

# --- Every kind of cache, damaged in every way ---------------------------------------------------------------------------------------------


def made(vocabulary: Vocabulary, folder: Path) -> Vocabulary:
    return replace(vocabulary, cache=folder / "vocabularies" / "0123")


def of_vocabulary(model, vocabulary, cache) -> list:
    loaded = load_vocabulary(str(model))
    return [loaded.tokens, *figures(loaded.embeddings, loaded.special, loaded.mean, loaded.norms, loaded.centred_norms)]


def of_null(model, vocabulary, cache) -> list:
    return figures(*vars(null_of(made(vocabulary, cache))).values())


def of_crowding(model, vocabulary, cache) -> list:
    return figures(csls_crowding(made(vocabulary, cache)))


def of_map(model, vocabulary, cache) -> list:
    maps = [vocabulary_map(made(vocabulary, cache), projection="pca", dimensions=dimensions) for dimensions in (2, 3)]
    return [figures(on.ids, on.places, on.trustworthiness, on.centre, on.axes) for on in maps]


def of_index(model, vocabulary, cache) -> list:
    rng = np.random.default_rng(0)
    prompts = [replace(prompt_of(rng.standard_normal((20, vocabulary.width))), name=f"prompt {i}") for i in range(10)]
    index = token_index(prompts, made(vocabulary, cache), exact_up_to=100)
    assert not index.exact
    return [index.nearest(prompt.embeddings[3], top_k=5).to_csv() for prompt in prompts[:3]] + [index.recall]


def of_base_svd(model, vocabulary, cache) -> list:
    return figures(*base_svd(np.random.default_rng(0).standard_normal((20, 12)).astype(np.float32)))


def of_digest(model, vocabulary, cache) -> str | None:
    return weights_sha256(resolve_model(str(model)))


KINDS = {
    "vocabulary": of_vocabulary,
    "null": of_null,
    "crowding": of_crowding,
    "map": of_map,
    "index": of_index,
    "base-svd": of_base_svd,
    "digest": of_digest,
}


@pytest.fixture(scope="module")
def small_vocabulary(llama_folder):
    rows = np.random.default_rng(0).standard_normal((300, 16)).astype(np.float32) + 1
    return Vocabulary.from_embeddings([f" w{i}" for i in range(300)], rows, model="small")


@pytest.mark.parametrize("kind", KINDS)
def test_no_damage_to_what_is_kept_ever_changes_a_figure(
    kind, large_from, llama_folder, small_vocabulary, own_cache, tmp_path, monkeypatch
):
    monkeypatch.setattr("soft_prompt_explorer.analysis.prompts.null.DRAWS", 40)  # it is drawn hundreds of times here
    others = tmp_path / "others"
    KeptArrays(others / "0123", "null", 2).keep({"u": np.ones((3, 3))})
    KeptArrays(others / "4567", "embeddings", 4).keep({"embeddings": np.ones((3, 3))})
    (others / "page.html").write_text("<html>")
    figure = functools.partial(KINDS[kind], llama_folder, small_vocabulary, own_cache)
    figure()
    shutil.copytree(own_cache, others / "own")
    damage_again_and_again(figure, own_cache, files_in(others), MUTATIONS // 2)


# --- Where nothing can be kept ---------------------------------------------------------------------------------------


TROUBLES = [a_file_in_its_place, a_full_disk, a_read_only_folder]


@pytest.mark.parametrize("trouble", TROUBLES)
@pytest.mark.parametrize("kind", KINDS)
def test_where_nothing_can_be_kept_the_figure_is_the_same(
    kind, trouble, llama_folder, small_vocabulary, own_cache, tmp_path, monkeypatch, caplog
):
    with fresh_cache(monkeypatch, tmp_path / "fresh") as fresh:
        expected = KINDS[kind](llama_folder, small_vocabulary, fresh)
    kept._told.clear()
    with trouble(own_cache, llama_folder):
        assert KINDS[kind](llama_folder, small_vocabulary, own_cache) == expected
        assert KINDS[kind](llama_folder, small_vocabulary, own_cache) == expected
    told = [record.getMessage() for record in caplog.records if record.name == "soft_prompt_explorer.analysis.core.kept"]
    assert told and len(told) == len(set(told)) and all("Nothing can be kept in" in sentence for sentence in told)
    assert not any(path.name.startswith(".spe-partial") for path in tmp_path.rglob("*"))


# --- The command line ----------------------------------------------------------------------------------------------------------------------


def neighbours_of_two_words(model: Path, cache: Path, folder: Path, **limits) -> subprocess.CompletedProcess:
    np.save(folder / "prompt.npy", load_file(model / "model.safetensors")["model.embed_tokens.weight"][[7, 8]])
    return subprocess.run(
        [sys.executable, "-m", "analysis", "neighbours", folder / "prompt.npy", "--model", model, "--format", "csv"],
        cwd=REPOSITORY, env=os.environ | {"SOFT_PROMPT_EXPLORER_CACHE": str(cache)}, capture_output=True, check=False, **limits,
    )  # fmt: skip


@pytest.mark.slow
def test_the_command_answers_the_same_with_an_emptied_cache_and_on_a_full_disk(llama_folder, tmp_path):
    cache = tmp_path / "cache"
    first = neighbours_of_two_words(llama_folder, cache, tmp_path)
    assert first.returncode == 0 and first.stderr == b"" and b"7" in first.stdout
    for path in files_in(cache):
        path.write_bytes(b"")
    emptied = neighbours_of_two_words(llama_folder, cache, tmp_path)
    assert (emptied.returncode, emptied.stdout, emptied.stderr) == (0, first.stdout, b"")
    full = neighbours_of_two_words(
        llama_folder, tmp_path / "other", tmp_path, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    )
    assert (full.returncode, full.stdout) == (0, first.stdout)
    (sentence,) = full.stderr.decode().splitlines()
    assert sentence.startswith("Nothing can be kept in ") and "File too large" in sentence and "SOFT_PROMPT_EXPLORER_CACHE" in sentence


def test_a_map_that_is_damaged_is_not_said_to_be_made(small_vocabulary, own_cache):
    on = made(small_vocabulary, own_cache)
    assert not map_is_made(on, projection="pca")
    vocabulary_map(on, projection="pca")
    assert map_is_made(on, projection="pca")
    (own_cache / "vocabularies" / "0123" / "map-pca-2d.kept").write_bytes(b"")
    assert not map_is_made(on, projection="pca")
