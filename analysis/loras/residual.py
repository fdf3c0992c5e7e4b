"""What a LoRA's directions say: the leading singular vectors that read from or write to the residual stream, against the vocabulary, with the test of chance.

The residual stream begins as input embeddings, so a direction in it can lie near to a word. The layers' norms weigh its coordinates, and later layers may
keep other things in it than words: both are left out of account here, and a direction that is near to no word has still been learned.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from soft_prompt_explorer.analysis.adapters import LoraAdapter
from soft_prompt_explorer.analysis.core.discoveries import q_values
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.core.progress import Report, no_report
from soft_prompt_explorer.analysis.loras.ranks import place_of, singular_vectors
from soft_prompt_explorer.analysis.models.vocabulary import Vocabulary
from soft_prompt_explorer.analysis.prompts.null import null_of, read_words
from soft_prompt_explorer.analysis.prompts.search import unit_rows

COLUMNS = ["module", "layer", "projection", "side", "direction", "sign", "singular_value", "token_id", "token", "score", "p", "q"]
WRITES = ("o", "down")
READS = ("q", "k", "v", "qkv", "gate", "up")
DIRECTIONS = 2  # of each module


def residual_directions(adapter: LoraAdapter, vocabulary: Vocabulary, *, report: Report = no_report) -> pd.DataFrame:
    """The word nearest to each leading direction, and to its opposite.

    Modules that write to the residual stream (o, down) are read by their left singular vectors, those that read from it (q, k, v, gate, up) by their right
    ones; the others, and those never trained, are left out.

    Returns
    -------
    Two rows a direction, the two leading directions of each module: module, layer, projection, side (`writes` or `reads`), direction (from 0), sign (+ or −: a
    singular vector has no sign of its own), singular_value, token_id, token (the word that it is read as with the common directions taken off: see `analysis.prompts.null`), score (cosine with e − μ), p (see
    `analysis.prompts.null.read_words`), q (Benjamini and Hochberg 1995, over all rows).

    Raises
    ------
    InputError
        No module of the adapter is beside a residual stream as wide as the vocabulary.
    """
    rows, vectors = [], []
    for i, (module, factors) in enumerate(adapter.modules.items()):
        report(0.8 * i / len(adapter.modules), f"module {i + 1} of {len(adapter.modules)}")
        layer, projection = place_of(module)
        side = "writes" if projection in WRITES else "reads" if projection in READS else None
        width = factors.out_features if side == "writes" else factors.in_features
        if side is None or width != vocabulary.width:
            continue
        u, values, vt = singular_vectors(factors)
        for direction in range(min(DIRECTIONS, len(values))):
            if values[direction] == 0:
                break
            vector = u[:, direction] if side == "writes" else vt[direction]
            for sign, signed in (("+", vector), ("−", -vector)):
                rows.append((module, layer, projection, side, direction, sign, values[direction]))
                vectors.append(signed)
    if not rows:
        raise InputError(
            f"No trained module of {adapter.name} reads from or writes to a residual stream {vocabulary.width} wide, the width of {vocabulary.model}'s embeddings."
        )
    report(0.8, "finding the nearest words")
    ids, p = read_words(np.array(vectors), vocabulary, null_of(vocabulary, report=report))
    words = unit_rows(vocabulary.embeddings[ids].astype(np.float64) - vocabulary.mean)
    table = pd.DataFrame(rows, columns=COLUMNS[:7])
    table["token_id"] = ids
    table["token"] = [vocabulary.tokens[i] for i in ids]
    table["score"], table["p"], table["q"] = (np.array(vectors) * words).sum(axis=1), p, q_values(p)
    report(1.0, "ready")
    return table.astype({"layer": "Int64"})[COLUMNS]
