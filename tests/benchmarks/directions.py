"""One direction or many: `python -m tests.benchmarks.directions [ADAPTER...]`.

Of what an adapter of the gallery changes in the model's last states on the texts of the lens: the share of the squared length that lies along the one strongest direction, and along
the four strongest. Beside it the same of adapters of its size that know nothing, in the median and at their 5th and 95th percentile.
"""

from __future__ import annotations

import argparse
import sys
from itertools import islice

import numpy as np
import pandas as pd

from soft_prompt_explorer.analysis.adapters import LoraAdapter, load_adapter
from soft_prompt_explorer.analysis.behaviour.lens_null import SEED, displaced, displacement_of, null_loras
from soft_prompt_explorer.analysis.behaviour.unrelated import Watch, factors_in, factors_of
from soft_prompt_explorer.analysis.core.export import to_markdown
from soft_prompt_explorer.analysis.core.folders import GALLERY
from soft_prompt_explorer.analysis.loras.ranks import singular_values
from soft_prompt_explorer.analysis.models.vocabulary import load_vocabulary
from soft_prompt_explorer.analysis.models.weights import load_model

DRAWS = 40  # of each kind
MODEL = "smollm2-135m"


def shares(change: np.ndarray) -> tuple[float, float]:
    """Of changes (texts, d): the shares of their squared length along the one and the four strongest directions."""
    squared = np.linalg.svd(change.astype(np.float64), compute_uv=False) ** 2
    return float(squared[0] / squared.sum()), float(squared[:4].sum() / squared.sum())


def changes_of(name: str, watch: Watch, vocabulary) -> tuple[np.ndarray, list[np.ndarray]]:
    """What an adapter changes on the single texts, (texts, d), and what null adapters do."""
    adapter = load_adapter(GALLERY / name)
    if isinstance(adapter, LoraAdapter):
        factors = factors_of(adapter)
        with factors_in(watch.language_model.model, factors):
            seen = watch.bare()
        without = watch.bare()
        values = {path: singular_values(each) for path, each in adapter.modules.items()}
        drawn = list(islice(null_loras(factors, values, watch, np.random.default_rng([SEED, 9])), DRAWS))
    else:
        start, lengths, like = displacement_of(adapter, vocabulary, SEED)
        seen, without = watch.of_rows(np.stack([adapter.embeddings, start]))
        rows = [displaced(start, lengths, DRAWS, np.random.default_rng([SEED, 9, kind]), each) for kind, each in enumerate((None, like))]
        drawn = list(watch.of_rows(np.concatenate(rows)))
    return (seen.states - without.states)[:, -1], [(each.states - without.states)[:, -1] for each in drawn]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    names = sorted(path.parent.name for path in GALLERY.glob("*/run.json"))
    parser.add_argument("adapters", nargs="*", default=names, help="names in the gallery; all by default")
    watch, vocabulary = Watch(load_model(MODEL)), load_vocabulary(MODEL)
    rows = []
    for name in parser.parse_args().adapters:
        own, drawn = changes_of(name, watch, vocabulary)
        (one, four), null = shares(own), np.array([shares(each) for each in drawn])
        (low, middle, high), (low_4, middle_4, high_4) = np.quantile(null, [0.05, 0.5, 0.95], axis=0).T
        rows.append(
            {
                "adapter": name, "along one direction": f"{one:.2f}", "of null adapters": f"{middle:.2f} ({low:.2f} to {high:.2f})",
                "along four": f"{four:.2f}", "of null adapters, four": f"{middle_4:.2f} ({low_4:.2f} to {high_4:.2f})",
                "more along one than 95 %": one > high, "less than 95 %": one < low,
            }
        )  # fmt: skip
        print(rows[-1], file=sys.stderr, flush=True)
    table = pd.DataFrame(rows)
    print(to_markdown(table).decode())
    more, less = (int(table[column].sum()) for column in ("more along one than 95 %", "less than 95 %"))
    print(f"Of {len(table)} adapters {more} change more along one direction than 95 % of their null adapters, and {less} less.")


if __name__ == "__main__":
    main()
