"""What stands below figures and tables on every page: what their measures are, and one button to take them away."""

import pytest

from soft_prompt_explorer.app.pages import (
    BEHAVIOUR,
    BESIDE,
    COMPARE,
    DOES,
    LESSON,
    MADE,
    METHODS,
    RANKS,
    READINGS,
    SIZES,
    SMALLER,
    TOKENS,
    TRY,
)
from tests.support.driving import driver_of, outside, settled

pytestmark = pytest.mark.slow

OF_PROMPT = {"prompt": "sentiment-words-1"}
OF_LORA = {"lora": "sentiment-lora-8"}


@pytest.mark.parametrize(
    ("view", "said"),
    [
        *(("prompt", OF_PROMPT | {"tab": tab}) for tab in (DOES, TOKENS, BEHAVIOUR, TRY, MADE)),
        ("prompt", OF_PROMPT | {"tab": BEHAVIOUR, "view": "One token"}),
        *(("lora", OF_LORA | {"tab": tab}) for tab in (DOES, RANKS, SMALLER, MADE)),
        ("lora", OF_LORA | {"tab": BESIDE, "other": "capitals-lora-8"}),
    ],
    ids=lambda of: of if isinstance(of, str) else "-".join(list(of.values())[1:]),
)
def test_exports_stand_behind_a_button_of_their_table(own_runs, view, said):
    driver = settled(driver_of(view, **said))
    assert not driver.exception and not driver.error
    buttons = driver.get("download_button")
    assert buttons or said["tab"] in (TRY, MADE)
    out = [button.label for button in outside(driver, "download_button", "popover")]
    assert len(out) <= 1, out
    assert {"CSV", "Parquet", "JSON", "Markdown", "Provenance", "SVG", "PDF"}.isdisjoint(out)


@pytest.mark.parametrize(
    ("view", "said", "measures"),
    [
        ("start", {}, {"UMAP map", "Trustworthiness", "Verdict"}),
        ("library", {}, {"Fidelity of a text", "Difference lens"}),
        ("prompt", OF_PROMPT | {"tab": DOES}, {"Fidelity of a text", "Difference lens", "Effect"}),
        (
            "prompt",
            OF_PROMPT | {"tab": TOKENS, "metric": "dot"},
            {"Verdict", "Chance: p and q", "Echo and drift", "Learned direction", "Dot product", "Concentration", "Words test", "Beside its twin", "Norm ratio"},
        ),
        ("prompt", OF_PROMPT | {"tab": BEHAVIOUR}, {"Change under an intervention", "Task direction out, and alone", "Correction for many claims"}),
        ("prompt", OF_PROMPT | {"tab": BEHAVIOUR, "view": "One token"}, {"Centred cosine", "Logit lens", "Attention of the answer"}),
        ("prompt", OF_PROMPT | {"tab": BEHAVIOUR, "view": "Inside"}, {"Logit lens", "Attention of the answer"}),
        ("lora", OF_LORA | {"tab": DOES}, {"Fidelity of a text", "Difference lens", "Effect"}),
        ("lora", OF_LORA | {"tab": RANKS, "measure": "spike"}, {"Ranks at 90, 95 and 99 %", "Effective rank", "Spike"}),
        ("lora", OF_LORA | {"tab": BESIDE, "other": "capitals-lora-8"}, {"Subspace similarity"}),
        ("atlas", {}, {"UMAP map", "Trustworthiness", "Cluster tightness", "Cluster stability", "Echo of the start"}),
        ("atlas", {"tab": COMPARE, "measure": "cka"}, {"UMAP map", "CKA", "Matched cosine"}),
        ("learn", {"tab": LESSON, "step": "4"}, {"Difference lens"}),
        ("learn", {"tab": READINGS}, {"Logit lens", "Contextual neighbours", "Verbalisation", "Fidelity of a text"}),
    ],
    ids=lambda of: None if isinstance(of, set) else of if isinstance(of, str) else "-".join(of.values()),
)  # fmt: skip
def test_a_figure_is_explained_by_the_record_of_its_measure(own_runs, embedded_map, view, said, measures):
    driver = settled(driver_of(view, **said))
    assert not driver.exception and not driver.error
    offered = {link.label.removesuffix(" in full") for link in driver.get("page_link") if link.label.endswith(" in full")}
    assert measures <= offered, measures - offered


@pytest.mark.parametrize(
    ("view", "said", "figures"),
    [
        ("prompt", OF_PROMPT | {"tab": DOES}, {"translation", "pushed", "layers"}),
        ("prompt", OF_PROMPT | {"tab": TOKENS}, {"direction", "verdicts"}),
        ("prompt", OF_PROMPT | {"tab": BEHAVIOUR}, {"interventions"}),
        ("lora", OF_LORA | {"tab": RANKS}, {"spectrum"}),
        ("atlas", {}, {"map"}),
        ("atlas", {"tab": COMPARE}, {"similarity"}),
        ("learn", {"tab": METHODS, "methods": SIZES}, {"score-against-size"}),
    ],
    ids=lambda of: None if isinstance(of, set) else of if isinstance(of, str) else "-".join(of.values()),
)
def test_a_figure_can_be_taken_as_svg_and_as_pdf(own_runs, embedded_map, view, said, figures):
    driver = settled(driver_of(view, **said))
    assert not driver.exception and not driver.error
    keys = [button.key for button in driver.get("download_button")]
    for figure in figures:
        for form in ("svg", "pdf"):
            assert any(figure in key and key.endswith(f"-{form}") for key in keys), (figure, form)
