"""The pages, one record each: the navigation and every link from page to page are made from it. Who adds a page adds its view and its record."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Page:
    """One page.

    Attributes
    ----------
    file : its view, from the folder of `main.py` on: what Streamlit is given to go there.
    title, icon : how the navigation shows it.
    url_path : where it is in a browser; the first page is at the root as well.
    in_menu : whether it is a place to go to; the page of one prompt or LoRA is reached from where that is listed.
    """

    file: str
    title: str
    icon: str
    url_path: str
    in_menu: bool = True


@dataclass(frozen=True)
class Moved:
    """An address of before, which goes on working.

    Attributes
    ----------
    to : the page that shows now what was there.
    query : what its link says beside what the old link said.
    """

    url_path: str
    to: Page
    query: dict[str, str] = field(default_factory=dict)


def _page(name: str, title: str, icon: str, *, in_menu: bool = True) -> Page:
    return Page(f"views/{name}.py", title, f":material/{icon}:", name, in_menu)


START = _page("start", "Start", "home")
LIBRARY = _page("library", "Library", "grid_view")
PROMPT = _page("prompt", "Prompt", "data_array", in_menu=False)
LORA = _page("lora", "LoRA", "equalizer", in_menu=False)
ATLAS = _page("atlas", "Atlas", "scatter_plot")
TRAIN = _page("train", "Train", "model_training")
LEARN = _page("learn", "Learn", "menu_book")
PAGES = (START, LIBRARY, PROMPT, LORA, ATLAS, TRAIN, LEARN)

DOES, TOKENS, BEHAVIOUR, TRY, MADE = "What it does", "Tokens", "Behaviour", "Try it", "How it was made"  # the parts of a prompt's page
MAP, COMPARE = "Map", "Compare"  # the parts of Atlas
LESSON, READINGS, MEASURES, METHODS = "The lesson", "Which readings hold", "Measures", "Methods"  # the parts of Learn
MOVED = (
    Moved("gallery", LIBRARY),
    Moved("open", LIBRARY),
    Moved("neighbours", PROMPT, {"tab": TOKENS}),
    Moved("behaviour", PROMPT, {"tab": BEHAVIOUR}),
    Moved("spectra", LORA),
    Moved("clusters", ATLAS, {"colour": "cluster"}),
    Moved("compare", ATLAS, {"tab": COMPARE}),
    Moved("search", ATLAS),
    Moved("methods", LEARN, {"tab": METHODS}),
    Moved("measures", LEARN, {"tab": MEASURES}),
)
