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
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from soft_prompt_explorer.analysis.adapters import SoftPrompt
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.core.kept import KeptArrays
from soft_prompt_explorer.analysis.core.late import Late
from soft_prompt_explorer.analysis.core.progress import Report, no_report
from soft_prompt_explorer.analysis.models.vocabulary import Vocabulary
from soft_prompt_explorer.analysis.prompts.null import p_values
from soft_prompt_explorer.analysis.prompts.search import allowed_tokens, nearest, unit_rows

if TYPE_CHECKING:
    import faiss
else:
    faiss = Late("faiss")

COLUMNS = ["rank", "prompt", "position", "score", "p_chance", "nearest_token", "q_chance", "form", "z", "started_there"]
EXACT_UP_TO = 1_000_000
RECALL_QUERIES = 100
RECALL_AT = 10
PROBED = 1 / 16  # of the inverted file's lists
SEED = 20_215
REFERENCE = 2_000  # what a query is compared with: one half says what each token scores, the other half what chance finds
FEWER = 400  # the same where more than `COMPARED` tokens are at hand
COMPARED = 100_000  # tokens that are standardised for a search; of more, a sample, and the likest thousand
LIKELY = 1_000
FEWEST = 200  # words of like frequency and kind; where there are not so many, of like frequency alone, and then of any
DECILES = 10
BLOCK = 4_096
SAME = 0.99  # centred cosine from which an initial value is a word's row, in whatever precision it was kept
_VERSION = 1  # raise it when the content of a kept index changes


@dataclass(frozen=True, eq=False)
class TokenIndex:
    """The virtual tokens of many prompts, searched by centred cosine.

    Some tokens resemble everything a little, and with hundreds of them some resemble any word. So a token's score is standardised by what the token
    scores with words that could as well have been asked for (z), and the greatest z of all tokens is compared with the greatest z that such words get.

    Attributes
    ----------
    tokens : id, prompt, position, content (a digest of the prompt's rows), one row a virtual token.
    exact : whether every token is compared.
    recall : the share of the true ten nearest that `nearest` finds, over a hundred of the tokens; 1 where it is exact.
    starts : by prompt and position, the id of the word that the token started from, −1 where it was none; without those whose initial value is unknown.
    """

    vocabulary: Vocabulary
    tokens: pd.DataFrame
    exact: bool
    recall: float
    starts: dict[tuple[str, int], int]
    index: faiss.Index

    def __len__(self) -> int:
        return len(self.tokens)

    def nearest(self, vector: np.ndarray, top_k: int = 20) -> pd.DataFrame:
        """The virtual tokens nearest to a vector (d,): id, prompt, position, score (centred cosine), the highest first. How far beyond chance, it does not say.

        Raises
        ------
        InputError
            The vector is not as wide as the vocabulary.
        """
        scores, ids = self.index.search(self._query(vector)[None], min(max(1, top_k), max(1, len(self))))
        scores, ids = scores[0][ids[0] >= 0].astype(np.float64), ids[0][ids[0] >= 0]
        order = np.lexsort((ids, -scores))
        found = self.tokens.set_index("id").loc[ids[order]].reset_index()
        return found[["id", "prompt", "position"]].assign(score=scores[order])

    def search_word(self, forms: Sequence[int], top_k: int = 20) -> pd.DataFrame:
        """The virtual tokens that resemble a word more than they resemble other words.

        Parameters
        ----------
        forms : the token ids that the word is, with a space before it and without (`analysis.models.words.forms`); each is searched.

        Returns
        -------
        The highest z first: rank (from 0), prompt, position, score (centred cosine with the form), p_chance (the share of words of like frequency that
        resemble this token as much), nearest_token, q_chance (the share of such words that resemble any token here as much, in either form: p corrected for all
        tokens that are compared), form (the one that the token is nearest to), z (the score less the token's mean score with words of like frequency,
        in their standard deviations), started_there (whether the token's initial value is one of the forms; missing where it is unknown).

        Words of like frequency are words from the same tenth of the token ids (byte-pair ids run with frequency), whole words where the form is one, without the
        word itself in any spelling and without words that a token here started from.
        """
        every = []
        for form in forms:
            query = np.asarray(self.vocabulary.embeddings[form], dtype=np.float64)
            every.append(self._scored(query, self._like(form), top_k).assign(form=self.vocabulary.tokens[form]))
        best = pd.concat(every).sort_values(["z", "id"], ascending=[False, True], kind="stable").drop_duplicates("id")
        best["q_chance"] = np.minimum(1.0, len(forms) * best["q_chance"])
        return self._table(best, top_k, set(forms))

    def search(self, vector: np.ndarray, top_k: int = 20, *, itself: tuple[str, int] | None = None) -> pd.DataFrame:
        """The virtual tokens that resemble a vector more than they resemble vectors drawn like the virtual tokens at hand, by their mean and covariance.

        Parameters
        ----------
        vector : (d,), where virtual tokens are (not centred).
        itself : the prompt and position that the vector is from: it is left out, and so are its prompt's tokens from what the vectors are drawn like, where there
            are other prompts.

        Returns
        -------
        As `search_word`, with such vectors in place of words, no form, and started_there where a token started from the same word as the vector.

        Raises
        ------
        InputError
            The vector is not as wide as the vocabulary.
        """
        self._query(vector)
        own = (self.tokens["prompt"] == itself[0]).to_numpy() if itself is not None else np.zeros(len(self), dtype=bool)
        found = self._scored(vector, self._drawn(np.zeros_like(own) if own.all() else own), top_k + 1)
        if itself is not None:
            found = found[(found["prompt"] != itself[0]) | (found["position"] != itself[1])]
        start = self.starts.get(itself, -1) if itself is not None else -1
        return self._table(found.assign(form=""), top_k, {start} - {-1})

    @cached_property
    def _whole_words(self) -> np.ndarray:
        try:
            return allowed_tokens(self.vocabulary, whole_words=True)
        except InputError:  # there is none
            return np.zeros(len(self.vocabulary), dtype=bool)

    @cached_property
    def _letters(self) -> np.ndarray:
        """Each token as the word that it is: without its space, in small letters."""
        return np.array([token.strip().casefold() for token in self.vocabulary.tokens], dtype=object)

    def _query(self, vector: np.ndarray) -> np.ndarray:
        vector = np.asarray(vector, dtype=np.float64)
        if vector.shape != (self.vocabulary.width,):
            raise InputError(f"A vector of shape {vector.shape} does not go with {self.vocabulary.model}, {self.vocabulary.width} wide.")
        return _units(vector[None], self.vocabulary)[0]

    def _rows(self, ids: np.ndarray) -> np.ndarray:
        """The unit vectors of tokens, (n, d) float32."""
        return self.index.reconstruct_batch(ids).reshape(len(ids), self.vocabulary.width) if len(ids) else np.zeros((0, 0), np.float32)

    def _like(self, form: int) -> np.ndarray:
        """Unit vectors of words of like frequency, (m, d) float32."""
        vocabulary = self.vocabulary
        edges = np.linspace(0, len(vocabulary), DECILES + 1).astype(np.int64)
        tenth = min(int(np.searchsorted(edges, form, side="right")) - 1, DECILES - 1)
        usable = ~vocabulary.special
        usable[[start for start in self.starts.values() if start >= 0]] = False
        usable[self._letters == self._letters[form]] = False
        of_tenth = np.zeros(len(vocabulary), dtype=bool)
        of_tenth[edges[tenth] : edges[tenth + 1]] = True
        whole = self._whole_words
        wanted = (usable & of_tenth & (whole == whole[form]), usable & of_tenth, usable)
        ids = np.flatnonzero(next((each for each in wanted if each.sum() >= FEWEST), usable))
        ids = np.random.default_rng(SEED).permutation(ids)[: self._count()]
        return _units(np.asarray(vocabulary.embeddings[ids]), vocabulary)

    def _drawn(self, without: np.ndarray) -> np.ndarray:
        """Unit vectors drawn like the tokens here, (m, d) float32: u = ū + Σ g (u_i − ū) / √n, g standard normal, which needs no factorisation."""
        ids = self.tokens["id"].to_numpy(np.int64)[~without]
        rng, count = np.random.default_rng(SEED), self._count()
        ids = ids if len(ids) <= COMPARED else rng.choice(ids, COMPARED, replace=False)
        mean, drawn = np.zeros(self.vocabulary.width), np.zeros((count, self.vocabulary.width))
        for start in range(0, len(ids), BLOCK):
            mean += self._rows(ids[start : start + BLOCK]).sum(axis=0, dtype=np.float64) / len(ids)
        for start in range(0, len(ids), BLOCK):
            rows = self._rows(ids[start : start + BLOCK])
            drawn += rng.standard_normal((count, len(rows)), dtype=np.float32) @ (rows - mean.astype(np.float32))
        return unit_rows(mean + drawn / math.sqrt(max(1, len(ids)))).astype(np.float32)

    def _count(self) -> int:
        return REFERENCE if len(self) <= COMPARED else FEWER

    def _scored(self, vector: np.ndarray, reference: np.ndarray, top_k: int) -> pd.DataFrame:
        """id, prompt, position, score, z, p_chance and q_chance of every token, or of the likest where there are more than are compared; see `search_word`."""
        query, ids = self._query(vector), self.tokens["id"].to_numpy(np.int64)
        if len(ids) <= COMPARED:
            found, greatest = self._standardised(query, ids, reference)
            several = 1.0
        else:
            likest = self.nearest(vector, max(LIKELY, 10 * top_k))["id"].to_numpy(np.int64)
            found, _ = self._standardised(query, likest, reference)
            _, greatest = self._standardised(query, np.random.default_rng(SEED).choice(ids, COMPARED, replace=False), reference)
            several = len(ids) / COMPARED  # the greatest of so many times as many is as small with the power of that
        q = p_values(greatest, found["z"].to_numpy())
        found["q_chance"] = q if several == 1.0 else np.maximum(q, 1 - (1 - q) ** several)
        return found.merge(self.tokens[["id", "prompt", "position"]], on="id")

    def _standardised(self, query: np.ndarray, ids: np.ndarray, reference: np.ndarray) -> tuple[pd.DataFrame, np.ndarray]:
        """id, score, z and p_chance of some tokens, and, sorted, the greatest z among them of each of the second half of the reference."""
        half = len(reference) // 2
        greatest, blocks = np.full(len(reference) - half, -np.inf), []
        for start in range(0, len(ids), BLOCK):
            rows = self._rows(ids[start : start + BLOCK])
            scores, known = rows.astype(np.float64) @ query, (reference @ rows.T).astype(np.float64)
            mean, spread = known[:half].mean(axis=0), known[:half].std(axis=0, ddof=1)
            spread[~(spread > 0)] = np.inf  # a token at the mean of the vocabulary resembles nothing
            chance = (known[half:] - mean) / spread
            z = (scores - mean) / spread
            greatest = np.maximum(greatest, chance.max(axis=1))
            p = (1 + (chance >= z).sum(axis=0)) / (1 + len(chance))
            blocks.append(pd.DataFrame({"id": ids[start : start + BLOCK], "score": scores, "z": z, "p_chance": p}))
        return pd.concat(blocks) if blocks else pd.DataFrame({"id": ids, "score": 0.0, "z": 0.0, "p_chance": 1.0}), np.sort(greatest)

    def _table(self, found: pd.DataFrame, top_k: int, starts: set[int]) -> pd.DataFrame:
        found = found.sort_values(["z", "id"], ascending=[False, True], kind="stable").head(max(1, top_k))
        rows = self._rows(found["id"].to_numpy(np.int64)).reshape(len(found), self.vocabulary.width)
        words, _ = nearest(self.vocabulary.mean + rows, self.vocabulary, top_k=1)
        began = [self.starts.get((prompt, position)) for prompt, position in zip(found["prompt"], found["position"], strict=True)]
        return found.assign(
            rank=np.arange(len(found)),
            nearest_token=[self.vocabulary.tokens[i] for i in words[:, 0]],
            started_there=pd.array([None if start is None else start in starts for start in began], dtype="boolean"),
        )[COLUMNS].reset_index(drop=True)


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
    to_keep = [prompt for prompt in prompts if prompt.name not in in_memory]
    kept = None if sum(map(len, to_keep)) <= exact_up_to else _kept(to_keep, vocabulary, report)
    tokens, index, _ = _updated(kept, prompts, vocabulary, exact, report)
    starts = _starts(prompts, vocabulary, report)
    report(1.0, "ready")
    return TokenIndex(vocabulary, tokens, exact, 1.0 if exact else _recall(tokens, index), starts, index)


def _starts(prompts: Sequence[SoftPrompt], vocabulary: Vocabulary, report: Report) -> dict[tuple[str, int], int]:
    """The word that each token started from, by prompt and position: that whose row its initial value is, or nearly; −1 where it is no word's."""
    known = {
        (prompt.name, position): row.astype(np.float32)
        for prompt in prompts
        if prompt.initial is not None
        for position, row in enumerate(prompt.initial)
    }
    different = {row.tobytes(): row for row in known.values()}
    if not different:
        return {}
    ids, scores = nearest(np.stack(list(different.values())), vocabulary, top_k=1, report=report)
    words = dict(zip(different, np.where(scores[:, 0] >= SAME, ids[:, 0], -1).tolist(), strict=True))
    return {place: words[row.tobytes()] for place, row in known.items()}


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
