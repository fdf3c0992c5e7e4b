"""What everybody sees first was made before: no page computes it again."""

import shutil
import subprocess
import sys

import pytest

from soft_prompt_explorer.analysis.models.vocabulary import load_vocabulary
from soft_prompt_explorer.analysis.prompts import shipped
from soft_prompt_explorer.app.pages import DOES, HERO, TOKENS
from soft_prompt_explorer.app.server import background
from soft_prompt_explorer.trained_prompts.runs import store
from tests.support.counting import count_computed
from tests.support.driving import driver_of, settled
from tests.support.places import EMBEDDED, REPOSITORY


@pytest.fixture
def computed(embedded_vocabulary, own_cache, monkeypatch) -> list[str]:
    """What is read or clustered, an entry each time, once what ships has been read into a cache of this test's own; as on a server that was just started."""
    folder = own_cache / "vocabularies" / embedded_vocabulary.cache.name
    folder.mkdir(parents=True)
    for kept in embedded_vocabulary.cache.glob("*.kept"):
        if not kept.name.startswith("shipped-"):
            shutil.copy(kept, folder)
    shipped.read_all(load_vocabulary(EMBEDDED))
    background._background.clear()
    return count_computed(monkeypatch)


@pytest.mark.slow
def test_no_page_computes_again_what_was_made_ready(embedded_map, own_runs, computed):
    for page, query in (
        ("start", {}),
        ("library", {}),
        ("atlas", {}),
        ("prompt", {"prompt": HERO, "tab": DOES}),
        ("prompt", {"prompt": HERO, "tab": TOKENS}),
    ):
        driver = settled(driver_of(page, **query))
        assert not driver.exception and not driver.error, page
    assert computed == []


@pytest.mark.slow
def test_the_first_page_tells_of_every_prompt_that_ships_and_of_all_its_tokens(embedded_map, own_runs):
    start = settled(driver_of("start"))
    runs = store.list_runs()
    prompts = runs[(runs["origin"] == "gallery") & (runs["method"] != "lora")]
    said = "\n".join(each.value for each in [*start.markdown, *start.caption])
    assert f"one of the {prompts['tokens'].sum():.0f} virtual tokens that ship" in said
    for task in prompts["task"]:
        assert f"{task}: " in said


def test_the_first_page_needs_nothing_that_is_slow_to_import():
    parts = ", ".join(f"soft_prompt_explorer.app.{name}" for name in ("main", "parts.first_map", "parts.lesson", "parts.opened_file"))
    slow = "{'torch', 'transformers', 'scipy.stats', 'sklearn', 'umap', 'faiss', 'matplotlib'}"
    code = f"import sys, {parts}; assert not {slow} & set(sys.modules), {slow} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True, stderr=subprocess.PIPE, text=True)
