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
    url_path : where it is in a browser; the first page is at the root.
    in_menu : whether it is a place to go to; the page of one prompt or LoRA is reached from where that is listed.
    """

    file: str
    title: str
    icon: str
    url_path: str
    in_menu: bool = True


@dataclass(frozen=True)
class Onward:
    """A way on from a page to another one, and what its link says there."""

    label: str
    to: Page
    query: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Moved:
    """An address of before, which goes on working.

    Attributes
    ----------
    to : the page that shows now what was there.
    query : what its link says beside what the old link said.
    tabs : the part of the page where something that an old link may say is shown now, by `name` or by `name=value`.
    """

    url_path: str
    to: Page
    query: dict[str, str] = field(default_factory=dict)
    tabs: dict[str, str] = field(default_factory=dict)

    def link(self, said: list[tuple[str, str]]) -> list[tuple[str, str]]:
        """What the new link says, from what the old one said."""
        tabs = [self.tabs[key] for name, value in said for key in (name, f"{name}={value}") if key in self.tabs]
        query = self.query | ({"tab": tabs[0]} if tabs else {})
        return [*query.items(), *((name, value) for name, value in said if name not in query)]


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
RANKS, SMALLER, BESIDE = "Ranks", "Smaller copy", "Beside another"  # of a LoRA's, beside the first and the last of these
FILE, COLLECTION = "Open a file", "Collection"  # of the Library
LESSON, READINGS, MEASURES, METHODS, FINDINGS, GLOSSARY, SOURCES = (
    "The lesson",
    "Which readings hold",
    "Measures",
    "Methods",
    "Findings",
    "Glossary",
    "Papers",
)  # the parts of Learn
MEASURED, SIZES, PUBLISHED, RUN_ONE, TRADES, SCORECARDS = (
    "Measured here",
    "Score against size",
    "As published",
    "Run one",
    "What readability costs",
    "Scorecards",
)  # of its methods
ONWARD = {  # from each page whose own parts lead no further, below it
    LIBRARY.url_path: (Onward("See the prompts on the map", ATLAS), Onward("Train one of your own", TRAIN)),
    LORA.url_path: (Onward("All LoRAs", LIBRARY, {"kind": "LoRA"}), Onward("What the measures mean", LEARN, {"tab": MEASURES})),
    ATLAS.url_path: (
        Onward("The prompts as a table", LIBRARY, {"kind": "prompt"}),
        Onward("Which readings hold", LEARN, {"tab": READINGS}),
    ),
    TRAIN.url_path: (Onward("What was trained before", LIBRARY), Onward("How the methods compare", LEARN, {"tab": METHODS})),
    LEARN.url_path: (Onward("Read what ships", LIBRARY), Onward("Watch one learn", TRAIN)),
}
HERO, HERO_LORA = "past-tense-words-1", "sentiment-lora-8"
FIRST = {PROMPT.url_path: ("prompt", HERO), LORA.url_path: ("lora", HERO_LORA)}  # what a page is about where its address does not say it
MOVED = (
    Moved("gallery", LIBRARY),
    Moved("open", LIBRARY, {"tab": FILE}),
    Moved("neighbours", PROMPT, {"tab": TOKENS}),
    Moved("behaviour", PROMPT, {"tab": BEHAVIOUR}, {"view=Answers": TRY}),
    Moved("spectra", LORA, {"tab": RANKS}, {"keep": SMALLER, "other": BESIDE}),
    Moved("clusters", ATLAS, {"colour": "cluster"}),
    Moved("compare", ATLAS, {"tab": COMPARE}),
    Moved("search", ATLAS),
    Moved("methods", LEARN, {"tab": METHODS}),
    Moved("measures", LEARN, {"tab": MEASURES}),
)


def goes_on(url_path: str, said: list[tuple[str, str]]) -> tuple[str, list[tuple[str, str]]] | None:
    """Where a browser is sent on from an address, and what the link there says; None where it stays.

    Parameters
    ----------
    said : what the link says, name by name.
    """
    if url_path == START.url_path:
        return "", said  # the first page is at the root, and nothing is at its own name
    moved = next((each for each in MOVED if each.url_path == url_path), None)
    to, link = (url_path, said) if moved is None else (moved.to.url_path, moved.link(said))
    if to in FIRST and FIRST[to][0] not in dict(link):
        link = [*link, FIRST[to]]
    return None if (to, link) == (url_path, said) else (to, link)
