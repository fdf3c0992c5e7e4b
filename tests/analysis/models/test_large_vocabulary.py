"""A vocabulary of the largest common shape is converted and searched exactly, in far less memory than the vocabulary takes."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.support.places import REPOSITORY

ROWS, WIDTH = 128_256, 4_096  # Llama 3's; 2.1 GB in float32
BLOCK = 4_008  # divides ROWS, and is not the size of the blocks under test
VECTORS, TOP_K = 20, 10
METRICS = ("centred", "cosine", "dot", "euclidean")
REPEATED = [5, 8_191, 8_192, 70_000, ROWS - 1]  # ids that share one row
MOST_MEMORY = 2.5e9  # bytes

SEARCH = """
import json, sys
import numpy as np
from soft_prompt_explorer.analysis.prompts.search import nearest
from soft_prompt_explorer.analysis.models.vocabulary import load_vocabulary
from tests.support.memory import peak_memory

model, vectors, top_k, metrics = sys.argv[1], np.load(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]
load_vocabulary(model)
peak_of_load = peak_memory()
vocabulary = load_vocabulary(model)
found = {metric: [a.tolist() for a in nearest(vectors, vocabulary, metric=metric, top_k=top_k)] for metric in metrics}
print(json.dumps({"found": found, "peak_of_load": peak_of_load, "peak": peak_memory(), "tokens": vocabulary.tokens[-2:]}))
"""


def as_float64(halves: np.ndarray) -> np.ndarray:
    """bfloat16, given as its 16 bits: the upper half of a float32."""
    return (halves.astype(np.uint32) << 16).view(np.float32).astype(np.float64)


def write_tensor(path: Path, name: str, blocks: Iterator[np.ndarray]) -> int:
    """A safetensors file of one (ROWS, WIDTH) bfloat16 tensor; answers where its bytes begin. Without blocks the file is a hole."""
    size = ROWS * WIDTH * 2
    header = json.dumps({name: {"dtype": "BF16", "shape": [ROWS, WIDTH], "data_offsets": [0, size]}}).encode()
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for block in blocks:
            block.tofile(file)
        file.truncate(8 + len(header) + size)
    return 8 + len(header)


def random_blocks() -> Iterator[np.ndarray]:
    """Rows around a common mean, as 16 bits each; the rows REPEATED are the same."""
    rng = np.random.default_rng(0)
    mean = rng.standard_normal(WIDTH, dtype=np.float32)
    repeated = None
    for start in range(0, ROWS, BLOCK):
        rows = mean + rng.standard_normal((BLOCK, WIDTH), dtype=np.float32)
        halves = (rows.view(np.uint32) >> 16).astype(np.uint16)
        repeated = halves[REPEATED[0]].copy() if start == 0 else repeated
        halves[[i - start for i in REPEATED if start <= i < start + BLOCK]] = repeated
        yield halves


def write_model(folder: Path, tokenizer) -> np.ndarray:
    """A Llama's folder of two shards; answers its embeddings, (ROWS, WIDTH) uint16, mapped from the shard's bytes."""
    folder.mkdir()
    shards = {"model.embed_tokens.weight": "model-00001-of-00002.safetensors", "lm_head.weight": "model-00002-of-00002.safetensors"}
    offset = write_tensor(folder / shards["model.embed_tokens.weight"], "model.embed_tokens.weight", random_blocks())
    write_tensor(folder / shards["lm_head.weight"], "lm_head.weight", iter(()))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": shards}))
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "hidden_size": WIDTH, "vocab_size": ROWS}))
    tokenizer.save_pretrained(folder)
    return np.memmap(folder / shards["model.embed_tokens.weight"], dtype="<u2", mode="r", offset=offset, shape=(ROWS, WIDTH))


def plain_scores(vectors: np.ndarray, halves: np.ndarray) -> dict[str, np.ndarray]:
    """Every score, (VECTORS, ROWS) by metric, in float64 and straight from the definitions."""
    blocks = [slice(start, start + BLOCK) for start in range(0, ROWS, BLOCK)]
    mean = sum(as_float64(halves[block]).sum(axis=0) for block in blocks) / ROWS
    scores = {metric: np.empty((VECTORS, ROWS)) for metric in METRICS}
    for block in blocks:
        rows = as_float64(halves[block])
        lengths = np.linalg.norm(rows, axis=1)
        products = vectors @ rows.T
        scores["dot"][:, block] = products
        scores["cosine"][:, block] = products / lengths / np.linalg.norm(vectors, axis=1, keepdims=True)
        scores["euclidean"][:, block] = -np.sqrt(lengths**2 - 2 * products + (vectors**2).sum(axis=1, keepdims=True))
        rows -= mean
        products = (vectors - mean) @ rows.T
        scores["centred"][:, block] = products / np.linalg.norm(rows, axis=1) / np.linalg.norm(vectors - mean, axis=1, keepdims=True)
    return scores


@pytest.mark.slow
def test_128_256_rows_of_4_096_are_searched_exactly_in_under_two_and_a_half_gigabytes(tmp_path, byte_level_tokenizer):
    try:
        halves = write_model(tmp_path / "model", byte_level_tokenizer)
        near = np.linspace(REPEATED[0], ROWS - 2, VECTORS).astype(int)
        rng = np.random.default_rng(1)
        vectors = (as_float64(halves[near]) + 2 * rng.standard_normal((VECTORS, WIDTH))).astype(np.float32)
        np.save(tmp_path / "vectors.npy", vectors)

        # A process of its own: this one's peak is of other tests.
        search = subprocess.run(
            [sys.executable, "-c", SEARCH, tmp_path / "model", tmp_path / "vectors.npy", str(TOP_K), *METRICS],
            cwd=REPOSITORY,
            env=os.environ | {"SOFT_PROMPT_EXPLORER_CACHE": str(tmp_path / "cache")},
            stdout=subprocess.PIPE,
            check=True,
        )
        answer = json.loads(search.stdout)
        assert answer["peak_of_load"] <= answer["peak"] < MOST_MEMORY
        assert answer["tokens"] == [f"<unused_row_{ROWS - 2}>", f"<unused_row_{ROWS - 1}>"]

        for metric, scores in plain_scores(vectors.astype(np.float64), halves).items():
            ids, found_scores = (np.array(a) for a in answer["found"][metric])
            # Equal rows may differ in a product's last bit: rounded, they are equal, and a stable sort leaves them by their id.
            expected = np.argsort(-np.round(scores, 8), axis=1, kind="stable")[:, :TOP_K]
            np.testing.assert_array_equal(ids, expected, err_msg=metric)
            np.testing.assert_allclose(found_scores, np.take_along_axis(scores, expected, axis=1), rtol=1e-9, err_msg=metric)
            assert ids[0, : len(REPEATED)].tolist() == REPEATED
            assert ids[1:, 0].tolist() == near[1:].tolist()
    finally:
        shutil.rmtree(tmp_path)
