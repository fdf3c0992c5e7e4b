"""Small words: one and several, ranks that count from 0, chances, and scores with their intervals."""

import json
import re

import pytest

from soft_prompt_explorer.app.pages import BEHAVIOUR, DOES, TOKENS
from soft_prompt_explorer.trained_prompts.experiments import kept_behaviour
from tests.support.driving import driver_of, settled

pytestmark = pytest.mark.slow

NAME = "sentiment-words-1"


@pytest.mark.parametrize(("selected", "heading"), [("7", "**1 selected virtual token**"), ("7-8", "**2 selected virtual tokens**")])
def test_one_is_told_as_one(own_runs, embedded_map, selected, heading):
    driver = settled(driver_of("atlas", prompts=[NAME], selected=selected))
    assert heading in [text.value for text in driver.markdown]


def test_ranks_count_from_0_in_the_table_and_in_every_figure(own_runs):
    driver = settled(driver_of("prompt", prompt=NAME, tab=TOKENS))
    (grid,) = (frame for frame in driver.dataframe if "rank 0" in frame.value)
    bars = [element.proto.body for element in driver.get("html") if "Near to now" in element.proto.body]
    assert len(bars) == 1
    first = grid.value["rank 0"].iloc[0].rsplit("  ", 1)[0]
    assert f"0: {first}" in bars[0] and "7: " in bars[0] and "8: " not in bars[0]


def test_the_grid_shows_eight_columns_before_more(own_runs):
    driver = settled(driver_of("prompt", prompt=NAME, tab=TOKENS))
    (grid,) = (frame for frame in driver.dataframe if "rank 0" in frame.value)
    columns = json.loads(grid.proto.columns)
    hidden = [name for name, column in columns.items() if column.get("hidden") and name != "_index"]
    assert hidden == [f"rank {rank}" for rank in range(3, 8)]
    assert any("5 more columns" in caption.value for caption in driver.caption)


def test_the_scores_on_top_have_their_intervals(own_runs):
    driver = settled(driver_of("prompt", prompt=NAME, tab=BEHAVIOUR))
    rows = kept_behaviour.kept(NAME).drop_duplicates("intervention").set_index("intervention")
    told = [rows.loc[name] for name in ("whole prompt", "no prompt", "initial values", "nearest words")]
    assert [metric.value for metric in driver.metric] == [f"{row['score']:.3f}" for row in told]
    assert [metric.delta for metric in driver.metric] == [f"{row['score_low']:.3f} to {row['score_high']:.3f}" for row in told]


@pytest.mark.parametrize(
    "said",
    [{"tab": DOES}, {"tab": TOKENS}, {"tab": BEHAVIOUR}, {"tab": BEHAVIOUR, "view": "One token"}],
    ids=lambda said: "-".join(said.values()),
)
def test_no_chance_is_told_as_nothing(own_runs, said):
    driver = settled(driver_of("prompt", prompt=NAME, **said))
    assert not driver.exception
    texts = [each.value for kind in (driver.markdown, driver.caption, driver.info, driver.success, driver.warning) for each in kind]
    texts += [element.proto.body for element in driver.get("html")]
    assert any(re.search(r"\b[pq] (= |of chance )?(< 0\.001|0\.\d{3}\b)", text) for text in texts)
    assert not [text for text in texts if re.search(r"\b[pq] (= |of chance )?0\.0+\b", text)]
