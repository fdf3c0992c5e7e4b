"""One virtual token: the evidence for its verdict, and its nearest words beside those of its start."""

import pandas as pd
import streamlit as st

from soft_prompt_explorer.analysis.adapters import SoftPrompt
from soft_prompt_explorer.analysis.core.words import counted, p_value, shown
from soft_prompt_explorer.analysis.models.vocabulary import Vocabulary
from soft_prompt_explorer.analysis.prompts.metrics import METRICS, MetricName
from soft_prompt_explorer.analysis.prompts.null import null_of
from soft_prompt_explorer.analysis.prompts.search import neighbours
from soft_prompt_explorer.analysis.prompts.starts import plain_verdict
from soft_prompt_explorer.analysis.prompts.verdicts import LEVEL, VERDICTS
from soft_prompt_explorer.app.charts.theme import BLUE, ORANGE, verdict_label
from soft_prompt_explorer.app.charts.words import null_histogram, score_bars, score_scale
from soft_prompt_explorer.app.parts import choosing, widgets
from soft_prompt_explorer.app.parts.measures import what_is
from soft_prompt_explorer.app.parts.prompt_on_page import PromptOnPage
from soft_prompt_explorer.app.server.background import computed


def show_evidence(page: PromptOnPage, position: int, row: pd.Series) -> None:
    """Why a virtual token has its verdict: a row of `readings` in sentences, and its score among those of random vectors."""
    prompt, vocabulary, known = page.prompt, page.vocabulary, page.prompt.initial is not None
    left, right = st.columns([2, 3], gap="large")
    with left:
        verdict = plain_verdict(row["verdict"])
        st.markdown(f"### {verdict_label(row['verdict'])}\n{VERDICTS[verdict].capitalize()}.")
        word = widgets.plain(shown(row["nearest_token"]))
        lines = [
            f"**Chance.** Nearest to “{word}” at {row['score']:.2f}; p {p_value(row['p_chance'])}, corrected for {counted(len(prompt), 'token')} {p_value(row['q_chance'])}."
        ]
        if known:
            start = widgets.plain(shown(row["initial_token"]))
            lines.append(
                f"**Start.** It started at “{start}”"
                + (" and is still nearest to it" if row["echo"] else " and is nearest to another word now")
                + f"; drift {row['drift']:.2f}, where an ordinary word is {vocabulary.median_norm:.2f} long."
            )
            learned = widgets.plain(shown(row["delta_token"]))
            lines.append(
                f"**Learned direction.** It moved most nearly along “{learned}”; p {p_value(row['p_learned'])}"
                + (", which is chance." if row["p_learned"] >= LEVEL else ", before the correction for the number of tokens.")
            )
        else:
            lines.append("**Start.** Unknown, so nothing can be said of echoes and of what was learned.")
        st.markdown("\n\n".join(lines))
    with right:
        null = null_of(vocabulary).drawn
        alt = f"Best scores of 1,000 random vectors, median {pd.Series(null).median():.2f}, with token {position}'s score of {row['score']:.2f}."
        st.html(null_histogram(null, row["score"], of=f"token {position}", alt=alt))
        what_is("Verdict", "Chance: p and q", "Echo and drift", "Learned direction")


def near_words(prompt: SoftPrompt, vocabulary: Vocabulary, metric: MetricName, top_k: int, filters: dict) -> pd.DataFrame | None:
    """The table of `analysis.prompts.search.neighbours`, found once: who picks one token after the other waits for it once. None while it is being computed."""
    return computed(
        ("neighbours", vocabulary.model, choosing.content_of([prompt]), metric, top_k, *filters.values()),
        "the nearest words",
        lambda report: neighbours(prompt, vocabulary, metric=metric, top_k=top_k, **filters, report=report),
    )


def show_words_of(page: PromptOnPage, position: int, table: pd.DataFrame, *, metric: MetricName, top_k: int, filters: dict) -> None:
    """The nearest words of one virtual token, beside those of its initial value where that is known.

    Parameters
    ----------
    table : of `analysis.prompts.search.neighbours`, by this metric and so filtered.
    """
    prompt, vocabulary, known = page.prompt, page.vocabulary, page.prompt.initial is not None
    rows = {"Near to now": table[table["position"] == position]}
    if known:
        with widgets.in_words():
            began = near_words(prompt.at_start(), vocabulary, metric, top_k, filters)
        if began is not None:
            rows["Started from"] = began[began["position"] == position]
    scale = score_scale(pd.concat(rows.values()))
    for column, (title, words), colour in zip(st.columns(2, gap="large"), rows.items(), (BLUE, ORANGE), strict=False):
        with column:
            st.markdown(f"**{title}**")
            alt = ", ".join(f"{row.token.strip()} {row.score:.2f}" for row in words.itertuples())
            st.html(score_bars(words, scale=scale, colour=colour, alt=f"{title}: {alt}"))
    what_is(METRICS[metric].title)
    if not known:
        st.caption("This file does not hold the values that training started from.")
