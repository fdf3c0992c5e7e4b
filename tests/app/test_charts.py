import numpy as np
import pandas as pd

from app import charts


def neighbours_table() -> pd.DataFrame:
    rows = [
        ("p", 0, 0, 7, " good", 0.9, "centred"),
        ("p", 0, 1, 3, "bad", 0.4, "centred"),
        ("p", 1, 0, 2, "\\n", 0.5, "centred"),
        ("p", 1, 1, 9, "=", 0.1, "centred"),
    ]
    return pd.DataFrame(rows, columns=["prompt", "position", "rank", "token_id", "token", "score", "metric"])


def test_the_heat_map_shows_every_word_where_its_score_is():
    heat_map = charts.neighbours_heat_map(neighbours_table()).data[0]
    np.testing.assert_allclose(heat_map.z, [[0.9, 0.4], [0.5, 0.1]], rtol=1e-6)
    assert heat_map.text.tolist() == [["␣good", "bad"], ["\\n", "="]]
    assert heat_map.colorbar.title.text == "centred"


def test_bars_keep_the_order_of_the_ranks_and_share_a_span():
    figure = charts.score_bars(neighbours_table().query("position == 0"), span=(0.0, 1.0))
    assert list(figure.data[0].y) == ["0: ␣good", "1: bad"]
    assert tuple(figure.layout.xaxis.range) == (0.0, 1.0)


def test_the_loss_curve_has_a_dot_a_step_and_a_running_mean():
    losses = pd.DataFrame({"step": range(1, 16), "loss": np.linspace(3, 1, 15)})
    dots, line = charts.loss_curve(losses, steps=20).data
    assert len(dots.y) == 15
    np.testing.assert_allclose(line.y[-1], losses["loss"].tail(10).sum() / 10)
    assert line.y[0] == 3


def test_score_gains_show_the_interval_and_leave_out_what_was_not_scored():
    runs = pd.DataFrame(
        {
            "name": ["a", "b"],
            "no_prompt": [0.5, None],
            "start": [0.6, None],
            "score": [0.8, None],
            "low": [0.7, None],
            "high": [0.85, None],
        }
    )
    bare, start, prompted = charts.score_gains(runs).data
    assert list(bare.y) == list(start.y) == list(prompted.y) == ["a"]
    np.testing.assert_allclose([prompted.error_x.array[0], prompted.error_x.arrayminus[0]], [0.05, 0.1])


def test_a_token_that_looks_like_markup_is_drawn_as_it_is():
    assert charts.drawn("<b>") == "&lt;b&gt;"
    assert charts.drawn(" </s>") == "␣&lt;/s&gt;"
