"""A page with one map, for `tests.benchmarks.map`: ours, Plotly's or pydeck's, of as many words as the link asks for. Run by `streamlit run`."""

import numpy as np
import pandas as pd
import streamlit as st

from soft_prompt_explorer.analysis.models.embedded import EMBEDDED_MODEL
from soft_prompt_explorer.analysis.models.vocabulary import load_vocabulary
from soft_prompt_explorer.analysis.prompts.projection import Placed, vocabulary_map
from soft_prompt_explorer.app.charts.theme import BLUE, GREY, MAP_COLOURS
from soft_prompt_explorer.app.map.component import show_map
from soft_prompt_explorer.app.map.payload import colours_sent, packed, tokens_sent

TOKENS, HEIGHT = 400, 620


@st.cache_data
def places(count: int) -> np.ndarray:
    """As many places as asked: those of the embedded vocabulary's map, then the same again, each a little aside."""
    words = vocabulary_map(load_vocabulary(EMBEDDED_MODEL)).places
    rng = np.random.default_rng(0)
    more = words[rng.integers(0, len(words), max(0, count - len(words)))]
    return np.concatenate([words, more + rng.normal(0, 0.05, more.shape)]).astype(np.float32)[:count]


def ours(words: np.ndarray, tokens: np.ndarray) -> None:
    rows = np.arange(len(words), dtype=np.int32)
    table = pd.DataFrame({"prompt": "a prompt", "position": range(len(tokens)), "words": "a word"})
    near = np.random.default_rng(1).integers(0, len(words), (len(tokens), 15))
    on = type("On", (), {"ids": rows})()
    placed = Placed(tokens, near, np.zeros(near.shape), np.full(len(tokens), 0.5))
    show_map(
        packed({"places": words, "order": rows}, texts=[f"word {i}" for i in rows]),
        tokens_sent(table, placed, on),
        colours_sent(table, "prompt"),
        key="map", alt="A map", selected="", turn=0, on_selected=lambda: None, height=HEIGHT,
    )  # fmt: skip


def plotly(words: np.ndarray, tokens: np.ndarray) -> None:
    import plotly.graph_objects as go

    figure = go.Figure()
    figure.add_scattergl(
        x=words[:, 0],
        y=words[:, 1],
        mode="markers",
        marker={"size": 2.5, "color": GREY, "opacity": 0.25},
        text=[f"word {i}" for i in range(len(words))],
    )
    figure.add_scattergl(x=tokens[:, 0], y=tokens[:, 1], mode="markers", marker={"size": 10, "color": BLUE})
    figure.update_layout(
        height=HEIGHT, dragmode="pan", showlegend=False, yaxis={"scaleanchor": "x"}, margin={"l": 0, "r": 0, "t": 0, "b": 0}
    )
    st.plotly_chart(figure, config={"scrollZoom": True})


def pydeck(words: np.ndarray, tokens: np.ndarray) -> None:
    import pydeck as pdk

    def layer(points: np.ndarray, colour: str, opacity: int, radius: float, name: str) -> pdk.Layer:
        table = pd.DataFrame({"x": points[:, 0].round(4), "y": points[:, 1].round(4), "name": [f"{name} {i}" for i in range(len(points))]})
        tint = [int(colour[i : i + 2], 16) for i in (1, 3, 5)] + [opacity]
        return pdk.Layer("ScatterplotLayer", table, get_position=["x", "y"], get_fill_color=tint, get_radius=radius, radius_units="'pixels'", pickable=True)  # fmt: skip

    deck = pdk.Deck(
        layers=[layer(words, GREY, 64, 1.25, "word"), layer(tokens, MAP_COLOURS[BLUE]["light"], 255, 5, "token")],
        views=[pdk.View(type="OrthographicView", controller=True)],
        initial_view_state=pdk.ViewState(target=[float(words[:, 0].mean()), float(words[:, 1].mean()), 0], zoom=5.8),
        map_provider=None,
        tooltip={"text": "{name}"},
    )
    st.pydeck_chart(deck, height=HEIGHT)


if __name__ == "__main__":  # as Streamlit runs it
    st.set_page_config(layout="wide")
    count = int(st.query_params["words"])
    points = places(count)
    {"ours": ours, "plotly": plotly, "pydeck": pydeck}[st.query_params["drawn"]](points, points[:TOKENS].astype(np.float64))
    st.title("Drawn")
