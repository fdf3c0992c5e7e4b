"""How often clusters and likeness are told of nothing, and how often what was planted is found: `python -m tests.benchmarks.clusters [SETS]`.

The sets know of nothing: prompts before their training, noise, whole prompts that drifted along what all words share, rows that only grew, copies, control
tokens. `was_found` is the test as it stood before, against random vectors and with no recipe, so that both can be measured on the same sets.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np

from soft_prompt_explorer.analysis.models.vocabulary import load_vocabulary
from soft_prompt_explorer.analysis.prompts.clusters import Method
from soft_prompt_explorer.analysis.prompts.likeness import similarity
from tests.support.cluster_sets import KINDS, alike_pair, believed, found_now, planted, prompts_of, was_found
from tests.support.made_prompts import made_vocabulary


def main(sets: int) -> None:
    """Two tables: how often something is told of nothing, by vocabulary and kind; and how often what was planted is found, beside the test as it was."""
    embedded = load_vocabulary("smollm2-135m")
    with tempfile.TemporaryDirectory() as folder:
        others = []
        for kind in ("isotropic", "hub-ridden"):
            cache = Path(folder) / kind
            cache.mkdir()
            others.append(replace(made_vocabulary(kind), cache=cache))
        print("vocabulary, kind, method, space, starts: real / real and no echo, of sets")
        for vocabulary in (embedded, *others):
            for number, kind in enumerate(KINDS):
                for method in get_args(Method):
                    for space, known in (("position", True), ("position", False), ("displacement", True)):
                        told = [
                            believed(
                                prompts_of(kind, vocabulary, np.random.default_rng([s, number]), known=known),
                                vocabulary,
                                method,
                                space,
                                seed=s,
                            )
                            for s in range(sets)
                        ]
                        real, no_echo = np.sum(told, axis=0)
                        starts = "known" if known else "unknown"
                        print(f"{vocabulary.model}, {kind}, {method}, {space}, {starts}: {real} / {no_echo} of {sets}", flush=True)
    print("planted among 60 tokens: found by HDBSCAN now, with the starts unknown (real), and by the test as it was")
    for base in ("noise", "normal", "words"):
        for size, cosine in ((20, 0.5), (10, 0.5), (20, 0.3), (10, 0.3)):
            found = np.zeros(3, dtype=int)
            for s in range(sets):
                prompt = planted(base, size, cosine, embedded, np.random.default_rng([s, size, round(100 * cosine)]))
                unknown = replace(prompt, initial=None)
                found += [found_now(prompt, embedded, size), found_now(unknown, embedded, size), was_found(prompt, embedded, size)]
            print(f"{base}, {size} at {cosine}: {found[0]}, {found[1]}, {found[2]} of {sets}", flush=True)
    print("pairs of ten tokens: z above 1.96")
    for what, strength in (("tokens", 1), ("tokens", 3), ("direction", 0.3), ("direction", 0.6)):
        for start in ("words", "random"):
            pairs = (alike_pair(what, strength, embedded, np.random.default_rng(s), start=start) for s in range(sets))
            z = np.array([similarity(pair, embedded)["z"][0] for pair in pairs])
            print(f"{what} {strength}, from {start}: {(z > 1.96).sum()} of {sets}, mean {z.mean():.1f}", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
