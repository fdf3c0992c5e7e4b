"""Which tokens are selected: one truth, which the map and the tables beside it show and change."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import streamlit as st

from soft_prompt_explorer.app.parts.selections import numbers_in, ranges

VISIT = "visit"  # of the session's state: how often its person has come from one page to another
LONGEST = 2000  # letters that a link holds of it: servers and proxies refuse addresses of a few thousand more


@dataclass
class Chosen:
    """The selection of one page, kept for the session and in the link.

    Attributes
    ----------
    link : what links call it.
    of_what : tells the tokens that are selected from any others.
    text : the selected ones, as `ranges` writes them.
    visit : the visit to the page in which it was last told.
    turns : by what shows it, how often it was selected elsewhere: the map takes over the selection, and a table is drawn anew, at another turn alone.
    """

    link: str
    of_what: object = None
    text: str = ""
    visit: int = 0
    turns: dict[str, int] = field(default_factory=dict)

    def numbers(self, below: int) -> list[int]:
        return numbers_in(self.text, below)

    def turn(self, shown_by: str) -> int:
        return self.turns.setdefault(shown_by, 0)

    @property
    def fits_link(self) -> bool:
        return 0 < len(self.text) <= LONGEST

    def choose(self, numbers: Iterable[int] | str, by: str) -> None:
        """Select these alone, as was done on what `by` names: the others take it over."""
        self.text = numbers if isinstance(numbers, str) else ranges(sorted(numbers))
        for other in self.turns:
            if other != by:
                self.turns[other] += 1
        self.tell()

    def tell(self) -> None:
        """The link says what is selected, where that fits it."""
        if self.fits_link:
            st.query_params[self.link] = self.text
        elif self.link in st.query_params:
            del st.query_params[self.link]


def chosen_tokens(link: str, of_what: object) -> Chosen:
    """The selection that links call so, of these tokens: what the link says, also where another page or going back changed it; nothing where the tokens alone are others than before."""
    said = st.query_params.get(link)
    visit = st.session_state.get(VISIT, 0)
    chosen = st.session_state.setdefault(f"chosen-{link}", Chosen(link, of_what, said or "", visit))
    if said is not None and (said != chosen.text or visit != chosen.visit):
        chosen.of_what = of_what
        chosen.choose(said, by="")
    elif chosen.of_what != of_what:
        chosen.of_what = of_what
        chosen.choose("", by="")
    chosen.visit = visit
    chosen.tell()
    return chosen
