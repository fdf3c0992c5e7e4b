"""The neighbours are those of a plain float64 calculation, and a planted word is found."""

import io
import tracemalloc
import unicodedata

import numpy as np
import pandas as pd
import pytest

from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.models.vocabulary import Vocabulary
from soft_prompt_explorer.analysis.prompts.metrics import METRICS, csls_crowding
from soft_prompt_explorer.analysis.prompts.search import allowed_tokens, nearest, neighbours
from tests.support.places import EMBEDDED

WIDTH = 24


def make_vocabulary(embeddings: np.ndarray) -> Vocabulary:
    return Vocabulary.from_embeddings([f"t{i}" for i in range(len(embeddings))], embeddings.astype(np.float32))


def awkward_embeddings(mean_to_spread: float, pairs: int = 4_300) -> np.ndarray:
    """Rows in pairs m + x and m − x, so that their mean is m to the last bit: some zero, some repeated, some equal to m.

    All values are multiples of 2⁻¹², so neither float32 nor a sum in float64 rounds them.
    """
    rng = np.random.default_rng(5)
    mean = np.round(rng.normal(size=WIDTH) * mean_to_spread * 4096) / 4096
    offsets = np.round(rng.normal(size=(pairs, WIDTH)) * 4096) / 4096
    offsets[:30] = mean  # the rows 2m and 0
    offsets[30:45] = 0.0
    offsets[45:120] = offsets[120]
    offsets[200:300] = offsets[300:400]
    rows = np.concatenate([mean + offsets, mean - offsets])
    return rng.permutation(rows)


def queries_for(embeddings: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng(6)
    mean = embeddings.mean(axis=0)
    near = embeddings[rng.integers(len(embeddings), size=120)] + rng.normal(size=(120, WIDTH))
    repeated = embeddings[np.unique(embeddings, axis=0, return_index=True, return_counts=True)[1][:3]]
    far = rng.normal(size=(4, WIDTH)) * np.array([[1e6], [-1e6], [1e-6], [30.0]])
    return np.concatenate([near, repeated, far, [mean, np.zeros(WIDTH), -mean, mean + far[3] * 1e-4]])


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """All cosines of two sets of rows, summed row by row; 0 where a row is zero."""
    products = np.array([(b * row).sum(axis=1) for row in a])
    lengths = np.sqrt((a * a).sum(axis=1))[:, None] * np.sqrt((b * b).sum(axis=1))[None, :]
    return np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0)


def mean_of_ten_largest(scores: np.ndarray) -> np.ndarray:
    return np.sort(scores, axis=1)[:, -10:].mean(axis=1)


def crowding_of(embeddings: np.ndarray) -> np.ndarray:
    """CSLS's r(e): the mean centred cosine of each row to its ten nearest other rows."""
    centred = embeddings - embeddings.mean(axis=0)
    lengths = np.sqrt((centred * centred).sum(axis=1, keepdims=True))
    units = np.divide(centred, lengths, out=np.zeros_like(centred), where=lengths > 0)
    crowding = np.empty(len(units))
    for start in range(0, len(units), 1000):
        block = units[start : start + 1000] @ units.T
        own = np.arange(len(block))
        block[own, own + start] = -np.inf
        crowding[start : start + len(block)] = np.partition(block, -10, axis=1)[:, -10:].mean(axis=1)
    _, first, same = np.unique(embeddings, axis=0, return_index=True, return_inverse=True)
    return crowding[first][same]  # equal rows are equally crowded; a matrix product need not say so to the last bit


def reference_scores(vectors: np.ndarray, embeddings: np.ndarray, metric: str) -> np.ndarray:
    """The scores of methods.md in plain float64, (n, V)."""
    mean = embeddings.mean(axis=0)
    if metric == "dot":
        return np.array([(embeddings * vector).sum(axis=1) for vector in vectors])
    if metric == "euclidean":
        return -np.array([np.sqrt(((embeddings - vector) ** 2).sum(axis=1)) for vector in vectors])
    if metric == "cosine":
        return cosines(vectors, embeddings)
    centred = cosines(vectors - mean, embeddings - mean)
    if metric == "centred":
        return centred
    return 2 * centred - mean_of_ten_largest(centred)[:, None] - crowding_of(embeddings)[None, :]


def assert_nearest(
    ids: np.ndarray, scores: np.ndarray, expected: np.ndarray, embeddings: np.ndarray, k: int, named: np.ndarray | None = None
) -> None:
    """The k best of `expected` (n, V), best first, in the one order that there is: scores that differ by less than 1e-9 may
    stand either way, but equal rows stand by their id."""
    named = np.arange(expected.shape[1]) if named is None else named
    assert ids.shape == scores.shape == (len(expected), min(k, len(named)))
    _, kind, copies = np.unique(embeddings, axis=0, return_inverse=True, return_counts=True)
    for found, found_scores, row in zip(ids, scores, expected, strict=True):
        order = named[np.argsort(-row[named], kind="stable")]
        np.testing.assert_allclose(found_scores, row[order[: len(found)]], rtol=1e-9, atol=1e-5)
        step = -np.diff(row[order])
        place = np.empty(len(row), dtype=int)
        place[order] = np.concatenate([[0], np.cumsum(step > 1e-9 + 1e-14 * np.abs(row[order][1:]))])
        np.testing.assert_array_equal(place[found], place[order[: len(found)]])
        assert len(set(found)) == len(found)
        for i, token_id in enumerate(found):
            if copies[kind[token_id]] > 1:
                smaller = named[(kind[named] == kind[token_id]) & (named < token_id)]
                assert set(smaller) <= set(found[:i]), "ties go to the smaller token id"


# --- Against a plain calculation -------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[1.0, 100.0], ids=["usual", "anisotropic"])
def awkward(request):
    return awkward_embeddings(request.param)


@pytest.mark.parametrize("metric", METRICS)
def test_neighbours_are_those_of_a_plain_float64_calculation(awkward, metric):
    assert len(awkward) > 8192, "several blocks"
    vectors = queries_for(awkward)
    ids, scores = nearest(vectors, make_vocabulary(awkward), metric=metric, top_k=25)
    assert_nearest(ids, scores, reference_scores(vectors, awkward, metric), awkward, 25)


@pytest.mark.parametrize("metric", METRICS)
def test_only_the_allowed_rows_are_named_and_the_scores_stay_the_same(metric):
    embeddings = awkward_embeddings(1.0)
    vectors = queries_for(embeddings)[110:]
    allowed = np.random.default_rng(8).random(len(embeddings)) < 0.02
    allowed[:8192] = False
    ids, scores = nearest(vectors, make_vocabulary(embeddings), metric=metric, top_k=12, allowed=allowed)
    assert_nearest(ids, scores, reference_scores(vectors, embeddings, metric), embeddings, 12, np.flatnonzero(allowed))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("size", [1, 2, 13, 60])
def test_a_vocabulary_smaller_than_k_is_named_whole(metric, size):
    embeddings = np.random.default_rng(size).normal(size=(size, WIDTH)).astype(np.float32).astype(np.float64)
    vectors = np.random.default_rng(9).normal(size=(3, WIDTH))
    ids, scores = nearest(vectors, make_vocabulary(embeddings), metric=metric, top_k=1000)
    assert [sorted(row) for row in ids] == [list(range(size))] * 3
    if metric != "csls" or size > 10:
        assert_nearest(ids, scores, reference_scores(vectors, embeddings, metric), embeddings, 1000)
    assert np.isfinite(scores).all()


@pytest.mark.parametrize("metric", ["centred", "euclidean"])
def test_k_may_span_several_blocks(metric):
    embeddings = awkward_embeddings(1.0)
    vectors = queries_for(embeddings)[:2]
    ids, scores = nearest(vectors, make_vocabulary(embeddings), metric=metric, top_k=8300)
    assert_nearest(ids, scores, reference_scores(vectors, embeddings, metric), embeddings, 8300)


@pytest.mark.parametrize("metric", METRICS)
def test_in_a_vocabulary_of_one_repeated_row_the_first_ids_are_named(metric):
    row = np.random.default_rng(3).normal(size=WIDTH).astype(np.float32)
    vocabulary = make_vocabulary(np.tile(row, (9000, 1)))
    vector = np.random.default_rng(4).normal(size=WIDTH)
    ids, scores = nearest(vector[None], vocabulary, metric=metric, top_k=5)
    assert ids.tolist() == [[0, 1, 2, 3, 4]]
    p, e = vector, row.astype(np.float64)
    by_hand = {
        "dot": p @ e,
        "cosine": p @ e / np.linalg.norm(p) / np.linalg.norm(e),
        "euclidean": -np.linalg.norm(p - e),
        "centred": 0.0,
        "csls": 0.0,
    }
    np.testing.assert_allclose(scores, by_hand[metric], atol=1e-9)


@pytest.mark.parametrize("metric", METRICS)
def test_in_a_vocabulary_of_zeros_every_score_is_a_number(metric):
    ids, scores = nearest(np.ones((1, WIDTH)), make_vocabulary(np.zeros((50, WIDTH))), metric=metric, top_k=3)
    assert ids.tolist() == [[0, 1, 2]]
    np.testing.assert_allclose(scores, -np.sqrt(WIDTH) if metric == "euclidean" else 0.0)


@pytest.mark.parametrize("metric", ["cosine", "centred", "dot", "euclidean"])
@pytest.mark.parametrize("size", [1e-20, 1e-36, 1e-41])
def test_rows_that_weight_decay_has_left_almost_zero_are_ranked_by_their_direction(metric, size):
    rng = np.random.default_rng(12)
    rows = rng.normal(size=(500, WIDTH))
    rows[::3] *= size
    rows = np.concatenate([rows, -rows]).astype(np.float32)
    vectors = rng.normal(size=(20, WIDTH))
    ids, scores = nearest(vectors, make_vocabulary(rows), metric=metric, top_k=15)
    assert_nearest(ids, scores, reference_scores(vectors, rows.astype(np.float64), metric), rows, 15)


@pytest.mark.parametrize("step", [1, 40, 64, 1000])
def test_the_best_rows_may_stand_at_any_distance_from_each_other(step):
    rng = np.random.default_rng(13)
    vectors = rng.normal(size=(2, WIDTH))
    embeddings = rng.normal(size=(20_000, WIDTH))
    embeddings[: 20 * step : step] = vectors[0] + 0.1 * rng.normal(size=(20, WIDTH))
    embeddings = embeddings.astype(np.float32).astype(np.float64)
    ids, scores = nearest(vectors, make_vocabulary(embeddings), top_k=10)
    assert_nearest(ids, scores, reference_scores(vectors, embeddings, "centred"), embeddings, 10)


def test_crowding_leaves_the_row_itself_out():
    embeddings = awkward_embeddings(1.0, pairs=900)
    np.testing.assert_allclose(csls_crowding(make_vocabulary(embeddings)), crowding_of(embeddings), atol=1e-6)


def test_a_scale_changes_no_cosine_and_a_shift_of_all_changes_no_centred_cosine():
    embeddings = awkward_embeddings(1.0, pairs=900)
    vectors = queries_for(embeddings)[:20]
    ids, scores = nearest(vectors, make_vocabulary(embeddings), metric="centred")
    shifted_ids, shifted_scores = nearest(8 * vectors + 1.5, make_vocabulary(8 * embeddings + 1.5), metric="centred")
    np.testing.assert_array_equal(shifted_ids, ids)
    np.testing.assert_allclose(shifted_scores, scores, atol=1e-9)


def test_the_scores_of_a_whole_vocabulary_are_never_in_memory_at_once():
    vocabulary = make_vocabulary(np.random.default_rng(1).normal(size=(120_000, 4)))
    vectors = np.random.default_rng(2).normal(size=(128, 4))
    tracemalloc.start()
    nearest(vectors, vocabulary)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 128 * 120_000 * 4 / 2


# --- Refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("vectors", "options", "word"),
    [
        (np.full((1, WIDTH), np.nan), {}, "NaN"),
        (np.full((1, WIDTH), -np.inf), {}, "infinity"),
        (np.zeros((1, WIDTH + 1)), {}, "wide"),
        (np.zeros(WIDTH), {}, "shape"),
        (np.zeros((1, WIDTH)), {"metric": "manhattan"}, "centred, cosine, csls, dot, euclidean"),
        (np.zeros((1, WIDTH)), {"top_k": 0}, "At least one"),
    ],
)
def test_what_is_near_to_nothing_is_refused(vectors, options, word):
    with pytest.raises(InputError, match=word):
        nearest(vectors, make_vocabulary(np.eye(WIDTH)), **options)


# --- The filters -----------------------------------------------------------------------------------------------------

WORDS = [
    " word", "ending", " naïve", " слово", "слово", " 中文", "カタ", "データ", " 한국", " ελλάδα", " two words", " 42", " w0rd", "!",
    "<0xE4><0xB8>", "\\n", "\\u200bab", "<s>", " word.", " слоwо", " ", "", " e\u0301te",
]  # fmt: skip


@pytest.fixture(scope="module")
def written_vocabulary():
    special = np.array([word == "<s>" for word in WORDS])
    return Vocabulary.from_embeddings(WORDS, np.eye(len(WORDS), dtype=np.float32), special=special)


def left(vocabulary: Vocabulary, **filters) -> list[str]:
    return [vocabulary.tokens[i] for i in np.flatnonzero(allowed_tokens(vocabulary, **filters))]


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({}, WORDS),
        ({"exclude_special": True}, [word for word in WORDS if word != "<s>"]),
        ({"whole_words": True}, [" word", " naïve", " слово", " 中文", " 한국", " ελλάδα", " слоwо", " e\u0301te"]),
        ({"script": "Latin"}, [" word", "ending", " naïve", " two words", " w0rd", " word.", " e\u0301te"]),
        ({"script": "Cyrillic"}, [" слово", "слово"]),
        ({"script": "cyrillic", "whole_words": True}, [" слово"]),
        ({"script": "CJK"}, [" 中文", "カタ", "データ", " 한국"]),
        ({"script": "cjk", "whole_words": True}, [" 中文", " 한국"]),
        ({"script": "Greek"}, [" ελλάδα"]),
    ],
    ids=str,
)
def test_a_filter_leaves_the_words_that_a_person_would_leave(written_vocabulary, filters, expected):
    assert left(written_vocabulary, **filters) == expected


@pytest.mark.parametrize("script", ["Klingon", "", "Latin}x", "[", "L", "\\", "}"])
def test_an_unknown_script_is_refused(written_vocabulary, script):
    with pytest.raises(InputError, match="not known"):
        allowed_tokens(written_vocabulary, script=script)


def test_filters_that_leave_no_token_are_refused(written_vocabulary):
    with pytest.raises(InputError, match="loosen"):
        allowed_tokens(written_vocabulary, script="Thai")


def test_word_pieces_that_continue_a_word_are_no_whole_words():
    tokens = ["[CLS]", "the", "##ing", "cat", "中", "3", "##s", "!"]
    vocabulary = Vocabulary.from_embeddings(tokens, np.eye(8), special=np.arange(8) == 0)
    assert left(vocabulary, whole_words=True) == ["the", "cat", "中"]


@pytest.mark.parametrize(("script", "names"), [("Latin", ("LATIN",)), ("Cyrillic", ("CYRILLIC",)), ("Greek", ("GREEK",))])
def test_the_embedded_tokens_of_a_script_have_letters_of_that_name_only(embedded_vocabulary, script, names):
    in_script = allowed_tokens(embedded_vocabulary, script=script)
    assert in_script.sum() > 10
    for token, named in zip(embedded_vocabulary.tokens, in_script, strict=True):
        letters = [unicodedata.name(c, "") for c in token if c.isalpha()]
        if "<" not in token and "\\" not in token and all("ORDINAL" not in name for name in letters):
            assert named == (bool(letters) and all(name.startswith(names) for name in letters)), token


def test_bytes_and_escapes_of_the_embedded_model_are_in_no_script(embedded_vocabulary):
    tokens = np.array(embedded_vocabulary.tokens, dtype=object)
    shown_by_bytes = np.array(["<0x" in token or "\\" in token for token in tokens])
    assert shown_by_bytes.sum() > 100
    assert not allowed_tokens(embedded_vocabulary, script="Latin")[shown_by_bytes].any()
    assert not allowed_tokens(embedded_vocabulary, whole_words=True)[shown_by_bytes].any()


def test_the_embedded_models_control_tokens_are_special(embedded_vocabulary, embedded_model):
    _, tokenizer = embedded_model
    allowed = allowed_tokens(embedded_vocabulary, exclude_special=True)
    assert len(tokenizer.all_special_ids) > 0
    assert not allowed[tokenizer.all_special_ids].any()
    assert allowed.sum() > 49_000


# --- A prompt's table ------------------------------------------------------------------------------------------------


def test_the_table_has_a_row_for_each_token_and_rank(prompt_file):
    from soft_prompt_explorer.analysis.adapters import load_soft_prompt

    vocabulary = make_vocabulary(np.eye(6))
    prompt = load_soft_prompt(prompt_file(np.array([[0, 3, 0, 0, 0, 1.0], [0, 0, 2, 0, 0, 0]]), "mine"))
    table = neighbours(prompt, vocabulary, metric="dot", top_k=2)
    assert list(table.columns) == ["prompt", "position", "rank", "token_id", "token", "score", "metric"]
    assert table.to_numpy().tolist() == [
        ["mine", 0, 0, 1, "t1", 3.0, "dot"],
        ["mine", 0, 1, 5, "t5", 1.0, "dot"],
        ["mine", 1, 0, 2, "t2", 2.0, "dot"],
        ["mine", 1, 1, 0, "t0", 0.0, "dot"],
    ]


@pytest.fixture(scope="module")
def planted(embedded_vocabulary) -> np.ndarray:
    """200 whole words that have a row of their own.

    A handful of names that were hardly ever trained on (" InstancePreprocess" and "swigfaiss") share one row but for a
    twentieth of its norm: no reading of a noisy copy could tell them apart.
    """
    rng = np.random.default_rng(11)
    tokens, rows = embedded_vocabulary.tokens, embedded_vocabulary.embeddings
    words = [i for i, token in enumerate(tokens) if token[:1] == " " and token[1:].isalpha() and not embedded_vocabulary.special[i]]
    drawn = rng.choice(words, size=205, replace=False)
    squares = (rows * rows).sum(axis=1)
    distances = np.sqrt(np.maximum(squares[drawn][:, None] + squares - 2 * rows[drawn] @ rows.T, 0))
    distances[np.arange(len(drawn)), drawn] = np.inf
    own = drawn[distances.min(axis=1) > 0.25 * np.sqrt(squares[drawn])]
    assert len(own) >= 200
    return own[:200]


@pytest.mark.parametrize(
    "options", [(), ("--whole-words", "--exclude-special"), ("--metric", "cosine"), ("--metric", "euclidean")], ids=" ".join
)
def test_a_word_plus_noise_is_read_as_that_word(embedded_vocabulary, planted, prompt_file, command, options):
    rows = np.array(embedded_vocabulary.embeddings[planted], dtype=np.float64)
    noise = np.random.default_rng(12).normal(size=rows.shape)
    noise *= np.linalg.norm(rows, axis=1, keepdims=True) / 2 / np.linalg.norm(noise, axis=1, keepdims=True)
    path = prompt_file((rows + noise).astype(np.float32))

    outcome = command("neighbours", path, "--model", EMBEDDED, "--format", "csv", *options)
    assert outcome.status == 0
    table = pd.read_csv(io.StringIO(outcome.out), keep_default_na=False)
    assert len(table) == 200 * 10
    nearest_words = table[table["rank"] == 0].sort_values("position")
    assert nearest_words["token_id"].tolist() == planted.tolist()
    assert nearest_words["token"].tolist() == [embedded_vocabulary.tokens[i] for i in planted]
