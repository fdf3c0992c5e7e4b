"""A link alone fetches nothing, opens nothing outside the folders that were allowed, and does not tell what exists."""

import ast
import json
import re
import shutil
import sys
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.core.folders import GALLERY
from soft_prompt_explorer.analysis.models import hub
from soft_prompt_explorer.analysis.models import weights as models
from soft_prompt_explorer.app.pages import (
    BEHAVIOUR,
    COMPARE,
    DOES,
    FINDINGS,
    GLOSSARY,
    LESSON,
    MAP,
    MEASURED,
    MEASURES,
    METHODS,
    PAGES,
    PUBLISHED,
    READINGS,
    RUN_ONE,
    SCORECARDS,
    SIZES,
    SOURCES,
    TOKENS,
    TRADES,
    TRY,
)
from soft_prompt_explorer.app.pages import MADE as HOW_MADE
from soft_prompt_explorer.app.server.allowed import VARIABLE
from tests.support.driving import driver_of, settled
from tests.support.places import REPOSITORY

pytestmark = pytest.mark.slow


def keys_of_links() -> tuple[set[str], set[str]]:
    """Everything that a link can say: the keys of the widgets that are bound to it, and what is read from it; first the names, then what makes a name."""
    names, made = set(), set()
    for path in (REPOSITORY / "app").rglob("*.py"):
        for call in (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)):
            given, of = {keyword.arg: keyword.value for keyword in call.keywords}, ast.unparse(call.func)
            if "bind" in given or of.endswith("model_field"):
                key = given["key"]
            elif "query_params.get" in of or of.endswith("follow_link"):
                key = call.args[0]
            elif of.endswith("prompt_header.pick"):
                key = given["name"]
            else:
                continue
            if isinstance(key, ast.Constant):
                names.add(key.value)
            else:
                made.add(ast.unparse(key))
    return names, made


NAMES, MADE = keys_of_links()
KEYS = sorted(NAMES | {"of-kind", "adapters", "task-of-sentiment-words-1", "task-of-plural-words-1", "rate-lora", "trade-runs-plural"})
# What a link has to say beside it for a page to come as far as a model's name.
OF_PROMPT, OF_LORA = {"prompt": "sentiment-words-1"}, {"lora": "sentiment-lora-2"}
GOES_ON = {
    "start": [{}],
    "library": [{}, {"tab": "Open a file"}, {"tab": "Collection"}, {"tab": "Scores"}],
    "prompt": [OF_PROMPT, *(OF_PROMPT | {"tab": tab, "model": ""} for tab in (DOES, TOKENS, BEHAVIOUR, TRY, HOW_MADE))],
    "lora": [OF_LORA | {"tab": tab} for tab in (DOES, "Ranks", "Smaller copy", "Beside another", HOW_MADE)],
    "atlas": [{"prompts": ["sentiment-words-1", "capitals-words-1"], "tab": tab, "by": "a word"} for tab in (MAP, COMPARE)],
    "train": [{"model": "another", "task": "plural"}],
    "learn": [
        {"tab": LESSON},
        {"tab": READINGS},
        {"tab": MEASURES},
        *(
            {"tab": METHODS, "methods": part, "new-model": "another", "new-task": "plural"}
            for part in (MEASURED, SIZES, PUBLISHED, RUN_ONE, TRADES, SCORECARDS)
        ),
        {"tab": FINDINGS},
        {"tab": GLOSSARY},
        {"tab": SOURCES},
    ],
}
_watched: list[tuple[str, str]] = []
_watching: list[str] = []


def _watch(event: str, arguments: tuple) -> None:
    if not _watching:
        return
    if event in ("socket.connect", "socket.getaddrinfo"):
        _watched.append((event, str(arguments)))
    if event in ("open", "os.listdir", "os.scandir") and str(arguments[0]).startswith(tuple(_watching)):
        _watched.append((event, str(arguments[0])))


@pytest.fixture
def watched(monkeypatch, tmp_path):
    """What Python opens below this test's folder, and whom it calls; and which models the hub is asked for."""
    if not hasattr(sys, "_links_watched"):
        sys.addaudithook(_watch)
        sys._links_watched = True
    for module, name in ((hub, "vocabulary_folder"), (models, "_whole_hub_folder")):

        def asked(model: str, *_, **__):
            _watched.append(("hub", model))
            raise InputError("the hub was asked")

        monkeypatch.setattr(module, name, asked)
    _watched.clear()
    _watching[:] = [str(tmp_path / "secret")]
    yield _watched
    _watching.clear()


@pytest.fixture
def hostile(tmp_path, llama_folder) -> dict[str, str]:
    """Names of models that a link must not follow, by what there is of them."""
    secret = tmp_path / "secret"
    shutil.copytree(llama_folder, secret / "model")
    (secret / "model.gguf").write_bytes(b"GGUF")
    return {
        "a folder": str(secret / "model"), "no folder": str(secret / "medal"), "a file": str(secret / "model.gguf"), "no file": str(secret / "medal.gguf"),
        "a hub id": "owner/name",
    }  # fmt: skip


def said(driver: AppTest, name: str) -> list[str]:
    """Every sentence of the page, with the model's name taken out."""
    kinds = (driver.error, driver.warning, driver.info, driver.success, driver.markdown, driver.caption)
    return [element.value.replace("\\", "").replace(name, "…") for kind in kinds for element in kind]


def test_what_a_link_can_say_is_known():
    assert {
        "model",
        "other",
        "new-model",
        "path",
        "collection",
        "prompt",
        "prompts",
        "lora",
        "base",
        "job",
        "task",
        "beside",
        "tab",
        "methods",
        "finding",
        "token",
        "step",
    } <= NAMES
    assert len(NAMES) > 50
    # What is not a name makes one that is among the keys, hands on what it is given, or is handed what is a name where it is called.
    assert {"f'task-of-{key}'", "f'rate-{method}'", "f'of-{name}'", "of_task", "key", "name", "link"} == MADE
    assert {page.file for page in PAGES} == {f"views/{name}.py" for name in GOES_ON}


@pytest.mark.parametrize(("page", "query"), [(page, query) for page, queries in GOES_ON.items() for query in queries])
def test_a_link_to_any_page_neither_fetches_nor_opens_and_says_the_same_whatever_exists(
    own_runs, embedded_map, hostile, watched, page, query
):
    sentences = {}
    for what, name in hostile.items():
        driver = settled(driver_of(page, **dict.fromkeys(KEYS, name) | query))
        assert not driver.exception, driver.exception[0].value
        assert not watched, (what, watched)
        sentences[what] = said(driver, name)
    # Typed as a word, a path is told in its pieces, of which a longer one has more: the numbers may differ.
    sentences = {what: [re.sub(r"\d+", "#", text) for text in said] for what, said in sentences.items()}
    assert sentences["a folder"] == sentences["no folder"]
    assert sentences["a file"] == sentences["no file"]
    if (page, query) in (("prompt", OF_PROMPT), ("train", GOES_ON["train"][0])):
        assert any("A link alone fetches nothing" in sentence for sentence in sentences["a hub id"])


@pytest.mark.parametrize("page", ["prompt", "train"])
def test_a_linked_model_is_used_once_its_person_says_so(own_runs, hostile, watched, page):
    key = {"prompt": "model", "train": "other"}[page]
    driver = settled(driver_of(page, **{key: hostile["a folder"]} | GOES_ON[page][0]))
    assert not watched
    next(button for button in driver.button if button.label == "Use this model").click()
    settled(driver)
    assert ("open", str(Path(hostile["a folder"]) / "config.json")) in watched


def test_a_typed_model_is_used_at_once(own_runs, hostile, watched):
    driver = settled(driver_of("prompt", tab=TOKENS, prompt="sentiment-words-1"))
    driver.text_input(key="model").set_value(hostile["a hub id"])
    settled(driver)
    assert watched == [("hub", "owner/name")]
    assert "the hub was asked" in driver.error[0].value


def test_a_link_opens_a_model_in_an_allowed_folder_and_one_that_is_on_this_machine_by_its_name(
    own_runs, monkeypatch, hostile, watched, tmp_path
):
    monkeypatch.setenv(VARIABLE, str(tmp_path / "secret"))
    driver = settled(driver_of("prompt", tab=TOKENS, prompt="sentiment-words-1", model=hostile["a folder"]))
    assert "16 wide" in driver.error[0].value.replace("\\", "") or "576" in driver.error[0].value
    driver = settled(driver_of("prompt", tab=TOKENS, prompt="sentiment-words-1", model="smollm2-135m"))
    assert not driver.error
    assert any(subheader.value == "All tokens" for subheader in driver.subheader)


@pytest.mark.parametrize("page", ["prompt", "atlas", "lora"])
def test_a_link_to_a_run_on_a_hub_model_that_is_not_here_asks_before_it_fetches(own_runs, embedded_map, watched, page):
    name, of = ("mine", "sentiment-lora-2") if page == "lora" else ("mine", "sentiment-words-1")
    shutil.copytree(GALLERY / of, own_runs / name)
    run = json.loads((own_runs / name / "run.json").read_text())
    run["model"]["name"] = run["config"]["model"] = "owner/name"
    (own_runs / name / "run.json").write_text(json.dumps(run))
    query = {
        "lora": {"lora": name, "base": "true", "tab": "Ranks"},
        "atlas": {"prompts": name},
    }
    driver = settled(driver_of(page, **query.get(page, {"prompt": name})))
    assert not driver.exception
    assert not watched
    assert any("which is not on this machine" in info.value for info in driver.info)
    next(button for button in driver.button if button.label == "Fetch the vocabulary").click()
    settled(driver)
    assert ("hub", "owner/name") in watched


def test_a_search_for_a_token_of_another_model_says_so_and_neither_fetches_nor_offers_to(own_runs, embedded_map, watched):
    shutil.copytree(GALLERY / "sentiment-words-1", own_runs / "mine")
    run = json.loads((own_runs / "mine" / "run.json").read_text())
    run["model"]["name"] = run["config"]["model"] = "owner/name"
    (own_runs / "mine" / "run.json").write_text(json.dumps(run))
    driver = settled(driver_of("atlas", prompts="sentiment-words-1", by="a virtual token", prompt="mine"))
    assert not driver.exception and not watched
    assert any("of another model than those on the map" in info.value for info in driver.info)
    assert not any(button.label.startswith("Fetch") for button in driver.button)
