from typing import get_args

import numpy as np
import pandas as pd
import pytest

from soft_prompt_explorer.analysis.behaviour.changes import WHOLE, Group
from soft_prompt_explorer.app.charts.behaviour import STYLES, changes
from soft_prompt_explorer.app.charts.scores import readability_trade, reliability, score_gains
from soft_prompt_explorer.app.charts.spectra import energy_and_effect, layer_map, spectra_by_layer
from soft_prompt_explorer.app.charts.theme import drawn
from soft_prompt_explorer.app.charts.training import loss_curve, validation_curve, verdict_counts
from soft_prompt_explorer.app.charts.vocabulary_map import learning_map
from soft_prompt_explorer.app.charts.words import direction_bars, neighbours_heat_map, null_histogram, score_bars, score_scale
from tests.support.rows import of_class, parsed, seen, style, text


def neighbours_table() -> pd.DataFrame:
    rows = [
        ("p", 0, 0, 7, " good", 0.9, "centred"),
        ("p", 0, 1, 3, "bad", 0.4, "centred"),
        ("p", 1, 0, 2, "\\n", 0.5, "centred"),
        ("p", 1, 1, 9, "=", 0.1, "centred"),
    ]
    return pd.DataFrame(rows, columns=["prompt", "position", "rank", "token_id", "token", "score", "metric"])


def test_the_heat_map_shows_every_word_where_its_score_is():
    heat_map = neighbours_heat_map(neighbours_table()).data[0]
    np.testing.assert_allclose(heat_map.z, [[0.9, 0.4], [0.5, 0.1]], rtol=1e-6)
    assert heat_map.text.tolist() == [["␣good", "bad"], ["\\n", "="]]
    assert heat_map.colorbar.title.text == "centred"
    assert heat_map.x.tolist() == [0, 1]  # ranks count from 0


def test_bars_keep_the_order_of_the_ranks_and_share_a_scale():
    table = neighbours_table()
    scale = score_scale(table)
    first, second = (seen(score_bars(table.query(f"position == {position}"), scale=scale, alt="")) for position in (0, 1))
    assert [(row.label, row.written) for row in first.rows] == [("0: ␣good", "0.900"), ("1: bad", "0.400")]
    for chart, scores in ((first, [0.9, 0.4]), (second, [0.5, 0.1])):
        np.testing.assert_allclose([row.bar[:2] for row in chart.rows], [(0.0, score) for score in scores], atol=1e-3)
    assert first.title == second.title == "score (centred)"
    (long,), (short,) = (
        of_class(parsed(score_bars(table[rows], scale=scale, alt="")), "bar") for rows in ([True] + 3 * [False], 3 * [False] + [True])
    )
    assert float(style(long)["width"][:-1]) == pytest.approx(9 * float(style(short)["width"][:-1]), rel=1e-2)  # 0.9 beside 0.1


def test_the_tasks_own_words_have_a_star_on_a_shared_direction():
    table = pd.DataFrame({"rank": [0, 1, 5_000], "token_id": [4, 9, 2], "token": [" <b>", "no", "good"], "score": [0.5, 0.4, -0.1]})
    chart = seen(direction_bars(table, {9, 2}, alt=""))
    assert [row.label for row in chart.rows] == ["0: ␣<b>", "★ 1: no", "★ 5,000: good"]
    np.testing.assert_allclose([row.bar[:2] for row in chart.rows], [(0, 0.5), (0, 0.4), (-0.1, 0)], atol=1e-3)
    assert chart.rows[0].bar[2] != chart.rows[1].bar[2] == chart.rows[2].bar[2]


def test_what_random_vectors_score_stands_beside_a_tokens_score():
    null = np.concatenate([np.full(30, 0.2), np.full(10, 0.6)])
    chart = parsed(null_histogram(null, 0.49, of="token 3", alt="x"))
    (steps,), (line,) = of_class(chart, "steps"), of_class(chart, "told")
    place = {0.2: 22 / 1.04, 0.6: 62 / 1.04, 0.49: 51 / 1.04}  # the axis goes from -0.02 to 1.02
    left, width = (float(style(steps)[name][:-1]) for name in ("left", "width"))
    np.testing.assert_allclose([left, left + width, float(style(line)["left"][:-1])], [place[0.2], place[0.6], place[0.49]], atol=0.02)
    heights = [100 - float(corner.split()[1][:-1]) for corner in style(steps)["clip-path"][8:-1].split(",")]
    assert (
        heights[1] == 100
        and heights[-2] == pytest.approx(100 / 3, abs=0.1)
        and sum(heights) == pytest.approx(2 * (heights[1] + heights[-2]), abs=0.1)
    )
    assert [text(each) for each in of_class(chart, "legend")[0]] == ["token 3: 0.49", "40 random vectors"]


def test_an_intervention_stands_at_its_change_with_its_interval_and_the_shape_of_its_group():
    table = pd.DataFrame(
        [(WHOLE, None, np.nan, 0.9, 0.0, 0.0, 0.0), ("no prompt", None, np.nan, 0.1, -0.8, -0.9, -0.6), ("token dropped", 3, np.nan, 0.95, 0.05, -0.1, 0.2)],
        columns=["intervention", "position", "amount", "score", "score_change", "score_change_low", "score_change_high"],
    ).assign(measure="exact match", position=lambda rows: rows["position"].astype("Int64"))  # fmt: skip
    chart = seen(changes(table, "score", alt="x"))
    assert [(row.label, row.written) for row in chart.rows] == [("no prompt", "-0.800"), ("token dropped 3", "+0.050")]
    (bare,), (dropped,) = (row.marks for row in chart.rows)
    np.testing.assert_allclose(
        [bare.value, *bare.interval, dropped.value, *dropped.interval], [-0.8, -0.9, -0.6, 0.05, -0.1, 0.2], atol=2e-3
    )
    assert chart.legend == {"the whole prompt changed": (bare.shape, bare.colour), "one token": (dropped.shape, dropped.colour)}
    assert (bare.shape, dropped.shape) == ("circle", "circle-open")
    assert (chart.dotted, chart.title) == ([pytest.approx(0.0, abs=1e-3)], "change of exact match")


def test_the_loss_curve_has_a_dot_a_step_and_a_running_mean():
    losses = pd.DataFrame({"step": range(1, 16), "loss": np.linspace(3, 1, 15)})
    dots, line = loss_curve(losses, steps=20).data
    assert len(dots.y) == 15
    np.testing.assert_allclose(line.y[-1], losses["loss"].tail(10).sum() / 10)
    assert line.y[0] == 3


def test_other_runs_are_drawn_over_the_loss_by_name_and_with_dashes_of_their_own():
    losses = pd.DataFrame({"step": range(1, 16), "loss": np.linspace(3, 1, 15)})
    longer = pd.DataFrame({"step": range(1, 41), "loss": np.linspace(2, 0, 40)})
    figure = loss_curve(losses, steps=20, beside={"<b>": longer, "short": losses.head(3)})
    assert [(line.name, line.line.dash) for line in figure.data[2:]] == [("&lt;b&gt;", "dash"), ("short", "dot")]
    assert tuple(figure.layout.xaxis.range) == (0, 41)


def test_the_score_is_drawn_where_it_was_measured():
    losses = pd.DataFrame({"step": range(1, 7), "loss": 1.0, "validation": [np.nan, 0.5, np.nan, 0.7, np.nan, 0.6]})
    figure = validation_curve(losses, "accuracy", steps=6, beside={"never scored": losses.drop(columns="validation")})
    (line,) = figure.data
    assert (list(line.x), list(line.y)) == ([2, 4, 6], [0.5, 0.7, 0.6])
    assert figure.layout.yaxis.title.text == "accuracy"


def looks_table() -> pd.DataFrame:
    rows = [
        (0, 0, "echo", 0.0, 0.0, " a"),
        (0, 1, "echo", 1.0, 1.0, "b"),
        (5, 0, "moved along a word", 2.0, 0.0, "<i>"),
        (5, 1, "echo", 1.0, 2.0, "b"),
    ]
    return pd.DataFrame(rows, columns=["step", "position", "verdict", "x", "y", "nearest_token"])


def test_verdicts_are_counted_at_each_look_and_told_by_their_marks():
    counts = {line.name: (list(line.y), line.marker.symbol) for line in verdict_counts(looks_table(), steps=9).data}
    assert counts == {"moved along a word": ([0, 1], "star"), "echo": ([2, 1], "square")}


def test_tokens_that_learn_stand_on_the_map_where_they_are_now_with_the_way_they_came():
    words = np.zeros((3, 2), np.float32)
    landmarks = pd.DataFrame({"token": [" sign"], "x": [0.0], "y": [0.0]})
    cloud, first_way, second_way, *now = learning_map(looks_table(), words, landmarks).data
    assert (list(first_way.x), list(second_way.y)) == ([0, 2], [1, 2])
    assert {group.name: (list(group.text), list(group.x)) for group in now} == {
        "moved along a word": (["0: &lt;i&gt;"], [2]),
        "echo": (["1: b"], [1]),
    }
    assert cloud.name == "3 words"


def test_score_gains_show_the_interval_and_leave_out_what_was_not_scored():
    runs = pd.DataFrame(
        {
            "name": ["a", "b"],
            "no_prompt": [0.5, None],
            "start": [0.6, None],
            "score": [0.8, None],
            "low": [0.7, None],
            "high": [0.85, None],
            "n": [1066, None],
        }
    )
    figure = score_gains(runs)
    assert list(figure.layout.yaxis.ticktext) == ["a, n 1,066"]  # no score without its number of examples
    bare, start, prompted = figure.data
    assert list(bare.y) == list(start.y) == list(prompted.y) == ["a"]
    np.testing.assert_allclose([prompted.error_x.array[0], prompted.error_x.arrayminus[0]], [0.05, 0.1])


def test_a_token_that_looks_like_markup_is_drawn_as_it_is():
    assert drawn("<b>") == "&lt;b&gt;"
    assert drawn(" </s>") == "␣&lt;/s&gt;"


def layers_table(values: list[float | None]) -> pd.DataFrame:
    return pd.DataFrame({"layer": pd.array(range(len(values)), "Int64"), "projection": "q", "intruders": pd.array(values, "Int64")})


def test_a_measure_is_written_for_each_layer_and_bluer_the_larger_it_is():
    pale, blue = "#F4F8FC", "#56B4E9"
    for values, colours in (([0, 0], [pale, pale]), ([3, 3], [blue, blue]), ([1, 3], [pale, blue]), ([None, 2], [None, blue])):
        cells = list(parsed(layer_map(layers_table(values), "intruders", alt="x")).iter("td"))
        assert [text(cell) for cell in cells] == ["" if value is None else f"{value}" for value in values]
        assert [style(cell).get("background") for cell in cells] == colours


def test_a_layer_map_has_a_row_a_projection_a_column_a_layer_and_no_markup_of_a_strangers():
    table = pd.DataFrame(
        {"layer": pd.array([2, 10, None], "Int64"), "projection": ["<b>", "v", "<b>"], "effective_rank": [1.2345, 12, 5.5]}
    )
    rows = [[text(cell) for cell in row] for row in parsed(layer_map(table, "effective_rank", alt="x")).iter("tr")]
    assert rows == [["layer", "none", "2", "10"], ["<b>", "5.50", "1.23", ""], ["v", "", "", "12.0"]]


def test_every_spectrum_is_a_profile_in_its_layers_place_on_one_log_scale():
    values = {("q", 0): [10.0, 1.0], ("q", 3): [0.1], ("<v>", 3): [1.0, 0.001]}
    rows = [(projection, layer, rank, value) for (projection, layer), each in values.items() for rank, value in enumerate(each, 1)]
    table = pd.DataFrame(rows, columns=["projection", "layer", "rank", "value"]).assign(energy=0.5)
    chart = parsed(spectra_by_layer(table, alt="x"))
    assert [text(label) for label in of_class(chart, "label")] == ["q", "<v>"]
    drawn = [
        (each.get("title"), float(style(each)["left"][:-1]), style(each)["clip-path"][8:-1].split(",")) for each in of_class(chart, "steps")
    ]
    assert [title for title, *_ in drawn] == ["layer 0: 10, 1", "layer 3: 0.1", "layer 3: 1, 0.001"]
    assert [left for _, left, _ in drawn] == [4.0, 54.0, 54.0]
    decades = np.log10(13 / (0.01 / 1.3))  # from a thousandth of the largest on, with room at both ends
    for (_, _, corners), (of_first, of_second) in zip(drawn, ([10, 1], [0.1, None], [1, None]), strict=True):
        heights = [100 - float(corner.split()[1][:-1]) for corner in corners]
        wanted = [
            0 if value is None else 100 * np.log10(value / (0.01 / 1.3)) / decades for value in (of_first, of_first, of_second, of_second)
        ]
        np.testing.assert_allclose(heights, [0, *wanted, 0], atol=0.1)
    energy = of_class(parsed(spectra_by_layer(table, cumulative=True, alt="x")), "steps")[0]
    assert energy.get("title") == "layer 0: 50.0%, 50.0%"


def test_a_spectrum_of_many_ranks_is_drawn_at_so_many_as_a_profile_has_room_for():
    ranks = np.arange(1, 257)
    table = pd.DataFrame({"layer": 0, "projection": "q", "rank": ranks, "value": 1000.0 - ranks, "energy": ranks / 256})
    (profile,) = of_class(parsed(spectra_by_layer(table, cumulative=True, alt="x")), "steps")
    heights = [100 - float(corner.split()[1][:-1]) for corner in style(profile)["clip-path"][8:-1].split(",")][1:-1:2]
    assert len(heights) == 32 and profile.get("title").startswith("layer 0: rank 1: 0.4%, rank 9: 3.5%")
    assert heights[0] == pytest.approx(heights[-1] / 256, abs=0.01)
    assert profile.get("title").endswith("rank 256: 100.0%")
    small = table.head(8).assign(layer=1, energy=np.arange(1, 9) / 8)
    _, profile = of_class(parsed(spectra_by_layer(pd.concat([table, small]), cumulative=True, alt="x")), "steps")
    assert profile.get("title") == "layer 1: 12.5%, 25.0%, 37.5%, 50.0%, 62.5%, 75.0%, 87.5%, 100.0%"


def trade_table() -> pd.DataFrame:
    rows = [  # prompt, readable, near, cosine, words, score, low, high, words_score, words_low, words_high
        ("c", np.inf, 1.0, 0.9, "<b> of", 0.8, 0.7, 0.9, 0.8, 0.7, 0.9),
        ("a", 0.0, 0.0, 0.4, "the in", 0.9, 0.8, 0.95, 0.1, 0.05, 0.2),
        ("other seed", 0.0, 0.1, 0.5, "at on", 0.6, 0.5, 0.7, 0.2, 0.1, 0.3),
        ("b", 0.3, 0.5, 0.6, "to and", 0.7, 0.6, 0.8, 0.3, 0.2, 0.4),
    ]
    columns = ["prompt", "readable", "near", "cosine", "words", "score", "low", "high", "words_score", "words_low", "words_high"]
    table = pd.DataFrame(rows, columns=columns)
    return table.assign(measure="exact match", no_prompt=0.24, no_prompt_low=0.17, no_prompt_high=0.33, family=[0, 0, 1, 0], n=100)


def test_the_trade_is_drawn_for_vectors_and_words_apart_over_the_bare_models_band():
    figure = readability_trade(trade_table(), "cosine")
    vectors, other, words, _ = figure.data
    assert [trace.name for trace in figure.data if trace.showlegend] == ["the vectors", "their words in their place"]
    np.testing.assert_allclose(vectors.x, [0.4, 0.6, 0.9], rtol=1e-6)  # in the order of γ
    np.testing.assert_allclose(vectors.y, [0.9, 0.7, 0.8], rtol=1e-6)
    np.testing.assert_allclose(words.y, [0.1, 0.3, 0.8], rtol=1e-6)
    assert list(vectors.text) == ["γ = 0", "γ = 0.3", "γ = ∞"]
    np.testing.assert_allclose(words.error_y.array, [0.1, 0.1, 0.1])
    np.testing.assert_allclose(vectors.error_y.arrayminus, [0.1, 0.1, 0.1])
    np.testing.assert_allclose(other.y, [0.6], rtol=1e-6)  # of another seed: no line leads to it
    assert vectors.marker.symbol != words.marker.symbol and vectors.line.dash != words.line.dash
    assert "&lt;b&gt; of" in vectors.customdata[2]
    band = figure.layout.shapes[0]
    assert (band.y0, band.y1) == (0.17, 0.33)
    np.testing.assert_allclose(readability_trade(trade_table(), "near").data[0].x, [0.0, 0.5, 1.0])


def test_prompts_as_near_as_each_other_still_have_room_beside_them():
    low, high = readability_trade(trade_table().assign(near=0.5), "near").layout.xaxis.range
    assert low < 0.5 < high


def test_bins_of_confidence_stand_beside_the_diagonal_and_are_larger_the_more_they_hold():
    bins = pd.DataFrame(
        {
            "low": [0.0, 0.1, 0.2],
            "high": [0.1, 0.2, 0.3],
            "n": [1, 0, 9],
            "confidence": [0.05, np.nan, 0.25],
            "accuracy": [0.0, np.nan, 1.0],
        }
    )
    table = pd.concat([bins.assign(prompt=name, task="toy") for name in ("<i>", "it")], ignore_index=True)
    diagonal, first, second = reliability(table).data
    assert list(diagonal.x) == list(diagonal.y) == [0, 1]
    np.testing.assert_allclose(first.x, [0.05, 0.25], rtol=1e-6)
    np.testing.assert_allclose(first.y, [0.0, 1.0])
    assert first.marker.size[0] < first.marker.size[1]
    assert first.customdata[:, 0].tolist() == [1, 9]
    assert (first.name, second.name) == ("&lt;i&gt;", "it")
    assert first.marker.symbol != second.marker.symbol and first.marker.color != second.marker.color
    on_two_tasks = pd.concat([bins.assign(prompt="it", task=task) for task in ("toy", "other")], ignore_index=True)
    assert [trace.name for trace in reliability(on_two_tasks).data[1:]] == ["it on toy", "it on other"]


def test_every_group_of_interventions_has_a_colour_and_a_shape_of_its_own():
    assert set(STYLES) == set(get_args(Group)) and len(set(STYLES.values())) == len(STYLES)


def test_every_direction_that_has_energy_and_effect_is_a_mark_in_its_place():
    table = pd.DataFrame(
        {"module": ["a.q", "a.q", "<b>.v", "c.v"], "projection": ["q", "q", "v", "v"], "direction": [0, 1, 0, 0], "energy_share": [0.5, 0.25, 0.25, 0.0], "effect_share": [0.1, 0.9, 0.3, 0.0]}
    )  # fmt: skip
    figure = energy_and_effect(table)
    assert [trace.name for trace in figure.data] == ["q", "v"]
    np.testing.assert_allclose([*figure.data[0].x, *figure.data[1].x], [0.5, 0.25, 0.25], rtol=1e-6)
    np.testing.assert_allclose([*figure.data[0].y, *figure.data[1].y], [0.1, 0.9, 0.3], rtol=1e-6)
    assert figure.data[1].text[0] == "&lt;b&gt;.v, direction 0"
    assert figure.data[0].marker.symbol != figure.data[1].marker.symbol
