"""The component that draws the map, and those that carry its data.

What is large (words, tokens, colours, a training) is carried by components of its own that show nothing: their bytes do not change while a person selects,
so that Streamlit sends them once. What the map itself is handed is small. It answers what is selected on it, and is not drawn anew by that answer.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import streamlit as st

from soft_prompt_explorer.app.charts.theme import MAP_LOOK
from soft_prompt_explorer.app.map.payload import Sent

_HERE = Path(__file__).parent
_MODULES = ("held", "marks", "view", "picture", "labels", "play", "pane", "pointer", "atlas")


def _script(*names: str) -> str:
    """Modules of app/map/js as one: a component is given one script and loads no other."""
    return "\n".join((_HERE / "js" / f"{name}.js").read_text(encoding="utf-8") for name in names)


_carrier = st.components.v2.component("soft_prompt_explorer_carrier", js=_script("held", "carrier"))
_atlas = st.components.v2.component(
    "soft_prompt_explorer_map",
    html='<div class="atlas"></div>',
    css=(_HERE / "map.css").read_text(encoding="utf-8"),
    js=_script(*_MODULES),
)


def show_map(
    words: Sent,
    tokens: Sent,
    colours: Sent,
    frames: Sent | None = None,
    *,
    key: str,
    alt: str,
    selected: str,
    turn: int,
    on_selected: Callable[[], None],
    shown: str | None = None,
    marked: list[int] | None = None,
    panes: tuple[str, ...] = ("",),
    height: int = 620,
) -> None:
    """The map of a vocabulary with virtual tokens on it.

    Parameters
    ----------
    words, tokens, colours, frames : of `app.map.payload`; with `frames` a training is played in the place of the tokens.
    alt : what the map shows, for who does not see it.
    selected, turn : the tokens that are selected, as `app.parts.selections.ranges` writes them. The map takes them over where `turn` is another than
        before; while it is the same, what is selected on the map stands.
    on_selected : called when tokens were selected on the map; they are then in `st.session_state[key]["selected"]`, written likewise.
    shown : the tokens that are shown, written likewise; all when None.
    marked : rows of the words to write in any case.
    panes : their titles; with two, they share the view, the lasso and what is selected.
    """
    data = {
        "words": words.key,
        "tokens": tokens.key,
        "colours": colours.key,
        "frames": frames and frames.key,
        "look": MAP_LOOK,
        "alt": alt,
        "selected": selected,
        "turn": turn,
        "shown": shown,
        "marked": marked or [],
        "panes": panes,
        "height": height,
    }
    _atlas(key=key, data=data, on_selected_change=on_selected)
    with st.container(gap=None):
        for name, sent in (("words", words), ("tokens", tokens), ("colours", colours), ("frames", frames)):
            if sent is not None:
                _carrier(key=f"{key}-{name}", data=sent.packed)
