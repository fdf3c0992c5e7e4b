"""A search over every virtual token at hand: which of them, in whose prompts, resemble this one, or this word?

The index holds the unit vectors of centred virtual tokens. Up to a million it is exact, and is built each time, as quickly as it could be read from the
disk. Beyond, it is an inverted file whose recall is measured and whose lists take minutes to find: it is kept beside the vocabulary that the tokens are
centred by, and is brought up to date when prompts come and go. Prompts that are not to be kept are then added in memory.
"""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import faiss
import numpy as np
import pandas as pd

from analysis.adapters import SoftPrompt
from analysis.errors import InputError
from analysis.kept import KeptArrays
from analysis.models import Report, no_report
from analysis.neighbours import nearest, unit_rows
from analysis.null import null_of, p_values
from analysis.vocabulary import Vocabulary

COLUMNS = ["rank", "prompt", "position", "score", "p_chance", "nearest_token"]
EXACT_UP_TO = 1_000_000
RECALL_QUERIES = 100
RECALL_AT = 10
PROBED = 1 / 16  # of the inverted file's lists
SEED = 20_215
_VERSION = 1  # raise it when the content of a kept index changes


@dataclass(frozen=True, eq=False)
class TokenIndex:
    """The virtual tokens of many prompts, searched by centred cosine.

    Attributes
    ----------
    tokens : id, prompt, position, content (a digest of the prompt's rows), one row a virtual token.
    exact : whether every token is compared.
    recall : the share of the true ten nearest that a search finds, over a hundred of the tokens; 1 where the search is exact.
    null : sorted, the best score of each of the vocabulary's 1,000 random vectors (see `analysis.null`) among these tokens.
    """

    vocabulary: Vocabulary
    tokens: pd.DataFrame
    exact: bool
    recall: float
    null: np.ndarray
    index: faiss.Index

    def __len__(self) -> int:
        return len(self.tokens)

    def search(self, vector: np.ndarray, top_k: int = 20) -> pd.DataFrame:
        """The virtual tokens nearest to a vector.

        Parameters
        ----------
        vector : (d,), where virtual tokens and words are (not centred).

        Returns
        -------
        rank (from 0), prompt, position, score (centred cosine), p_chance (share of random vectors whose best score among these tokens is as high;
        a little too large for a token that is not the first), nearest_token.

        Raises
        ------
        InputError
            The vector is not as wide as the vocabulary.
        """
        vector = np.asarray(vector, dtype=np.float64)
        if vector.shape != (self.vocabulary.width,):
            raise InputError(f"A vector of shape {vector.shape} does not go with {self.vocabulary.model}, {self.vocabulary.width} wide.")
        scores, ids = self.index.search(_units(vector[None], self.vocabulary), min(max(1, top_k), max(1, len(self))))
        scores, ids = scores[0][ids[0] >= 0].astype(np.float64), ids[0][ids[0] >= 0]
        order = np.lexsort((ids, -scores))
        scores, ids = scores[order], ids[order]
        found = self.tokens.set_index("id").loc[ids]
        rows = np.array([self.index.reconstruct(int(i)) for i in ids]).reshape(len(ids), self.vocabulary.width)
        words, _ = nearest(self.vocabulary.mean + rows, self.vocabulary, top_k=1)
        return pd.DataFrame(
            {
                "rank": np.arange(len(found)),
                "prompt": found["prompt"].to_numpy(),
                "position": found["position"].to_numpy(),
                "score": scores,
                "p_chance": p_values(self.null, scores),
                "nearest_token": [self.vocabulary.tokens[i] for i in words[:, 0]],
            },
            columns=COLUMNS,
        )


def token_index(
    prompts: Sequence[SoftPrompt],
    vocabulary: Vocabulary,
    *,
    in_memory: Collection[str] = (),
    exact_up_to: int = EXACT_UP_TO,
    report: Report = no_report,
) -> TokenIndex:
    """The index of exactly these prompts' tokens.

    Parameters
    ----------
    prompts : of different names, all as wide as the vocabulary.
    in_memory : the names of those of which nothing is written to the disk, neither rows nor name.
    exact_up_to : tokens up to which every one is compared.

    Raises
    ------
    InputError
        A prompt is not as wide as the vocabulary.
    """
    for prompt in prompts:
        prompt.check_width(vocabulary.width, vocabulary.model)
    exact = sum(map(len, prompts)) <= exact_up_to
    draws = _units(null_of(vocabulary, report=report).draws, vocabulary)
    to_keep = [prompt for prompt in prompts if prompt.name not in in_memory]
    kept = None if sum(map(len, to_keep)) <= exact_up_to else _kept(to_keep, vocabulary, report)
    tokens, index, _ = _updated(kept, prompts, vocabulary, exact, report)
    best = np.sort(index.search(draws, 1)[0][:, 0].astype(np.float64)) if len(tokens) else np.ones(1)
    report(1.0, "ready")
    return TokenIndex(vocabulary, tokens, exact, 1.0 if exact else _recall(tokens, index), best, index)


def _updated(
    kept: tuple[pd.DataFrame, faiss.Index] | None, prompts: Sequence[SoftPrompt], vocabulary: Vocabulary, exact: bool, report: Report
) -> tuple[pd.DataFrame, faiss.Index, bool]:
    """The table and the index of these prompts, and whether they differ from what was kept."""
    wanted = {(prompt.name, hashlib.sha256(prompt.embeddings.tobytes()).hexdigest()): prompt for prompt in prompts}
    tokens, index = kept or (_NO_TOKENS, _empty_index(prompts, vocabulary, exact))
    here = list(zip(tokens["prompt"], tokens["content"], strict=True))
    gone = np.array([key not in wanted for key in here], dtype=bool)
    come = [key for key in wanted if key not in set(here)]
    if gone.any():
        index.remove_ids(tokens["id"].to_numpy(np.int64)[gone])
        tokens = tokens[~gone].reset_index(drop=True)
    new = [tokens]
    first = int(tokens["id"].max()) + 1 if len(tokens) else 0
    for i, key in enumerate(come):
        report(i / len(come), f"indexing {key[0]}")
        rows = wanted[key].embeddings
        ids = np.arange(first, first + len(rows))
        first += len(rows)
        index.add_with_ids(_units(rows, vocabulary), ids)
        new.append(pd.DataFrame({"id": ids, "prompt": key[0], "position": np.arange(len(rows)), "content": key[1]}))
    return pd.concat([table for table in new if len(table)] or new, ignore_index=True), index, bool(come) or bool(gone.any())


_NO_TOKENS = pd.DataFrame(
    {"id": np.zeros(0, np.int64), "prompt": np.zeros(0, str), "position": np.zeros(0, np.int64), "content": np.zeros(0, str)}
)


def _units(vectors: np.ndarray, vocabulary: Vocabulary) -> np.ndarray:
    return np.ascontiguousarray(unit_rows(vectors.astype(np.float64) - vocabulary.mean), dtype=np.float32)


def _empty_index(prompts: Sequence[SoftPrompt], vocabulary: Vocabulary, exact: bool) -> faiss.Index:
    if exact:
        return faiss.IndexIDMap2(faiss.IndexFlatIP(vocabulary.width))
    total = sum(len(prompt) for prompt in prompts)
    lists = max(1, round(4 * math.sqrt(total)))
    # 64 rows a list are plenty to find the lists' centres, and so much is all that the clustering holds in memory.
    share = min(1.0, 64 * lists / total)
    rng = np.random.default_rng(SEED)
    some = [_units(prompt.embeddings[rng.random(len(prompt)) < share], vocabulary) for prompt in prompts]
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(vocabulary.width), vocabulary.width, lists, faiss.METRIC_INNER_PRODUCT)
    index.cp.seed = SEED
    index.nprobe = max(1, round(PROBED * lists))
    index.train(np.concatenate(some))
    index.set_direct_map_type(faiss.DirectMap.Hashtable)  # so that tokens can be taken out, and read back
    return index


def _recall(tokens: pd.DataFrame, index: faiss.Index) -> float:
    """The share of the ten nearest, by comparing with all, that a search finds."""
    rng = np.random.default_rng(SEED)
    ids = rng.choice(tokens["id"], min(RECALL_QUERIES, len(tokens)), replace=False)
    rows = np.stack([index.reconstruct(int(i)) for i in ids])
    k = min(RECALL_AT, len(tokens))
    _, found = index.search(rows, k)
    _, true = index.search(rows, k, params=faiss.SearchParametersIVF(nprobe=index.nlist))
    return float(np.mean([len(np.intersect1d(a, b)) / k for a, b in zip(found, true, strict=True)]))


def _kept(prompts: Sequence[SoftPrompt], vocabulary: Vocabulary, report: Report) -> tuple[pd.DataFrame, faiss.Index]:
    """The inverted file that was kept, brought up to date with these prompts; a new one where there is none."""
    place = KeptArrays(vocabulary.cache, "token-index", _VERSION, shapes={"tokens": (None,), "index": (None,)})
    read = place.read()
    kept = None
    if read is not None:
        kept = pd.read_parquet(io.BytesIO(read["tokens"].tobytes())), faiss.deserialize_index(np.asarray(read["index"]))
    tokens, index, changed = _updated(kept, prompts, vocabulary, False, report)
    if changed:
        table = np.frombuffer(tokens.to_parquet(index=False), dtype=np.uint8)
        place.keep({"tokens": table, "index": faiss.serialize_index(index)})
    return tokens, index
