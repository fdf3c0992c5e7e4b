"""What stands beside figures and tables on every page: one button to take them away."""

import pytest

from soft_prompt_explorer.app.pages import BEHAVIOUR, BESIDE, DOES, MADE, RANKS, SMALLER, TOKENS, TRY
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
