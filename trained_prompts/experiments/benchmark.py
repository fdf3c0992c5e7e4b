"""The benchmark of readings: does what is read in an adapter name what it learned? Asked of adapters of which that is known.

One rule, fixed before any of them was trained. A reading scores every word, or every task. Of words a task's score is the mean, over two groups of words (its answers, and the words of
its description), of the percentile of the group's best word; it is standardised over adapters that know nothing, task by task, since a large group has a good
word by chance. Three questions:

    identified    does the adapter's own task score highest of the ten? Its answers are named then, which a twin trained on shuffled answers may do as well.
    function      of an adapter and its twin, does the reading score the own task higher in the one that was trained on true answers? By chance in half.
    false alarms  how often is the best task's score of an adapter that learned nothing above the level that 95 % of other such adapters stay under?
"""

from __future__ import annotations

import importlib
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from soft_prompt_explorer.analysis.adapters import LoraAdapter, SoftPrompt, load_adapter
from soft_prompt_explorer.analysis.behaviour.lens_null import displaced, random_factors
from soft_prompt_explorer.analysis.behaviour.unrelated import factors_of
from soft_prompt_explorer.analysis.core import remedies
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.core.progress import Report, no_report
from soft_prompt_explorer.analysis.core.words import p_value
from soft_prompt_explorer.analysis.loras.ranks import singular_values
from soft_prompt_explorer.analysis.models.vocabulary import Vocabulary, load_vocabulary
from soft_prompt_explorer.analysis.models.weights import LanguageModel, load_model
from soft_prompt_explorer.trained_prompts.experiments.compared_readings import Adapter, Reading
from soft_prompt_explorer.trained_prompts.experiments.known_truth import (
    FOLDER,
    FRAMED,
    FRAMED_END,
    LORAS,
    PROMPTS,
    RECIPES,
    SHUFFLED,
    words_of_tasks,
)

COLUMNS = [
    "reading", "adapters", "n", "identified", "low", "high", "p", "false_alarms", "cpu_seconds", "function", "function_low", "function_high", "function_n",
    "false_alarms_n", "twins_named",
]  # fmt: skip
SCORES = FOLDER.parent / "known_truth.csv"  # of the readings that ship, of every adapter
MODEL = "smollm2-135m"
NULLS, RANDOMS, NULL_LORAS, RANDOM_LORAS = 120, 60, 100, 60
LENSES = ("logit lens", "difference lens")
SEED = 20_264
PERMUTATIONS = 10_000
LEAST_SPREAD = 1e-9
TRUE, TWIN, NULL, RANDOM, UNTRAINED = "trained", "shuffled", "null", "random", "untrained"
PROMPT, LORA, IN_FRAMES = "soft prompts", "LoRAs", "prompts from frames"


def reading_of(name: str) -> Reading:
    """A reading of one's own, `module:function`.

    Raises
    ------
    InputError
        There is none of that name.
    """
    module, _, function = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), function)
        if not callable(found):
            raise ValueError("that is no function")
        return found
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(
            f"There is no reading {name!r} ({error}); name a function of a module that can be imported, as in my_module:my_function."
        ) from error


def task_scores(
    readings: Mapping[str, Reading],
    *,
    language_model: LanguageModel | None = None,
    kinds: Sequence[str] = (PROMPT, LORA, IN_FRAMES),
    report: Report = no_report,
) -> pd.DataFrame:
    """What each reading scores each task of each adapter.

    Returns
    -------
    A row a reading and adapter: reading, adapter, adapters (soft prompts, LoRAs or prompts from frames), kind (trained, shuffled, null, random or untrained), task (that it was trained
    on), cpu_seconds, and a column a task: the mean percentile of its groups' best words, from 0 to 1, or what the reading answered of it; not standardised.

    Raises
    ------
    InputError
        A reading answered something else than a number for every word or every task.
    """
    language_model = language_model or load_model(MODEL, report=report)
    vocabulary = load_vocabulary(MODEL)
    with tempfile.TemporaryDirectory() as folder:
        return scores_of_adapters(list(_adapters(vocabulary, Path(folder), kinds)), readings, vocabulary, language_model, report=report)


def scores_of_adapters(
    adapters: Sequence[tuple[str, str, str, str, Adapter]],
    readings: Mapping[str, Reading],
    vocabulary: Vocabulary,
    language_model: LanguageModel,
    *,
    report: Report = no_report,
) -> pd.DataFrame:
    """The table of `task_scores` of these adapters, of any model: of each its name, which adapters it is of, its kind, the task that it was trained on, and itself."""
    words = words_of_tasks(vocabulary)
    rows = []
    for i, (name, adapters_kind, kind, task, adapter) in enumerate(adapters):
        for label, read in readings.items():
            report(i / len(adapters), f"{name}: {label}")
            began = time.process_time()
            scores = read(adapter, vocabulary, language_model)
            seconds = time.process_time() - began
            if scores is None:
                continue
            found = _of_tasks(scores, words, len(vocabulary), f"{label} answered of {name}")
            rows.append((label, name, adapters_kind, kind, task, seconds, *found))
    report(1.0, "all were read")
    return pd.DataFrame(rows, columns=["reading", "adapter", "adapters", "kind", "task", "cpu_seconds", *words])


def _of_tasks(scores, words: Mapping[str, Sequence[np.ndarray]], count: int, whose: str) -> list[float]:
    """A number for each task, from one for each word or for each task."""
    if isinstance(scores, Mapping) and set(scores) == set(words):
        found = [float(scores[task]) for task in words]
    elif np.shape(scores) == (count,) and not np.isnan(scores).any():
        found = [percentile(np.asarray(scores), groups) for groups in words.values()]
    else:
        found = [np.nan]
    if np.isnan(found).any():
        raise InputError(f"What {whose} is no number for each of {count:,} words, nor one for each of {len(words)} tasks by its name.")
    return found


def percentile(scores: np.ndarray, groups: Sequence[np.ndarray]) -> float:
    """The mean over the groups of the share of words that score less than the group's best one."""
    best = [np.max(scores[ids]) for ids in groups if len(ids)]
    return float(np.mean([(scores < each).mean() for each in best]))


def with_both_lenses(scores: pd.DataFrame) -> pd.DataFrame:
    """The table of `task_scores` with one more reading: the logit lens and the difference lens together, the sum of their scores, each standardised over null adapters."""
    tasks = list(scores.columns[6:])
    parts = []
    for reading in LENSES:
        table = scores[(scores["reading"] == reading) & (scores["adapters"] != LORA)].set_index("adapter")
        parts.append(table.assign(**standard_scores(table[tasks], table.loc[table["kind"] == NULL, tasks])))
    if not all(map(len, parts)):
        return scores
    first, second = parts[0], parts[1].loc[parts[0].index]
    both = first.assign(**(first[tasks] + second[tasks]), cpu_seconds=first["cpu_seconds"] + second["cpu_seconds"], reading="both lenses")
    return pd.concat([scores, both.reset_index()[list(scores.columns)]], ignore_index=True)


def standard_scores(scores: pd.DataFrame, null: pd.DataFrame) -> pd.DataFrame:
    """Scores of tasks as null adapters' own spread measures them. Where these all score the same, whatever is above that stands out further than anything else."""
    return (scores - null.mean()) / null.std().clip(lower=LEAST_SPREAD)


def summary(scores: pd.DataFrame) -> pd.DataFrame:
    """The answers to the three questions, from the table of `task_scores`.

    Returns
    -------
    A row a reading and kind of adapter: reading, adapters, n (trained ones), identified (share), low, high (Wilson's 95 % interval), p (of so many by labels dealt
    out anew among the adapters), false_alarms (share), cpu_seconds (the mean of one adapter), function (share), function_low, function_high, function_n,
    false_alarms_n, twins_named (share of the twins whose task scores highest all the same: what the form of the answers comes to).
    """
    scores = with_both_lenses(scores)
    tasks = list(scores.columns[6:])
    rows = []
    for (reading, adapters), own in scores.groupby(["reading", "adapters"], sort=False):
        beside = scores["adapters"] == PROMPT if adapters == IN_FRAMES else scores["adapters"] == adapters  # a frame makes no other null
        nulls = scores[(scores["reading"] == reading) & beside & scores["kind"].isin([NULL, RANDOM, UNTRAINED])]
        table = pd.concat([own[own["kind"].isin([TRUE, TWIN])], nulls])
        of = {kind: table[table["kind"] == kind] for kind in (TRUE, TWIN, NULL, RANDOM, UNTRAINED)}
        standard = {kind: standard_scores(part[tasks], of[NULL][tasks]).to_numpy() for kind, part in of.items()}
        truth = of[TRUE]["task"].map(tasks.index).to_numpy()
        hits = standard[TRUE].argmax(axis=1) == truth
        twins = of[TWIN].assign(row=np.arange(len(of[TWIN]))).set_index("adapter")["row"]
        pairs = [(i, twins[name + SHUFFLED]) for i, name in enumerate(of[TRUE]["adapter"]) if name + SHUFFLED in twins]
        told = [standard[TRUE][i, truth[i]] > standard[TWIN][j, truth[i]] for i, j in pairs]
        named = standard[TWIN].argmax(axis=1) == of[TWIN]["task"].map(tasks.index).to_numpy() if len(of[TWIN]) else np.array([np.nan])
        level = np.quantile(standard[NULL].max(axis=1), 0.95)
        nothing = np.concatenate([standard[RANDOM], standard[UNTRAINED]])
        alarms = nothing.max(axis=1) > level
        rows.append(
            (
                reading, adapters, len(hits), *_share(hits), _p_of_labels(standard[TRUE].argmax(axis=1), truth), alarms.mean(),
                table["cpu_seconds"].mean(), *_share(told), len(told), len(alarms), named.mean(),
            )
        )  # fmt: skip
    return pd.DataFrame(rows, columns=COLUMNS)


def framed_beside_plain(scores: pd.DataFrame) -> pd.DataFrame:
    """Do prompts that learned inside frames say more of what they learned? The same tasks and starts, both ways.

    Returns
    -------
    A row a reading: reading, n (pairs), plain and framed (share whose task scores highest), framed_only and plain_only (pairs in which one alone does), p (that they
    do so as often, exact: McNemar 1947).
    """
    from scipy.stats import binomtest

    scores = with_both_lenses(scores)
    tasks, rows = list(scores.columns[6:]), []
    for reading, table in scores[scores["adapters"] != LORA].groupby("reading", sort=False):
        standard = standard_scores(table[tasks], table.loc[table["kind"] == NULL, tasks])
        hit = dict(zip(table["adapter"], standard.idxmax(axis=1) == table["task"], strict=True))
        pairs = [(hit[name.removesuffix(FRAMED_END)], hit[name]) for name in table["adapter"] if name in FRAMED]
        if not pairs:
            continue
        plain, framed = np.array(pairs).T
        one, other = int((framed & ~plain).sum()), int((plain & ~framed).sum())
        p = binomtest(one, one + other).pvalue if one + other else 1.0
        rows.append((reading, len(pairs), plain.mean(), framed.mean(), one, other, p))
    return pd.DataFrame(rows, columns=["reading", "n", "plain", "framed", "framed_only", "plain_only", "p"])


def _share(hits: Sequence[bool] | np.ndarray) -> tuple[float, float, float]:
    from scipy.stats import binomtest

    if not len(hits):
        return float("nan"), float("nan"), float("nan")
    interval = binomtest(int(np.sum(hits)), len(hits)).proportion_ci(method="wilson")
    return float(np.mean(hits)), interval.low, interval.high


def _p_of_labels(said: np.ndarray, truth: np.ndarray) -> float:
    rng = np.random.default_rng(SEED)
    as_many = sum((said == rng.permutation(truth)).sum() >= (said == truth).sum() for _ in range(PERMUTATIONS))
    return (1 + as_many) / (1 + PERMUTATIONS)


def _adapters(vocabulary: Vocabulary, folder: Path, kinds: Sequence[str]) -> Iterator[tuple[str, str, str, str, Adapter]]:
    """Name, which adapters it is of, kind, task and adapter of all of these that are asked about; random LoRAs are written to the folder."""
    known: dict[str, Adapter] = {}
    for name, recipe in RECIPES.items():
        adapters = LORA if recipe.method == "lora" else IN_FRAMES if name in FRAMED else PROMPT
        if adapters not in kinds:
            continue
        if not (FOLDER / name).is_dir():
            raise InputError(f"The adapter of known truth {name} is missing; {remedies.TRAIN_KNOWN}.")
        known[name] = load_adapter(FOLDER / name)
        yield name, adapters, TRUE if recipe.shuffled is None else TWIN, recipe.task, known[name]
    if LORA in kinds:
        yield from _random_loras([known[name] for name in LORAS], folder)
    if PROMPT not in kinds:
        return
    prompts = [(prompt, prompt.initial) for name in PROMPTS if isinstance(prompt := known[name], SoftPrompt) and prompt.initial is not None]
    for kind, count in ((NULL, NULLS), (RANDOM, RANDOMS)):
        rng = np.random.default_rng([SEED, len(kind)])
        for i in range(count):
            (like, from_), (start, initial) = (prompts[j] for j in rng.integers(len(prompts), size=2))
            lengths = np.linalg.norm(like.embeddings - from_, axis=1)
            yield f"{kind}-{i}", PROMPT, kind, "", replace(start, name=f"{kind}-{i}", embeddings=displaced(initial, lengths, 1, rng)[0])
    for start, initial in {initial.tobytes(): (prompt, initial) for prompt, initial in prompts}.values():
        yield f"untrained, {start.name}", PROMPT, UNTRAINED, "", replace(start, embeddings=initial)


def _random_loras(loras: Sequence[Adapter], folder: Path) -> Iterator[tuple[str, str, str, str, Adapter]]:
    """LoRAs with the singular values of one that was trained, between random orthonormal factors."""
    from safetensors.numpy import save_file

    for kind, count in ((NULL, NULL_LORAS), (RANDOM, RANDOM_LORAS)):
        rng = np.random.default_rng([SEED, 1, len(kind)])
        for i in range(count):
            like = loras[int(rng.integers(len(loras)))]
            if not isinstance(like, LoraAdapter) or like.source is None:
                raise TypeError(f"{like.name} is no LoRA that was read from a folder")
            values = {path: singular_values(each) for path, each in like.modules.items()}
            arrays = {}
            for path, (a, b) in random_factors(factors_of(like), values, rng).items():
                arrays[f"base_model.model.{path}.lora_A.weight"] = a.astype(np.float32)
                arrays[f"base_model.model.{path}.lora_B.weight"] = (b / like.modules[path].scaling).astype(np.float32)
            path_of_it = folder / f"{kind}-lora-{i}"
            path_of_it.mkdir()
            (path_of_it / "adapter_config.json").write_bytes((like.source.path / "adapter_config.json").read_bytes())
            save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, path_of_it / "adapter_model.safetensors")
            yield path_of_it.name, LORA, kind, "", load_adapter(path_of_it)


def kept_scores() -> pd.DataFrame:
    """What the readings that ship scored: the table of `task_scores` that lies beside the adapters."""
    return pd.read_csv(SCORES, encoding="utf-8", keep_default_na=False)


def keep(scores: pd.DataFrame) -> None:
    """Put a table of `task_scores` in the place of the kept one."""
    scores.to_csv(SCORES, index=False, float_format="%.6g", lineterminator="\n")


def markdown(table: pd.DataFrame) -> str:
    """The rows of `summary` as docs/findings.md shows them."""

    def share(value: float, low: float, high: float) -> str:
        return "–" if pd.isna(value) else f"{value:.0%} ({low:.0%} to {high:.0%})"

    lines = [
        "| reading | adapters | n | answers named (chance 10 %) | the same of twins | p | true from shuffled (chance 50 %) | pairs | false alarms (goal 5 %) | of | CPU seconds each |",
        "|---|---|--:|---|--:|--:|---|--:|--:|--:|--:|",
    ]
    for row in table.itertuples():
        lines.append(
            f"| {row.reading} | {row.adapters} | {row.n} | {share(row.identified, row.low, row.high)} | {'–' if pd.isna(row.twins_named) else f'{row.twins_named:.0%}'} | {p_value(row.p)} "
            f"| {share(row.function, row.function_low, row.function_high)} | {row.function_n} | {row.false_alarms:.0%} | {row.false_alarms_n} | {row.cpu_seconds:.2g} |"
        )
    return "\n".join(lines) + "\n"
