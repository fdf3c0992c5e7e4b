"""A prompt whose vocabulary is not at hand: its file's receipt says so before the click, and its page shows what its rows tell by themselves."""

import io
import json

import numpy as np
import pytest
from safetensors.numpy import save
from streamlit.testing.v1 import AppTest

from soft_prompt_explorer.analysis.adapters import load_soft_prompt
from soft_prompt_explorer.app.parts import naming
from tests.support.driving import driver_of, settled
from tests.support.peft_types import made
from tests.support.places import EMBEDDED
from tests.support.tiny_models import random_llama

pytestmark = pytest.mark.slow
FAR = "somebody/large-model"


def rows(width: int) -> np.ndarray:
    """Four tokens, of which two are one, the first twice as long as it."""
    drawn = np.random.default_rng(5).standard_normal((4, width)).astype(np.float32)
    drawn[3], drawn[0] = drawn[1], 2 * drawn[1]
    return drawn


def bare(width: int) -> dict[str, bytes]:
    content = io.BytesIO()
    np.save(content, rows(width))
    return {"theirs.npy": content.getvalue()}


def of_model(width: int, model: str) -> dict[str, bytes]:
    config = {"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 4, "token_dim": width, "base_model_name_or_path": model}
    return {"adapter_config.json": json.dumps(config).encode(), "adapter_model.safetensors": save({"prompt_embeddings": rows(width)})}


def opened(files: dict[str, bytes]) -> AppTest:
    driver = driver_of("library", tab="Open a file").run()
    driver.file_uploader[0].set_value([(name, content, "application/octet-stream") for name, content in files.items()]).run()
    assert not driver.exception and not driver.error
    return settled(driver)


def said(driver: AppTest) -> str:
    return "\n".join(each.value for each in driver.markdown).replace("\\", "")


def read_it(driver: AppTest) -> AppTest:
    """The page to which the button leads."""
    assert "Read this prompt" in [button.label for button in driver.button]
    driver.query_params.clear()
    driver.switch_page("views/prompt.py")
    driver.query_params["prompt"] = next(iter(driver.session_state["opened"]))
    assert not settled(driver).exception
    return driver


def charts(driver: AppTest) -> list[str]:
    return [chart.proto.alt for chart in driver.get("plotly_chart")]


@pytest.mark.parametrize(
    ("files", "before", "asks"),
    [
        (bare(768), "Its words cannot be read yet: no vocabulary 768 wide is known to be its own.", "This prompt is 768 wide"),
        (of_model(768, FAR), f"Its words cannot be read yet: the vocabulary of {FAR} is not on this machine.", "Fetching it asks the model hub"),
    ],
    ids=["of no model", "of a model on the hub that is not here"],
)  # fmt: skip
def test_a_prompt_without_a_vocabulary_shows_its_geometry_and_its_receipt_says_so_before(own_runs, files, before, asks):
    driver = opened(files)
    assert before in said(driver)
    read_it(driver)
    assert asks in "\n".join(each.value for each in [*driver.error, *driver.info])
    assert any(field.label.startswith("Model of ") for field in driver.text_input)
    assert [each.value for each in driver.subheader] == ["Its geometry"]
    cosines, directions, norms = charts(driver)
    vectors = rows(768).astype(np.float64)
    lengths = np.linalg.norm(vectors, axis=1)
    units = vectors / lengths[:, None]
    pairs = (units @ units.T)[np.triu_indices(4, 1)]
    energy = np.linalg.svd(vectors, compute_uv=False) ** 2
    assert f"the median is {np.median(pairs):.2f}" in cosines
    assert f"the first holds {energy[0] / energy.sum():.0%}" in directions
    assert "norms of 4 virtual tokens" in norms
    assert f"The median virtual token is {np.median(lengths):.2f} long." in said(driver)
    assert "1 pair of tokens is one and the same row." in said(driver)


def test_a_receipt_says_that_words_can_be_read_where_they_can_and_the_page_reads_them(own_runs):
    for files in (bare(576), of_model(576, EMBEDDED)):
        driver = opened(files)
        assert f"Its words can be read, against the vocabulary of {EMBEDDED}." in said(driver)
    read_it(driver)
    assert not driver.error and "What it does" in [tab.label for tab in driver.tabs]
    assert "Its geometry" not in [each.value for each in driver.subheader]


def test_no_words_are_promised_of_rows_that_are_no_embeddings_or_of_another_width_than_their_model_has(tmp_path, byte_level_tokenizer):
    model = random_llama(byte_level_tokenizer, hidden_size=16, intermediate_size=32, num_hidden_layers=2)
    made(model, "PREFIX_TUNING", tmp_path / "prefix")
    assert "they are no input embeddings" in naming.about_words(load_soft_prompt(tmp_path / "prefix"))
    for name, content in of_model(768, EMBEDDED).items():
        (tmp_path / name).write_bytes(content)
    assert "no vocabulary 768 wide" in naming.about_words(load_soft_prompt(tmp_path))
