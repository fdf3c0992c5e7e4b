"""A map says where words and tokens stand, the same each time, and how far it can be trusted."""

import io
import shutil
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.manifold import trustworthiness as reference
from tqdm.auto import tqdm

from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.core.kept import KeptArrays
from soft_prompt_explorer.analysis.models.vocabulary import Vocabulary
from soft_prompt_explorer.analysis.prompts import projection
from soft_prompt_explorer.analysis.prompts.projection import (
    label_order,
    landmarks,
    map_neighbours,
    place,
    placed,
    trustworthiness,
    vocabulary_map,
)
from soft_prompt_explorer.analysis.prompts.search import nearest
from tests.support.damage import MUTATIONS, files_in, mutate
from tests.support.places import names_in


@pytest.fixture(scope="module")
def heaps():
    """1,000 words, 64 wide, in four heaps."""
    rng = np.random.default_rng(0)
    centres = 3 * rng.standard_normal((4, 64))
    rows = centres[np.arange(1_000) % 4] + rng.standard_normal((1_000, 64))
    return Vocabulary.from_embeddings(
        [f" word{'abcdefghij'[i % 10]}{'klmnopqrst'[i // 10 % 10]}{'uvwxyzabcd'[i // 100]}" for i in range(1_000)], rows.astype(np.float32)
    )


def units(vocabulary):
    centred = vocabulary.embeddings - vocabulary.mean
    return centred / np.linalg.norm(centred, axis=1, keepdims=True)


def test_pca_is_scikit_learns_and_places_words_where_they_stand(heaps):
    on = vocabulary_map(heaps, projection="pca", dimensions=3)
    expected = PCA(3, svd_solver="full").fit_transform(units(heaps))
    assert np.allclose(np.abs(on.places), np.abs(expected), atol=1e-4)
    assert np.allclose(place(heaps.embeddings[:50] - heaps.mean, on, heaps), on.places[:50], atol=1e-4)


def test_no_damage_to_the_map_that_ships_ever_changes_it(embedded_vocabulary, tmp_path, monkeypatch):
    (origin,) = projection.SHIPPED.glob("*/*.kept")
    place = tmp_path / "maps" / origin.parent.name / origin.name
    shutil.copytree(origin.parent, place.parent)
    monkeypatch.setattr(projection, "SHIPPED", tmp_path / "maps")
    alone = replace(embedded_vocabulary, cache=None)
    made = projection._shipped(alone, "umap", 2).read()
    monkeypatch.setattr(projection, "_make", lambda *_: made)  # half a minute, and the same again
    KeptArrays(tmp_path / "others", "it", 1).keep({"places": np.ones((3, 2))})
    rng = np.random.default_rng(0)
    for i in range(MUTATIONS):
        shutil.rmtree(place.parent)
        shutil.copytree(origin.parent, place.parent)
        kind = mutate(place, files_in(tmp_path / "others"), rng)
        on = vocabulary_map(alone)
        assert np.array_equal(on.places, made["places"]) and np.array_equal(on.ids, made["ids"]), f"{i}: {kind}"
        assert on.trustworthiness == float(made["trustworthiness"]), f"{i}: {kind}"


def test_umap_keeps_heaps_apart_and_places_tokens_in_theirs(heaps):
    on = vocabulary_map(heaps, projection="umap")
    assert on.places.shape == (1_000, 2)
    heap = np.arange(1_000) % 4
    centres = np.stack([on.places[heap == i].mean(axis=0) for i in range(4)])
    rng = np.random.default_rng(1)
    at = place(heaps.embeddings[:80] - heaps.mean + 0.3 * rng.standard_normal((80, 64)), on, heaps)
    nearest_heap = np.linalg.norm(at[:, None] - centres, axis=2).argmin(axis=1)
    assert (nearest_heap == heap[:80]).all()
    assert on.trustworthiness > 0.6
    again = vocabulary_map(heaps, projection="umap")
    assert np.array_equal(again.places, on.places)


def test_trustworthiness_is_scikit_learns_and_half_where_the_map_is_random(heaps):
    on = vocabulary_map(heaps, projection="pca")
    assert on.trustworthiness == pytest.approx(reference(units(heaps), on.places, n_neighbors=15, metric="cosine"), abs=1e-3)
    drawn = np.random.default_rng(0).standard_normal((1_000, 2))
    for places, n, k in ((on.places, 1_000, 15), (drawn, 1_000, 15), (on.places, 31, 15), (drawn, 10, 4)):
        expected = reference(units(heaps)[:n].astype(np.float64), places[:n].astype(np.float64), n_neighbors=k, metric="cosine")
        assert trustworthiness(units(heaps)[:n], places[:n]) == pytest.approx(expected, abs=1e-9)
    assert trustworthiness(units(heaps), drawn) == pytest.approx(0.5, abs=0.05)
    assert np.isnan(trustworthiness(units(heaps)[:3], drawn[:3]))


def test_a_map_is_made_once_and_kept(heaps, tmp_path, monkeypatch):
    kept = replace(heaps, cache=tmp_path)
    first = vocabulary_map(kept, projection="umap")
    assert names_in(tmp_path) == ["map-umap-2d.kept"]
    monkeypatch.setattr(projection, "_make", None)  # it cannot be made again
    again = vocabulary_map(kept, projection="umap")
    assert np.array_equal(first.places, again.places) and first.trustworthiness == again.trustworthiness
    at = place(heaps.embeddings[:5] - heaps.mean, first, kept)
    assert np.array_equal(at, place(heaps.embeddings[:5] - heaps.mean, again, kept))


def test_a_large_vocabulary_is_sampled_and_tokens_are_placed_among_the_sample(heaps, monkeypatch):
    monkeypatch.setattr(projection, "MOST_WORDS", 400)
    on = vocabulary_map(heaps, projection="umap")
    assert len(on.ids) == 400 and len(set(on.ids)) == 400 and (np.diff(on.ids) > 0).all()
    at = place(heaps.embeddings - heaps.mean, on, heaps)
    assert (at >= on.places.min(axis=0)).all() and (at <= on.places.max(axis=0)).all()
    truth = map_neighbours(heaps.embeddings[0] - heaps.mean, at[0], on, heaps)
    assert set(truth["token_id"]) <= set(on.ids)


def test_the_neighbours_on_the_map_stand_beside_the_true_ones(heaps):
    on = vocabulary_map(heaps, projection="pca")
    at = place(heaps.embeddings[7:8] - heaps.mean, on, heaps)[0]
    table = map_neighbours(heaps.embeddings[7] - heaps.mean, at, on, heaps)
    cosines = units(heaps) @ units(heaps)[7]
    assert table["token_id"].head(15).tolist() == np.argsort(-cosines)[:15].tolist()
    assert table["true_rank"].head(15).tolist() == list(range(15))
    by_map = table.sort_values("map_rank").head(15)["token_id"].tolist()
    assert by_map == np.argsort(np.linalg.norm(on.places - on.places[7], axis=1))[:15].tolist()
    assert table["score"].iloc[0] == pytest.approx(1.0)


def test_landmarks_are_whole_frequent_words_apart_from_each_other(embedded_vocabulary):
    on = vocabulary_map(embedded_vocabulary, projection="pca")
    table = landmarks(on, embedded_vocabulary, count=20)
    assert len(table) == 20 and table["token"].str.fullmatch(r" \w{4,}").all()
    places = table[["x", "y"]].to_numpy()
    distances = np.linalg.norm(places[:, None] - places, axis=2)[~np.eye(20, dtype=bool)]
    assert distances.min() > 0.02 * np.ptp(on.places, axis=0).max()


def test_what_cannot_be_mapped_is_refused(heaps):
    with pytest.raises(InputError, match="umap, pca"):
        vocabulary_map(heaps, projection="tsne")
    with pytest.raises(InputError, match="2 or 3"):
        vocabulary_map(heaps, dimensions=4)
    with pytest.raises(InputError, match="at least 30"):
        vocabulary_map(Vocabulary.from_embeddings(["a"] * 5, np.eye(5, dtype=np.float32)))


def test_whoever_watches_can_stop_it_before_the_layout_ends(heaps):
    class StoppedError(Exception):
        pass

    seen = []

    def report(share, doing):
        seen.append((share, doing))
        if doing == "laying out the map" and share > 0.31:
            raise StoppedError

    # Long enough to be seen: the progress of the layout is told a few times a second.
    rows = np.random.default_rng(2).standard_normal((20_000, 16)).astype(np.float32)
    large = Vocabulary.from_embeddings([f" w{i}" for i in range(len(rows))], rows)
    began = time.perf_counter()
    with pytest.raises(StoppedError):
        vocabulary_map(large, report=report)
    assert seen[-1][0] < 0.9, (seen, time.perf_counter() - began)
    # tqdm's own lock is not left behind: a bar in another thread can still be drawn.
    drawn = threading.Thread(target=lambda: tqdm(range(1), file=io.StringIO()).close(), daemon=True)
    drawn.start()
    drawn.join(timeout=600)
    assert not drawn.is_alive()


def test_the_share_that_a_map_keeps_is_that_of_the_table_of_neighbours(heaps):
    on = vocabulary_map(heaps, projection="pca")
    points = heaps.embeddings[:20] - heaps.mean + 0.5 * np.random.default_rng(3).standard_normal((20, 64))
    found = placed(points, on, heaps)
    assert np.array_equal(found.places, place(points, on, heaps))
    for i in range(20):
        table = map_neighbours(points[i], found.places[i], on, heaps)
        near = table[table["true_rank"] < 15]
        assert found.near[i].tolist() == near["token_id"].tolist()
        assert found.scores[i] == pytest.approx(near["score"].to_numpy())
        assert found.kept[i] == pytest.approx((near["map_rank"] < 15).mean())


def test_a_token_stands_in_the_crowd_of_its_nearest_words_and_not_between_crowds(heaps):
    on = vocabulary_map(heaps, projection="pca")
    places = np.where(np.arange(1_000)[:, None] % 4 == 0, 0.0, 10.0) + 0.01 * np.random.default_rng(4).standard_normal((1_000, 2))
    two_crowds = replace(on, projection="umap", places=places.astype(np.float32))
    ids, _ = nearest(heaps.embeddings[:1] + 1.0, heaps, top_k=15)
    most = 0.0 if (ids[0] % 4 == 0).sum() > 7 else 10.0
    assert place(heaps.embeddings[:1] + 1.0 - heaps.mean, two_crowds, heaps)[0] == pytest.approx([most, most], abs=0.1)


def test_frequent_whole_words_are_written_first_and_special_tokens_last(embedded_vocabulary):
    on = vocabulary_map(embedded_vocabulary, projection="pca")
    order = label_order(on, embedded_vocabulary)
    assert sorted(order) == list(range(len(on.ids)))
    first = [embedded_vocabulary.tokens[i] for i in on.ids[order[:200]]]
    assert all(word.startswith(" ") and word.strip().isalpha() and len(word) > 4 for word in first)
    special = embedded_vocabulary.special[on.ids[order]]
    assert special[-special.sum() :].all()


def test_the_map_of_the_embedded_vocabulary_ships_and_is_no_other_vocabularys(embedded_vocabulary, tmp_path, monkeypatch):
    monkeypatch.setattr(projection, "_make", None)  # nothing is computed
    fresh = replace(embedded_vocabulary, cache=tmp_path)
    on = vocabulary_map(fresh)
    assert names_in(tmp_path) == [] and on.places.shape == (49_152, 2) and on.ids.tolist() == list(range(49_152))
    some = np.random.default_rng(5).choice(49_152, 1_500, replace=False)
    assert on.trustworthiness == pytest.approx(trustworthiness(units(fresh)[some], on.places[some]), abs=0.02)
    other = replace(fresh, tokens=[*fresh.tokens[:-1], "another"])
    with pytest.raises(TypeError):  # it would be made
        vocabulary_map(other)
