"""Everything that is known of some adapters as one HTML page to keep, to send and to print: no script, nothing fetched, every stranger's text escaped."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from itertools import combinations

import numpy as np
import pandas as pd

from soft_prompt_explorer.analysis.adapters import LoraAdapter, SoftPrompt
from soft_prompt_explorer.analysis.behaviour import kept_translation, translation
from soft_prompt_explorer.analysis.behaviour.changes import INTERVENTIONS, WHOLE, row_label
from soft_prompt_explorer.analysis.behaviour.kept_lens import Told, kept_with
from soft_prompt_explorer.analysis.behaviour.verdict import Judged
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.core.progress import Report, no_report
from soft_prompt_explorer.analysis.core.provenance import Provenance
from soft_prompt_explorer.analysis.core.words import p_value, printable, shown, signed
from soft_prompt_explorer.analysis.loras.ranks import health, spectra
from soft_prompt_explorer.analysis.models.digests import digest_of
from soft_prompt_explorer.analysis.models.names import is_at_hand, resolve_model
from soft_prompt_explorer.analysis.models.vocabulary import Vocabulary
from soft_prompt_explorer.analysis.prompts.clusters import find_clusters, is_echo, is_real, may_be_echo
from soft_prompt_explorer.analysis.prompts.directions import table_of, task_direction
from soft_prompt_explorer.analysis.prompts.likeness import matched, similarity
from soft_prompt_explorer.analysis.prompts.search import neighbours
from soft_prompt_explorer.analysis.prompts.starts import INITIAL, plain_verdict
from soft_prompt_explorer.analysis.prompts.verdicts import SHAPES, VERDICTS, readings

TOP_K = 5
DIRECTION_WORDS = 10
TEMPLATE = "report.html"
MOST_CELLS = 4_000  # of the table of effective ranks; a larger one nobody looks at, and a hostile file could make it endless
LONGEST = 300  # characters of a stranger's text


@dataclass(frozen=True, eq=False)
class PromptReport:
    """What the page says of one soft prompt.

    Attributes
    ----------
    tokens : a row a virtual token: those of `analysis.prompts.verdicts.readings`, and words, its `TOP_K` nearest with their scores, as text.
    direction : of `analysis.prompts.directions.direction`; None where nothing is known to have moved.
    asked : None where the model was not asked.
    example, note : how the first example was asked, on one line, and what is to be said of that above the verdict, if anything.
    does : which text does what it does, in a sentence, where that is kept with the run.
    told : what it pushes the model towards, where that is kept with the run.
    """

    prompt: SoftPrompt
    tokens: pd.DataFrame
    direction: pd.DataFrame | None
    asked: Judged | None
    example: str | None = None
    note: str | None = None
    does: str | None = None
    told: Told | None = None


@dataclass(frozen=True, eq=False)
class LoraReport:
    """What the page says of one LoRA: the tables of `analysis.loras.ranks.spectra` and `health`; and `does` and `told` as of a prompt."""

    adapter: LoraAdapter
    spectra: pd.DataFrame
    health: pd.DataFrame
    does: str | None = None
    told: Told | None = None


def of_prompt(
    prompt: SoftPrompt,
    vocabulary: Vocabulary,
    *,
    asked: Judged | None = None,
    example: str | None = None,
    note: str | None = None,
    report: Report = no_report,
) -> PromptReport:
    """Read one prompt.

    Parameters
    ----------
    asked, example, note : see `PromptReport`.

    Raises
    ------
    InputError
        It does not fit the vocabulary, or its rows are no input embeddings.
    """
    read = readings(prompt, vocabulary, report=report) if asked is None else asked.read
    words = neighbours(prompt, vocabulary, top_k=TOP_K, report=report)
    cells = [f"{shown(token)} {score:.2f}" for token, score in zip(words["token"], words["score"], strict=True)]
    by_token = words.assign(cell=cells).groupby("position")["cell"].agg(" · ".join)
    if asked is not None:
        found = asked.direction
    else:
        moved = prompt.initial is not None and (prompt.embeddings != prompt.initial).any()
        found = task_direction([prompt], vocabulary, report=report) if moved else None
    shared = None if found is None else table_of(found, vocabulary, top_k=DIRECTION_WORDS)
    kept = (_does(prompt), kept_with(prompt)) if INITIAL not in prompt.metadata else (None, None)
    return PromptReport(prompt, read.assign(words=by_token.to_numpy()), shared, asked, example, note, *kept)


def _does(adapter: SoftPrompt | LoraAdapter) -> str | None:
    table = kept_translation.kept_with(adapter)
    return None if table is None else printable(translation.sentence(table))


def of_lora(adapter: LoraAdapter, *, report: Report = no_report) -> LoraReport:
    """Measure one LoRA.

    Raises
    ------
    AdapterError
        A factor holds NaN or infinity, or cannot be read.
    """
    table = spectra(adapter, report=report)
    return LoraReport(adapter, table, health(adapter, table), _does(adapter), kept_with(adapter))


def html(
    parts: Sequence[PromptReport | LoraReport], vocabulary: Vocabulary | None, *, made: Provenance | None = None, report: Report = no_report
) -> str:
    """The page.

    Parameters
    ----------
    parts : in the order in which they stand there; prompts are compared with each other where there are several.
    vocabulary : that the prompts were read against; None where there are LoRAs alone.
    made : where the page comes from; of the adapters and the vocabulary when None.
    """
    import jinja2

    prompts = [part.prompt for part in parts if isinstance(part, PromptReport)]
    together = vocabulary if len(prompts) > 1 else None
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {
        "word": lambda token: "" if pd.isna(token) else shown(token),
        "signed": _signed,
        "p": _p,
        "known": lambda value: "" if pd.isna(value) else value,
        "text": _text,
    }
    clusters, no_clusters = None, "None were found."
    if together is not None:
        try:
            clusters = find_clusters(prompts, together, report=report).clusters
        except InputError as error:  # too few tokens, or too many
            no_clusters = str(error)
    told = (made or _made_of(parts, vocabulary)).told()
    template = environment.from_string(
        resources.files("soft_prompt_explorer.analysis.report").joinpath(TEMPLATE).read_text(encoding="utf-8")
    )
    return template.render(
        title=f"What can be read in {_text(_name(parts[0])) if len(parts) == 1 else 'these adapters'}",
        prompts=[part for part in parts if isinstance(part, PromptReport)],
        loras=[part for part in parts if isinstance(part, LoraReport)],
        vocabulary=vocabulary,
        similarity=None if together is None else _similarity(prompts, together, report),
        clusters=None if clusters is None else clusters.assign(real=is_real(clusters), of_start=is_echo(clusters), of_unknown=may_be_echo(clusters)),
        no_clusters=no_clusters,
        made=told,
        made_json=json.dumps(told),
        chart=_chart, spectrum=_spectrum, plain=plain_verdict, shapes=SHAPES, verdicts=VERDICTS, interventions=INTERVENTIONS, whole=WHOLE,
    )  # fmt: skip


def report(adapters: Sequence[SoftPrompt | LoraAdapter], vocabulary: Vocabulary | None = None, *, report: Report = no_report) -> str:
    """What can be read of some adapters, as one page of HTML that stands by itself. No model is asked.

    Parameters
    ----------
    vocabulary : that the soft prompts are read against; not needed for LoRAs alone.

    Raises
    ------
    InputError
        A prompt does not fit the vocabulary, or there is none for it.

    Examples
    --------
    >>> import soft_prompt_explorer as spe
    >>> page = spe.report([spe.load_adapter(spe.GALLERY / "capitals-lora-8")])
    >>> page.startswith("<!doctype html>")
    True
    """
    if vocabulary is None and any(isinstance(adapter, SoftPrompt) for adapter in adapters):
        raise InputError("A soft prompt is read against a vocabulary, and none was given; give the one of its model.")
    parts: list[PromptReport | LoraReport] = []
    for adapter in adapters:
        if isinstance(adapter, LoraAdapter):
            parts.append(of_lora(adapter, report=report))
        elif vocabulary is not None:
            parts.append(of_prompt(adapter, vocabulary, report=report))
    return html(parts, vocabulary, report=report)


def _made_of(parts: Sequence[PromptReport | LoraReport], vocabulary: Vocabulary | None) -> Provenance:
    """The provenance of a page that the library is asked for."""
    sources = [part.prompt.source if isinstance(part, PromptReport) else part.adapter.source for part in parts]
    files = dict.fromkeys((source.path.name, source.sha256) for source in sources if source is not None)
    models = {}
    if vocabulary is not None:
        models[vocabulary.model] = lambda: digest_of(resolve_model(vocabulary.model)) if is_at_hand(vocabulary.model) else {"sha256": None}
    return Provenance("soft_prompt_explorer.report", tuple(files), models)


def _name(part: PromptReport | LoraReport) -> str:
    return part.prompt.name if isinstance(part, PromptReport) else part.adapter.name


def _text(value: object) -> str:
    """A stranger's text: no character that cannot be printed or that turns the line around, and no endless line."""
    text = printable(str(value))
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def _similarity(prompts: Sequence[SoftPrompt], vocabulary: Vocabulary, report: Report) -> pd.DataFrame:
    """`similarity`, and together: how many of the matched tokens of each pair started from the same values, in words."""
    table = similarity(prompts, vocabulary, report=report)
    pairs = [matched(a, b, vocabulary)["same_start"] for a, b in combinations(prompts, 2)]
    return table.assign(together=["unknown" if same.isna().any() else f"{int(same.sum())} of {len(same)}" for same in pairs])


def _chart(table: pd.DataFrame) -> dict:
    """The interventions that change more than one token, as points with intervals: places in a drawing 1,000 wide, zero among them."""
    rows = table[table["position"].isna() & (table["intervention"] != WHOLE)]
    values = rows[["score_change_low", "score_change", "score_change_high"]].to_numpy(np.float64)
    least, most = min(0.0, values.min()), max(0.0, values.max())
    span = (most - least) or 1.0
    left, width = 400, 560

    def place(value: float) -> float:
        return round(left + width * (value - least) / span, 1)

    points = [
        {"label": row_label(row), "low": place(low), "at": place(value), "high": place(high), "value": value, "control": INTERVENTIONS[row.intervention].group == "random directions of the same size"}
        for row, (low, value, high) in zip(rows.itertuples(), values, strict=True)
    ]  # fmt: skip
    return {"points": points, "zero": place(0.0), "least": least, "most": most, "left": left, "right": left + width, "measure": table["measure"].iloc[0]}  # fmt: skip


def _spectrum(table: pd.DataFrame) -> dict | None:
    """Effective ranks by layer and projection, where the modules' names tell both and no two share a place; else None."""
    placed = table.dropna(subset=["layer"])
    if not len(placed) or placed.duplicated(["layer", "projection"]).any():
        return None
    grid = placed.pivot(index="layer", columns="projection", values="effective_rank")
    if grid.size > MOST_CELLS:
        return None
    return {"layers": [int(layer) for layer in grid.index], "projections": list(grid.columns), "values": grid.to_numpy(), "most": float(placed["rank"].max())}  # fmt: skip


def _signed(value: float, digits: int = 3) -> str:
    return "" if pd.isna(value) else signed(value, digits)


def _p(value: float) -> str:
    return "" if pd.isna(value) else p_value(value)
