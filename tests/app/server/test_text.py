"""What a stranger's file says is text on every page: no link, no picture, no markup."""

import json
import re

import numpy as np
import pytest
from safetensors.numpy import save_file

from soft_prompt_explorer.analysis.adapters import load_adapter
from soft_prompt_explorer.app.pages import BEHAVIOUR, COMPARE, MADE, TOKENS
from soft_prompt_explorer.app.server.text import WORD_JOINER, plain
from tests.support.driving import driver_of, settled
from tests.support.hostile_text import HOSTILE


def shown(text: str) -> str:
    """What a person sees of it."""
    return text.replace("\\", "").replace(WORD_JOINER, "")


def test_nothing_is_lost_and_every_address_is_taken_apart():
    assert shown(plain(HOSTILE)) == HOSTILE
    for whole in ("http://", "https://", "www.", "me@", "mailto:", ":material/delete:", ":smile:"):
        assert whole in HOSTILE and whole not in plain(HOSTILE).replace("\\", "")


@pytest.mark.parametrize("text", ["owner/name", "smollm2-135m", "a model of 3.5 GB", "", "x@", "www", "Über://x"])
def test_other_text_is_shown_as_it_is(text):
    assert shown(plain(text)) == text


@pytest.fixture
def opened(tmp_path):
    """A prompt from a folder that says hostile things wherever a file can say something."""
    folder = tmp_path / "[n](http:evil.example) www.evil.example"
    folder.mkdir()
    rows = np.random.default_rng(0).standard_normal((3, 576)).astype(np.float32)
    save_file({"prompt_embeddings": rows}, folder / "adapter_model.safetensors", {"note": HOSTILE})
    config = {"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 3, "token_dim": 576, "base_model_name_or_path": HOSTILE}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return load_adapter(folder)


PLACES = {  # each with what its link says, the file's prompt by its key or, where the link holds labels, by its label
    "library": ("library", {}),
    "tokens": ("prompt", {"prompt": "file-it", "tab": TOKENS}),
    "behaviour": ("prompt", {"prompt": "file-it", "tab": BEHAVIOUR}),
    "made": ("prompt", {"prompt": "file-it", "tab": MADE}),
    "map": ("atlas", {"prompts": ["LABEL", "sentiment-words-1"]}),
    "compare": ("atlas", {"prompts": ["LABEL", "sentiment-words-1"], "tab": COMPARE}),
    "search": ("atlas", {"prompts": "sentiment-words-1", "by": "a virtual token", "prompt": "LABEL"}),
}


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES)
def test_no_page_makes_markdown_of_what_a_file_says(own_runs, embedded_map, opened, place):
    for state in ({"opened": {"file-it": opened}}, {"opened": {"file-it": opened}, "models": {"file-it": "smollm2-135m"}}):
        label = f"{opened.name} (your file)"
        page, said = PLACES[place]
        query = {
            name: [label if each == "LABEL" else each for each in value]
            if isinstance(value, list)
            else label
            if value == "LABEL"
            else value
            for name, value in said.items()
        }
        driver = settled(driver_of(page, state=state, **query))
        assert not driver.exception
        kinds = (driver.markdown, driver.caption, driver.info, driver.warning, driver.error, driver.success, driver.metric, driver.button)
        texts = [
            text
            for kind in kinds
            for element in kind
            for text in (getattr(element, "value", ""), getattr(element, "label", ""), getattr(element, "help", ""))
            if isinstance(text, str)
        ]
        assert any("evil" in text for text in texts) or place in ("library", "search")
        for text in (text for text in texts if "evil" in text):
            for markup in ("](", "<img", "<a ", ":red", ":material/delete", "**b", "`y", "$x", "![", "&lt"):
                assert not re.search(r"(?<!\\)" + re.escape(markup), text), (text, markup)
            for address in ("http://", "https://", "www.", "me@", "mailto:"):
                assert address not in text.replace("\\", ""), (text, address)
