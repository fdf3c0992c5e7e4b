"""Does an adapter do anything? How far it moves what the model would say next on unrelated texts, beside adapters that know nothing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from soft_prompt_explorer.analysis.adapters import LoraAdapter, SoftPrompt
from soft_prompt_explorer.analysis.behaviour.difference_lens import LEVEL, output_rows, pushed
from soft_prompt_explorer.analysis.behaviour.lens_null import DRAWS, Looked, look
from soft_prompt_explorer.analysis.behaviour.unrelated import Watch
from soft_prompt_explorer.analysis.core.progress import Report, no_report, part
from soft_prompt_explorer.analysis.core.words import p_said
from soft_prompt_explorer.analysis.models.vocabulary import Vocabulary

COLUMNS = ["adapter", "path", "kl", "null_median", "ratio", "ratio_low", "ratio_high", "p", "verdict"]
NOTHING, AS_CHANCE = "changes nothing", "changes as much as chance"
MORE, OTHERWISE = "changes more than chance", "changes otherwise than chance"
ROUNDING = 1e-6  # nats
RESAMPLES = 2_000
SEED = 20_262


def effect(
    adapters: Sequence[SoftPrompt | LoraAdapter],
    watch: Watch,
    vocabulary: Vocabulary,
    *,
    paths: Sequence[str] | None = None,
    draws: int = DRAWS,
    report: Report = no_report,
) -> pd.DataFrame:
    """Whether each adapter changes more than chance.

    Returns
    -------
    A row an adapter: adapter, path, kl (the mean over the texts of the KL of the next-token distributions, with the adapter from without it, in nats),
    null_median (of null adapters of the same size), ratio and its 95 % interval ratio_low, ratio_high (bootstrap over texts), p, verdict: "changes nothing",
    "changes as much as chance", "changes more than chance" or "changes otherwise than chance" (no further, but towards words that no null adapter pushes so).
    """
    rows = []
    for i, adapter in enumerate(adapters):
        looked = look(adapter, watch, vocabulary, draws=draws, report=part(report, i, len(adapters)))
        rows.append((adapter.name, paths[i] if paths else "", *effect_of(looked, output_rows(watch, looked.common), vocabulary)))
    report(1.0, "ready")
    return pd.DataFrame(rows, columns=COLUMNS)


def effect_of(looked: Looked, output: np.ndarray, vocabulary: Vocabulary) -> tuple[float, float, float, float, float, float, str]:
    """The row of `effect` of what was looked at, from kl on."""
    kl, null = float(looked.kl.mean()), looked.null_kl.astype(np.float64)
    medians = np.median(null.mean(2), axis=1)
    kind = int(medians.argmax())  # the kind that changes more counts
    if kl < ROUNDING:
        return kl, float(medians[kind]), 0.0, 0.0, 0.0, 1.0, NOTHING
    low, high = ratio_interval(looked.kl, null[kind])
    p_far = max(float((1 + (each.mean(1) >= kl).sum()) / (1 + len(each))) for each in null)
    found = pushed(looked.change.mean(0)[-1], looked.null_changes[:, :, -1], output, allowed=~vocabulary.special)
    p_words = float(found.p.min())
    p = min(1.0, 2 * min(p_far, p_words))  # two ways to be told from chance (Bonferroni)
    verdict = AS_CHANCE if p > LEVEL else MORE if p_far <= p_words else OTHERWISE
    return kl, float(medians[kind]), kl / float(medians[kind]), low, high, p, verdict


def ratio_interval(kl: np.ndarray, null: np.ndarray) -> tuple[float, float]:
    """The 95 % interval of the mean KL over the median of the null adapters' mean KL, texts resampled, the same for both (Efron and Tibshirani 1993, section 13.3)."""
    rng = np.random.default_rng(SEED)
    drawn = rng.integers(len(kl), size=(RESAMPLES, len(kl)))
    weights = np.apply_along_axis(np.bincount, 1, drawn, minlength=len(kl)) / len(kl)
    ratios = (weights @ kl) / np.median(weights @ null.T, axis=1)
    low, high = np.quantile(ratios, [0.025, 0.975])
    return float(low), float(high)


def is_beyond_chance(table: pd.DataFrame) -> pd.Series:
    """Of which rows of `effect` it is said that they change more than chance, or otherwise."""
    return table["verdict"].isin([MORE, OTHERWISE])


def junit_report(table: pd.DataFrame) -> bytes:
    """The rows of `effect` as test cases of a JUnit report: one fails where it changes no more than chance."""
    from xml.etree import ElementTree

    beyond = is_beyond_chance(table)
    suite = ElementTree.Element("testsuite", name="effect", tests=str(len(table)), failures=str(int((~beyond).sum())))
    for (_, row), passed in zip(table.iterrows(), beyond, strict=True):
        case = ElementTree.SubElement(suite, "testcase", classname="effect", name=f"{row['adapter']} ({row['path']})")
        if not passed:
            ElementTree.SubElement(case, "failure", message=sentence(row))
    return ElementTree.tostring(suite, encoding="utf-8", xml_declaration=True)


def sentence(row: pd.Series) -> str:
    """A row of `effect` in one sentence."""
    if row["verdict"] == NOTHING:
        return f"{row['adapter']} changes nothing: what the model would say next stays the same."
    told = f"{row['ratio']:.1f} × ({row['ratio_low']:.1f} to {row['ratio_high']:.1f}) what an adapter of the same size that knows nothing changes"
    return f"{row['adapter']} {row['verdict']}: {told}, p {p_said(row['p'])}."
