"""Everything that is known of one virtual token."""

from dataclasses import replace

import numpy as np
import pandas as pd
import streamlit as st

from soft_prompt_explorer.analysis.adapters import SoftPrompt
from soft_prompt_explorer.analysis.core.words import p_value, shown
from soft_prompt_explorer.analysis.prompts.clusters import find_clusters, is_echo, is_real
from soft_prompt_explorer.analysis.prompts.search import neighbours
from soft_prompt_explorer.analysis.prompts.verdicts import readings
from soft_prompt_explorer.app.charts import behaviour as behaviour_charts
from soft_prompt_explorer.app.charts.theme import verdict_label
from soft_prompt_explorer.app.charts.words import score_bars
from soft_prompt_explorer.app.parts import choosing, several, widgets
from soft_prompt_explorer.app.parts.behaviour_inside import attention_table, lens_table
from soft_prompt_explorer.app.parts.measures import below, what_is
from soft_prompt_explorer.app.parts.on_the_map import link_to_map, show_ways_to_map
from soft_prompt_explorer.app.parts.prompt_on_page import AskedPrompt, PromptOnPage
from soft_prompt_explorer.app.parts.tables import show_table
from soft_prompt_explorer.app.server.background import computed


def show_token(asked: AskedPrompt, position: int, table: pd.DataFrame | None) -> None:
    """Its nearest words, reading, cluster, what changing it does and what the model makes of it, side by side.

    Parameters
    ----------
    table : of the interventions; None where the model was not asked.
    """
    prompt, vocabulary = asked.prompt, asked.vocabulary
    left, right = st.columns(2, gap="large")
    with left, widgets.in_words():
        st.markdown("**Nearest words**")
        with widgets.progress() as report:
            words = neighbours(one(prompt, position), vocabulary, top_k=8, report=report)
        st.html(score_bars(words, alt=f"The words nearest to virtual token {position}: {', '.join(words['token'].str.strip())}."))
        with below("Centred cosine"):
            widgets.download_buttons(words, f"neighbours-{prompt.name}-{position}", prompt)
    with right, widgets.in_words():
        st.markdown("**Its reading**")
        read = computed(("verdicts", *asked.content, None), "the verdicts", lambda report: readings(prompt, vocabulary, report=report))
        if read is not None:
            row = read.iloc[position]
            st.markdown(f"{verdict_label(row['verdict'])}  \n{read_in_words(row)}")
        show_cluster(asked, position)
        st.markdown("**What changing it does**")
        if table is None:
            st.caption("Ask the model under *Interventions*, and this shows what dropping and replacing the token does.")
        else:
            rows = table[table["position"] == position]
            alt = "; ".join(f"{row.intervention}: loss {row.loss_change:+.3f}" for row in rows.itertuples())
            st.html(behaviour_charts.changes(rows, "loss", alt=alt))
        what_is("Verdict", "Learned direction", "Cluster stability", "Cluster tightness", "Change under an intervention")
    with widgets.in_words():
        lens = lens_table(asked)
        paid = attention_table(asked)
    if lens is not None:
        st.markdown("**What the model would say next at its place, after each layer**")
        of_token = lens[lens["position"] == position].assign(token=lambda rows: rows["token"].map(shown))
        wide = of_token.pivot(index="layer", columns="rank", values="token").rename(columns=lambda rank: f"rank {rank}").reset_index()
        wide["norm"] = of_token.drop_duplicates("layer")["norm"].to_numpy()
        show_table(
            wide,
            height=280,
            column_config={"norm": st.column_config.NumberColumn(format="%.1f")},
            alt="A row a layer: the three likeliest next words, and the norm.",
        )
        what_is("Logit lens")
    if paid is not None:
        st.markdown("**How much the answer attends to it, by layer and head**")
        mean = paid.loc[paid["position"] == position, "attention"].mean()
        st.plotly_chart(
            behaviour_charts.attention_by_head(paid, position),
            key=f"heads-{position}",
            alt=f"Attention to virtual token {position}; {mean:.1%} on average.",
        )
        what_is("Attention of the answer")
    with st.container(horizontal=True):
        show_ways_to_map(asked, position)


def show_cluster(asked: PromptOnPage, position: int) -> None:
    """The cluster that the token is in, among all prompts at hand, and whether that cluster can be believed."""
    prompt, vocabulary = asked.prompt, asked.vocabulary
    others = [other for other in several.prompts_at_hand(vocabulary) if other.name != prompt.name]
    everyone = [prompt, *others]
    clustering = computed(
        ("clusters with", vocabulary.model, choosing.content_of(everyone)),
        "the clusters",
        lambda report: find_clusters(everyone, vocabulary, report=report),
    )
    if clustering is None:
        return
    number = clustering.members["cluster"].iloc[position]  # the prompt's own tokens come first
    if number < 0:
        st.markdown(f"**Its cluster**  \nNone: it is in no cluster among the {len(clustering.members)} virtual tokens at hand.")
        return
    row = clustering.clusters.set_index("cluster", drop=False).loc[[number]]
    believed = "stable and tighter than chance" if is_real(row).iloc[0] else "not to be believed: chance makes such clusters too"
    echo = ", and most of it started from the same words" if is_echo(row).fillna(False).iloc[0] else ""
    echo = ", but what its tokens started from is unknown" if pd.isna(row["shared_start"].iloc[0]) else echo
    of = row.iloc[0]
    st.markdown(
        f"**Its cluster**  \n“{widgets.plain(of['label'])}”, {of['size']} tokens of {of['prompts']} prompts: {believed}{echo} "
        f"(stability {of['stability']:.2f}, tightness p {p_value(of['tightness_p'])})."
    )
    keys, numbers = on_atlas(
        clustering.members, number, several.keys_by_name(everyone, choosing.prompt_choices()) | {prompt.name: asked.key}
    )
    link_to_map("Its cluster on the map", keys, numbers, colour="cluster")


def on_atlas(members: pd.DataFrame, cluster: int, keys: dict[str, str]) -> tuple[list[str], list[int]]:
    """The prompts that have tokens in a cluster, by key, and the numbers of its tokens among all of theirs.

    Parameters
    ----------
    members : of `analysis.prompts.clusters.find_clusters`.
    keys : by the name of a prompt.
    """
    of_key = members["prompt"].map(keys)
    inside = list(of_key[members["cluster"] == cluster].dropna().unique())
    there = members.assign(place=of_key.map({key: place for place, key in enumerate(inside)})).dropna(subset="place")
    there = there.sort_values("place", kind="stable")
    return inside, np.flatnonzero(there["cluster"] == cluster).tolist()


def one(prompt: SoftPrompt, position: int) -> SoftPrompt:
    """A prompt of one virtual token of this one."""
    initial = None if prompt.initial is None else prompt.initial[[position]]
    return replace(prompt, embeddings=prompt.embeddings[[position]], initial=initial)


def read_in_words(row: pd.Series) -> str:
    """A row of `readings` in sentences."""
    text = f"Nearest to “{widgets.plain(shown(row['nearest_token']))}” (score {row['score']:.2f}, p of chance {p_value(row['p_chance'])}). Its norm is {row['norm_ratio']:.2f} times the vocabulary's median."
    if pd.notna(row["initial_token"]):
        text += f" It started at “{widgets.plain(shown(row['initial_token']))}” and drifted by {row['drift']:.2f}"
        text += (
            f"; the drift is nearest to “{widgets.plain(shown(row['delta_token']))}” (p {p_value(row['p_learned'])})."
            if pd.notna(row["delta_token"])
            else "."
        )
    return text
