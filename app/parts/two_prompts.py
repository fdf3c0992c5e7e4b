"""Two prompts side by side: how alike they are, beside chance, and token by token."""

import pandas as pd
import streamlit as st

from soft_prompt_explorer.analysis.core.words import shown
from soft_prompt_explorer.analysis.prompts.likeness import remarkable
from soft_prompt_explorer.app.charts.columns import in_words
from soft_prompt_explorer.app.charts.similarity import against_chance
from soft_prompt_explorer.app.parts import widgets
from soft_prompt_explorer.app.parts.measures import below, of_columns, what_is
from soft_prompt_explorer.app.parts.tables import show_table


def say_how_alike(row: pd.Series, pairs: pd.DataFrame, count: int) -> None:
    """Whether two prompts are more alike than chance, in a sentence.

    Parameters
    ----------
    row : of `analysis.prompts.likeness.similarity`.
    pairs : of `analysis.prompts.likeness.matched`.
    count : how many pairs of prompts were looked at.
    """
    level = remarkable(count)
    same = int(pairs["same_start"].sum()) if pairs["same_start"].notna().all() else None
    z = row["z"]
    if z != z:
        st.info("Of prompts of more than 250 tokens nothing is said of chance.", icon=":material/help:")
    elif z <= level:
        start = f" {same} of {len(pairs)} matched tokens started from the same values, and z leaves that out." if same else ""
        st.info(
            f"z is {z:.1f}: no more alike than prompts that began and moved likewise{' may be' if count == 1 else f', of which one of {count} pairs may reach {level:.1f}'}.{start}",
            icon=":material/blur_off:",
        )
    elif row["against"] != "starts":
        st.warning(
            f"z is {z:.1f}: more alike than chance, but where the tokens{' of one of them' if row['against'] == 'one start' else ''} started is unknown. "
            "A start in common may be all that there is.",
            icon=":material/repeat:",
        )
    elif same:
        st.warning(
            f"z is {z:.1f}: more alike than chance, beyond the start that {same} of {len(pairs)} matched tokens share. Training moves tokens that began alike in like "
            "ways, whatever the task: more than half of the gallery's pairs of one start are beyond 1.96.",
            icon=":material/repeat:",
        )
    else:
        st.success(f"z is {z:.1f}: more alike than chance, and no matched tokens started from the same values.", icon=":material/verified:")


def show_beside_chance(row: pd.Series, band: pd.DataFrame) -> None:
    """Each measure of two prompts beside the band of unrelated ones, of `analysis.prompts.likeness.chance`."""
    values = "; ".join(f"{in_words(name)} {row[name]:.2f}" for name in band["measure"])
    st.plotly_chart(against_chance(row, band), key="band", alt=f"{values}, each beside the band of unrelated prompts.")
    st.caption(
        "Plain cosines; unrelated prompts have rows drawn like the words. Below the band: training has driven the tokens away from the direction "
        "that all words share."
    )
    what_is(*of_columns(band["measure"]))


def show_pairs(pairs: pd.DataFrame, names: tuple[str, str], verdicts: list[pd.DataFrame] | None) -> None:
    """The tokens of one prompt, and those of the other that they are matched with.

    Parameters
    ----------
    verdicts : of `analysis.prompts.verdicts.readings`, of either prompt; None while they are being computed.
    """
    name_a, name_b = names
    listing = pairs.assign(
        nearest_a=pairs["nearest_a"].map(shown),
        nearest_b=pairs["nearest_b"].map(shown),
        same_start=pairs["same_start"].map({True: "same", False: "other"}),
    )
    order = ["position_a", "nearest_a", "cosine", "nearest_b", "position_b", "same_start"]
    columns = {}
    if verdicts is not None:
        for half, table_of in zip("ab", verdicts, strict=True):
            taken = table_of["verdict"].iloc[listing[f"position_{half}"]]
            listing[f"verdict_{half}"], columns[f"verdict_{half}"] = widgets.verdict_column(taken)
        order = ["position_a", "nearest_a", "verdict_a", "cosine", "nearest_b", "position_b", "verdict_b", "same_start"]
    show_table(
        listing[order],
        column_config=columns
        | {
            "position_a": st.column_config.NumberColumn("token", help=f"Of {widgets.plain(name_a)}"),
            "nearest_a": st.column_config.TextColumn("near to", help="The nearest word by centred cosine"),
            "cosine": st.column_config.ProgressColumn("cosine", format="%.2f", min_value=0.0, max_value=1.0),
            "nearest_b": st.column_config.TextColumn("near to"),
            "position_b": st.column_config.NumberColumn("token", help=f"Of {widgets.plain(name_b)}"),
            "same_start": st.column_config.TextColumn("start", help="Whether both started from the same values"),
        },
        height=widgets.table_height(len(pairs)),
        alt=f"The tokens of {name_a} and the tokens of {name_b} that they are matched with.",
    )
    with below("Matched cosine"):
        widgets.download_buttons(pairs, f"{name_a}-{name_b}-matched")
