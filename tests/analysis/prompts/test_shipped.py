"""What ships is read once and kept: the same figures, not computed again, made anew where they are damaged or of something else; and nothing is kept of what does not ship."""

import dataclasses
import functools
import shutil

import numpy as np
import pandas as pd
import pytest

from soft_prompt_explorer.analysis.adapters import load_soft_prompt
from soft_prompt_explorer.analysis.core.folders import GALLERY
from soft_prompt_explorer.analysis.core.kept import KeptArrays
from soft_prompt_explorer.analysis.models.vocabulary import Vocabulary
from soft_prompt_explorer.analysis.prompts import shipped
from soft_prompt_explorer.analysis.prompts.clusters import find_clusters, points_of
from soft_prompt_explorer.analysis.prompts.null import null_of
from soft_prompt_explorer.analysis.prompts.projection import placed, vocabulary_map
from soft_prompt_explorer.analysis.prompts.twins import twins_of
from soft_prompt_explorer.analysis.prompts.verdicts import readings
from tests.support.counting import count_computed
from tests.support.damage import MUTATIONS, damage_again_and_again, files_in
from tests.support.figures import figures

NAMES = ("past-tense-words-1", "past-tense-random-3")


@pytest.fixture
def here(embedded_vocabulary, tmp_path):
    """The embedded vocabulary with a cache of this test's own, in which the null is and nothing else."""
    null_of(embedded_vocabulary)
    folder = tmp_path / embedded_vocabulary.cache.name
    folder.mkdir()
    for kept in embedded_vocabulary.cache.glob("null*.kept"):
        shutil.copy(kept, folder)
    return dataclasses.replace(embedded_vocabulary, cache=folder)


@pytest.fixture
def computed(monkeypatch) -> list[str]:
    """What is computed, an entry each time."""
    return count_computed(monkeypatch)


def kept_files(vocabulary) -> list:
    return sorted(vocabulary.cache.glob("shipped-*.kept"))


@pytest.mark.parametrize("name", NAMES)
def test_readings_are_computed_once_and_the_kept_ones_are_the_same(here, computed, name):
    prompt = load_soft_prompt(GALLERY / name)
    expected = readings(prompt, here)
    for _ in range(3):
        pd.testing.assert_frame_equal(shipped.readings_of(prompt, here), expected)
    assert computed == ["readings"]
    twin = twins_of([prompt])[0]
    pd.testing.assert_frame_equal(shipped.readings_of(twin, here), readings(twin, here))
    assert len(kept_files(here)) == 2


def test_clusters_are_looked_for_once_and_the_kept_ones_are_the_same(here, computed):
    prompts = [load_soft_prompt(GALLERY / name) for name in NAMES]
    tasks = dict.fromkeys(NAMES, "past-tense")
    expected = find_clusters(prompts, here, tasks=tasks)
    for _ in range(2):
        found = shipped.clusters_of(prompts, here, tasks=tasks)
        for table in ("clusters", "members", "agreement"):
            pd.testing.assert_frame_equal(getattr(found, table), getattr(expected, table))
        assert (found.points == expected.points).all()
    assert computed == ["find_clusters"]
    shipped.clusters_of(prompts, here, tasks=tasks, space="displacement")
    shipped.clusters_of(prompts[:1], here, tasks=tasks)
    assert computed == ["find_clusters"] * 3 and len(kept_files(here)) == 3


def test_places_on_a_map_are_found_once_beside_those_of_a_prompt_that_does_not_ship(here, embedded_map, computed, tmp_path):
    prompts = [load_soft_prompt(GALLERY / name) for name in NAMES]
    elsewhere = load_soft_prompt(shutil.copytree(GALLERY / NAMES[0], tmp_path / "elsewhere"))
    mixed = [prompts[0], elsewhere, prompts[1]]
    expected = placed(np.concatenate([points_of(prompt, here, "position") for prompt in mixed]), embedded_map, here)
    for _ in range(2):
        found = shipped.places_of(mixed, embedded_map, here)
        for name in ("places", "near", "scores", "kept"):
            np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-9)
    assert computed == ["placed"] * 4  # what does not ship is placed each time
    assert len(kept_files(here)) == 2


@pytest.mark.parametrize("damage", ["empty", "half", "a bit", "a folder"])
def test_a_damaged_file_is_made_anew(here, computed, damage):
    prompt = load_soft_prompt(GALLERY / NAMES[0])
    expected = shipped.readings_of(prompt, here)
    (file,) = kept_files(here)
    content = file.read_bytes()
    if damage == "a folder":
        file.unlink()
        file.mkdir()
    else:
        changed = bytearray(content)
        changed[len(content) // 2] ^= 1
        file.write_bytes({"empty": b"", "half": content[: len(content) // 2], "a bit": bytes(changed)}[damage])
    for _ in range(2):
        pd.testing.assert_frame_equal(shipped.readings_of(prompt, here), expected)
    assert computed == ["readings"] * 2 and file.read_bytes() == content


@pytest.fixture
def small(tmp_path, monkeypatch, own_cache):
    """Two prompts of a gallery of made-up words, and the vocabulary of those."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((300, 16)).astype(np.float32) + 1
    vocabulary = Vocabulary.from_embeddings([f" w{i}" for i in range(300)], rows, model="small")
    monkeypatch.setattr(shipped, "GALLERY", tmp_path / "gallery")
    for name, few in (("null.DRAWS", 40), ("clusters.BOOTSTRAPS", 4), ("clusters.NULL_RUNS", 4)):  # they are drawn hundreds of times here
        monkeypatch.setattr(f"soft_prompt_explorer.analysis.prompts.{name}", few)
    prompts = []
    for i in range(2):
        (tmp_path / "gallery" / f"prompt-{i}").mkdir(parents=True)
        np.save(
            tmp_path / "gallery" / f"prompt-{i}" / "prompt.npy",
            rows[i * 8 : i * 8 + 8] + 0.3 * rng.standard_normal((8, 16)).astype(np.float32),
        )
        prompts.append(load_soft_prompt(tmp_path / "gallery" / f"prompt-{i}"))
    return prompts, dataclasses.replace(vocabulary, cache=own_cache / "vocabularies" / "0123")


def of_readings(prompts, vocabulary) -> list[str]:
    return [shipped.readings_of(prompt, vocabulary).to_csv() for prompt in prompts]


def of_clusters(prompts, vocabulary) -> list:
    found = shipped.clusters_of(prompts, vocabulary, method="agglomerative")
    return [found.clusters.to_csv(), found.members.to_csv(), found.agreement.to_csv(), *figures(found.points)]


def of_places(prompts, vocabulary) -> list[bytes]:
    on = vocabulary_map(vocabulary, projection="pca")
    return figures(*vars(shipped.places_of(prompts, on, vocabulary)).values())


@pytest.mark.parametrize("figure", [of_readings, of_clusters, of_places])
def test_no_damage_to_what_is_kept_ever_changes_a_figure(figure, small, tmp_path):
    prompts, vocabulary = small
    KeptArrays(tmp_path / "others", "it", 1).keep({"u": np.ones((3, 3))})
    figure(prompts, vocabulary)
    assert kept_files(vocabulary)
    damage_again_and_again(functools.partial(figure, prompts, vocabulary), vocabulary.cache, files_in(tmp_path / "others"), MUTATIONS)


def test_what_was_made_by_other_code_of_other_values_or_of_another_vocabulary_is_made_anew_in_its_place(here, computed, monkeypatch):
    prompt = load_soft_prompt(GALLERY / NAMES[0])
    shipped.readings_of(prompt, here)
    moved = dataclasses.replace(prompt, embeddings=prompt.embeddings + prompt.embeddings[::-1])
    read = shipped.readings_of(moved, here)
    assert (read["norm"] != shipped.readings_of(prompt, here)["norm"]).any() and computed == ["readings"] * 3
    tokens = ["another", *here.tokens[1:]]
    shipped.readings_of(prompt, dataclasses.replace(here, tokens=tokens))
    assert computed == ["readings"] * 4
    shipped.readings_of(dataclasses.replace(prompt, metadata=prompt.metadata | {"initial": "recovered"}), here)
    assert computed == ["readings"] * 5
    shipped.readings_of(prompt, here)
    monkeypatch.setattr(shipped, "_code", lambda: "of another version")
    shipped.readings_of(prompt, here)
    assert computed == ["readings"] * 7 and len(kept_files(here)) == 1


def test_nothing_is_kept_of_what_does_not_ship(here, computed, tmp_path):
    elsewhere = load_soft_prompt(shutil.copytree(GALLERY / NAMES[0], tmp_path / NAMES[0]))
    of_nowhere = dataclasses.replace(elsewhere, source=None)
    for prompt in (elsewhere, of_nowhere):
        pd.testing.assert_frame_equal(shipped.readings_of(prompt, here), readings(prompt, here))
    shipped.clusters_of([load_soft_prompt(GALLERY / NAMES[1]), elsewhere], here)
    assert computed == ["readings", "readings", "find_clusters"] and not kept_files(here)


@pytest.mark.slow
def test_prepare_leaves_nothing_to_compute_of_what_ships(here, computed):
    shipped.read_all(here)
    computed.clear()
    prompts = [load_soft_prompt(path.parent) for path in sorted(GALLERY.glob("past-tense-*/run.json"))]
    assert len(prompts) > 3
    for prompt in [*prompts, *twins_of(prompts)]:
        shipped.readings_of(prompt, here)
    shipped.clusters_of(prompts, here, tasks={prompt.name: "past-tense" for prompt in prompts})
    shipped.places_of(prompts, vocabulary_map(here), here)
    assert computed == []


def test_a_damaged_prompt_keeps_the_others_from_nothing(here, computed, monkeypatch, tmp_path):
    gallery = tmp_path / "gallery"
    for name in NAMES:
        shutil.copytree(GALLERY / name, gallery / name)
    shutil.copytree(GALLERY / NAMES[0], gallery / "damaged")
    (gallery / "damaged" / "adapter_model.safetensors").write_bytes(b"nothing")
    shutil.copytree(GALLERY / NAMES[0], gallery / "undescribed")
    (gallery / "undescribed" / "run.json").write_text("{")
    (gallery / "__init__.py").touch()
    monkeypatch.setattr(shipped, "GALLERY", gallery)
    shipped.read_all(here)
    prompts = [load_soft_prompt(gallery / name) for name in NAMES]
    each = [*prompts, *twins_of(prompts)]
    assert computed.count("readings") == len(each) and computed.count("placed") == len(prompts) and computed.count("find_clusters") == 1
    shipped.readings_of(prompts[1], here)
    assert computed.count("readings") == len(each)
