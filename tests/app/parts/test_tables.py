"""Tables on pages: columns in words, modules by their place."""

import json

import pandas as pd
import pyarrow as pa
from streamlit.testing.v1 import AppTest

from soft_prompt_explorer.analysis.loras.ranks import COLUMNS
from soft_prompt_explorer.app.charts.columns import in_words
from soft_prompt_explorer.app.parts.tables import modules_in_words
from tests.support.waiting import PATIENCE


def test_no_column_has_an_underscore_on_the_screen_and_what_the_page_says_of_one_stays():
    def page():
        import pandas as pd
        import streamlit as st

        from soft_prompt_explorer.app.parts.tables import show_table

        table = pd.DataFrame({"score_change": [0.5], "effective_rank": [1.5], "drift": [2.0]})
        show_table(
            table,
            alt="A test.",
            column_config={"drift": st.column_config.NumberColumn("moved"), "score_change": st.column_config.NumberColumn(format="%.2f")},
        )

    shown = AppTest.from_function(page, default_timeout=PATIENCE).run()
    assert not shown.exception
    columns = json.loads(shown.dataframe[0].proto.columns)
    assert {name: column.get("label") for name, column in columns.items() if not name.startswith("_")} == {
        "score_change": "score changed by",
        "effective_rank": "effective rank",
        "drift": "moved",
    }
    assert columns["score_change"]["type_config"]["format"] == "%.2f"
    assert shown.dataframe[0].proto.alt == "A test."
    assert columns["_index"]["hidden"]


def test_chances_are_told_as_in_sentences_and_stay_numbers():
    def page():
        import numpy as np
        import pandas as pd

        from soft_prompt_explorer.app.parts.tables import show_table

        table = pd.DataFrame(
            {
                "token": ["a", None, "c"],
                "p": [0.0002, 0.0124, np.nan],
                "twin_p": [1.0, 0.0, 0.5],
                "z": [1234.5, 0.25, np.nan],
                "n": [1, 2, 3],
            }
        )
        show_table(table, alt="Chances.", first=["p"])
        show_table(pd.DataFrame({"stop": [0.0001]}), alt="None.")

    shown = AppTest.from_function(page, default_timeout=PATIENCE).run()
    assert not shown.exception
    chances, none = shown.dataframe
    told = pa.ipc.open_stream(chances.proto.arrow_data.styler.display_values).read_pandas()
    assert told["p"].tolist() == ["< 0.001", "0.012", "–"]
    assert told["twin_p"].tolist() == ["1.000", "< 0.001", "0.500"]
    assert told["z"].tolist() == ["1234.5", "0.25", "–"]
    assert told["token"].tolist() == ["a", "–", "c"] and told["n"].tolist() == ["1", "2", "3"]
    assert chances.value["p"].tolist()[:2] == [0.0002, 0.0124]
    assert not none.proto.arrow_data.HasField("styler")


def test_eight_columns_are_shown_and_a_line_says_where_the_others_are():
    def page():
        import pandas as pd
        import streamlit as st

        from soft_prompt_explorer.app.parts.tables import show_table

        table = pd.DataFrame({f"c{i}": [i] for i in range(12)})
        show_table(table, alt="Twelve.", first=["c11", "c3"], column_config={"c0": None, "c4": st.column_config.NumberColumn("four")})
        show_table(table, alt="All.", most=None)
        show_table(table.iloc[:, :9], alt="Nine.")

    shown = AppTest.from_function(page, default_timeout=PATIENCE).run()
    assert not shown.exception
    twelve, whole, nine = (json.loads(each.proto.columns) for each in shown.dataframe)
    assert [name for name, column in twelve.items() if name.startswith("c") and column.get("hidden")] == ["c0", "c8", "c9", "c10"]
    assert list(shown.dataframe[0].proto.column_order) == ["c11", "c3", "c1", "c2", "c4", "c5", "c6", "c7", "c8", "c9", "c10"]
    assert not any(column.get("hidden") for table in (whole, nine) for name, column in table.items() if name.startswith("c"))
    assert [caption.value for caption in shown.caption] == ["3 more columns: :material/visibility: above the table shows them."]


def test_the_columns_of_a_lora_are_words():
    assert not [name for name in COLUMNS if "_" in in_words(name)]
    assert in_words("rank_95") == "ranks for 95 %"


def test_modules_are_called_by_their_place_and_by_their_path_where_that_is_not_theirs_alone():
    paths = ["model.layers.0.self_attn.q_proj", "model.layers.0.mlp.experts.0.down_proj", "model.layers.0.mlp.experts.1.down_proj", "head"]
    assert modules_in_words(paths) == dict(zip(paths, ["layer 0, q", *paths[1:]], strict=True))
    assert modules_in_words(pd.Series(paths[:2])) == {paths[0]: "layer 0, q", paths[1]: "layer 0, down"}
