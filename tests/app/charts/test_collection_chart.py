"""The map of a collection: what it draws of a table."""

import numpy as np
import pandas as pd

from soft_prompt_explorer.app.charts.collection import MOST_GROUPS, OTHERS, collection_map, few_groups


def dots(groups: list[str], **columns) -> pd.DataFrame:
    count = len(groups)
    return pd.DataFrame({"number": np.arange(count), "name": [f"<b>{i}" for i in range(count)], "group": groups, "x": np.linspace(1, 2, count), "y": 1.0}).assign(**columns)  # fmt: skip


def test_each_dot_is_in_the_trace_of_its_group_with_its_number_and_a_colour_and_shape_of_its_own():
    groups = ["a", "b", "a", "c"]
    figure = collection_map(dots(groups), "rank", "length", ["a", "b", "c"])
    traces = {trace.name.split(" ")[0]: trace for trace in figure.data}
    assert {name: list(trace.customdata) for name, trace in traces.items()} == {"a": [0, 2], "b": [1], "c": [3]}
    assert len({trace.marker.color for trace in figure.data}) == len({trace.marker.symbol for trace in figure.data}) == 3
    assert traces["a"].text == ("&lt;b&gt;0", "&lt;b&gt;2")  # a stranger's name is no markup
    assert all(trace.selectedpoints is None for trace in figure.data)


def test_a_selection_stands_out_and_the_rest_of_every_group_does_not():
    figure = collection_map(dots(["a", "b", "a", "b"]), "x", "y", ["a", "b"], selected=[2])
    assert {trace.name.split(" ")[0]: list(trace.selectedpoints) for trace in figure.data} == {"a": [1], "b": []}


def test_a_group_keeps_its_mark_whatever_is_filtered_and_the_rarest_of_many_share_one():
    values = pd.Series([name for i, name in enumerate("abcdefghij") for _ in range(20 - i)])
    few, order = few_groups(values)
    assert order == [*"abcdef", OTHERS] and len(order) == MOST_GROUPS
    assert (few == OTHERS).sum() == values.isin(list("ghij")).sum()
    table = dots(few.tolist())

    def marks(rows: pd.DataFrame) -> dict[str, tuple[str, str]]:
        return {
            trace.name.rpartition(" ")[0]: (trace.marker.color, trace.marker.symbol) for trace in collection_map(rows, "x", "y", order).data
        }

    every, left = marks(table), marks(table[table["group"].isin(["c", "f", OTHERS])])
    assert left == {name: every[name] for name in ("c", "f", OTHERS)} and len(set(every.values())) == MOST_GROUPS


def test_an_axis_is_logarithmic_only_where_positive_values_span_orders_of_magnitude():
    narrow, wide, zero = (dots(["a"] * 3, x=x) for x in ([1.0, 2.0, 90.0], [1.0, 50.0, 1000.0], [0.0, 50.0, 1000.0]))
    assert [collection_map(each, "x", "y", ["a"]).layout.xaxis.type for each in (narrow, wide, zero)] == [None, "log", None]
    assert collection_map(wide, "x", "y", ["a"]).layout.xaxis.title.text == "x (log scale)"
    assert len(collection_map(narrow.head(0), "x", "y", ["a"]).data) == 0
