"""What the displacements of a prompt's tokens have in common: the words that they moved towards together."""

import pandas as pd
import streamlit as st

from soft_prompt_explorer.analysis.core.words import p_value
from soft_prompt_explorer.analysis.figures import charts as figures
from soft_prompt_explorer.analysis.models.words import told, typed_words, word_ids
from soft_prompt_explorer.analysis.prompts.directions import direction, points_beyond_twins
from soft_prompt_explorer.analysis.prompts.twins import twins_of
from soft_prompt_explorer.analysis.prompts.verdicts import LEVEL
from soft_prompt_explorer.analysis.tasks.shipped import TASKS
from soft_prompt_explorer.app.charts.words import direction_bars
from soft_prompt_explorer.app.parts import choosing, several, widgets
from soft_prompt_explorer.app.parts.measures import below
from soft_prompt_explorer.app.parts.prompt_on_page import PromptOnPage
from soft_prompt_explorer.app.server import at_hand
from soft_prompt_explorer.app.server.background import computed


def show_direction(page: PromptOnPage) -> None:
    """What the displacements have in common, of this prompt or of all on its task: the first thing to know of a prompt."""
    key, prompt, vocabulary = page.key, page.prompt, page.vocabulary
    runs = at_hand.list_runs().set_index("name")["task"]
    task = runs.get(key)
    st.subheader("What the tokens moved towards, together")
    with st.container(horizontal=True, vertical_alignment="bottom"):
        of_task = []
        if task is not None:
            of_task = [other for other in several.prompts_at_hand(vocabulary) if runs.get(other.name) == task and other.initial is not None]
        which = "this prompt"
        if len(of_task) > 1:
            which = st.segmented_control(
                "Displacements of",
                ["this prompt", f"all {len(of_task)} of {task}"],
                default="this prompt",
                required=True,
                format_func=widgets.plain,
                key=f"of-{task}",
            )
        named = st.text_input(
            "Words to test", key="test", bind="query-params", placeholder=f"the answers of {task}" if task is not None else "for instance: positive, negative",
            help="With commas between them; a word that has to be several tokens is refused by name. Does the direction point at them more than directions do that know nothing of them?",
        )  # fmt: skip
    words = typed_words(named) or (TASKS[task].answer_words() if task in TASKS else [])
    chosen = of_task if which != "this prompt" else [prompt]
    with widgets.in_words():
        table = computed(
            ("direction", vocabulary.model, choosing.content_of(chosen), tuple(words)),
            "the shared direction",
            lambda report: direction(chosen, vocabulary, words=words, twins=twins_of(chosen), top_k=12, report=report),
        )
        tested = set(word_ids(vocabulary, words).tolist())
    if table is None:
        return
    first = table.iloc[0]
    whose = "This prompt's tokens" if which == "this prompt" else f"The tokens of {len(chosen)} prompts"
    whose_words = "tested words" if named else "task’s answer words"
    top = ", ".join(f"“{widgets.plain(token.strip())}”" for token in table["token"].head(4))
    said = f"{whose} moved together towards {top} and others (concentration {first['concentration']:.2f}). Any training does that, on shuffled answers too."
    if len(tested):
        said += f" {_words_said(first, whose_words, len(vocabulary))}"
    st.info(said, icon=":material/explore:")
    alt = "; ".join(f"{row.rank}: {row.token.strip()} {row.score:.2f}" for row in table.itertuples())
    st.html(direction_bars(table, tested, alt=f"Words by their cosine with the shared direction. {alt}"))
    st.caption(
        f"{f'★ marks the tested words, {widgets.plain(told(vocabulary, words))}; the best ten of them are shown wherever they rank. ' if tested else ''}Single tokens hide this direction: each drifts along no word of its own. "
        "That a direction can be read does not mean that the model acts on it."
    )
    with below("Concentration", "Words test", "Beside its twin"):
        widgets.download_buttons(table, f"{prompt.name}-direction", prompt)
        widgets.figure_buttons(lambda: figures.direction(table, tested), f"{prompt.name}-direction", prompt)


def _words_said(first: pd.Series, whose: str, size: int) -> str:
    """Whether the words are pointed at, and whether that is the task or the form of an answer, from a row of `direction`."""
    ranks = f"median rank {first['words_median_rank']:,.0f} of {size:,}, p {p_value(first['words_p'])}"
    if not first["words_p"] < LEVEL:
        return f"It does not point at the {whose} ({ranks})."
    if not first["twins"]:
        return f"It points at the {whose} ({ranks}); that may be the form of an answer, for no twin trained on shuffled answers is at hand."
    twin = f"p {p_value(first['twin_words_p'])} on a twin trained on shuffled answers, p {p_value(first['beyond_twin_p'])} once its direction is taken off"
    if points_beyond_twins(first):
        return f"It points at the {whose} ({ranks}), and beyond what its twin says ({twin})."
    return f"It points at the {whose} ({ranks}) as the form of an answer: {twin}."
