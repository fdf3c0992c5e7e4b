"""The pages, one record each: the navigation and every link from page to page are made from it. Who adds a page adds its view and its record."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Page:
    """One page.

    Attributes
    ----------
    file : its view, from the folder of `main.py` on: what Streamlit is given to go there.
    title, icon : how the navigation shows it.
    url_path : where it is in a browser; the first page is at the root as well.
    """

    file: str
    title: str
    icon: str
    url_path: str


def _page(name: str, title: str, icon: str) -> Page:
    return Page(f"views/{name}.py", title, f":material/{icon}:", name)


GALLERY = _page("gallery", "Gallery", "grid_view")
OPEN = _page("open", "Open", "folder_open")
NEIGHBOURS = _page("neighbours", "Neighbours", "hub")
CLUSTERS = _page("clusters", "Clusters", "scatter_plot")
COMPARE = _page("compare", "Compare", "compare")
SEARCH = _page("search", "Search", "search")
SPECTRA = _page("spectra", "LoRA spectra", "equalizer")
BEHAVIOUR = _page("behaviour", "Behaviour", "science")
TRAIN = _page("train", "Train", "model_training")
METHODS = _page("methods", "Methods", "balance")
MEASURES = _page("measures", "Measures", "menu_book")
PAGES = (GALLERY, OPEN, NEIGHBOURS, CLUSTERS, COMPARE, SEARCH, SPECTRA, BEHAVIOUR, TRAIN, METHODS, MEASURES)
