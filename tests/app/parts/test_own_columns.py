"""A table of a person's own to colour the map by."""

import numpy as np
import pandas as pd
import pytest

from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.app.parts.own_columns import read_own, with_own

TOKENS = pd.DataFrame({"prompt": ["a", "a", "b", "b", "c"], "position": [0, 1, 0, 1, 0], "norm": 1.0}, index=[10, 11, 12, 13, 14])


def test_a_row_a_prompt_is_told_of_all_its_tokens_and_a_row_a_token_of_that_one():
    of_prompts = with_own(TOKENS, read_own(b"prompt,team,loss\nb,red,2\na,blue,0.5\nunheard,green,7\n"))
    assert of_prompts["team"].tolist() == ["blue", "blue", "red", "red", "unknown"]
    np.testing.assert_array_equal(of_prompts["loss"], [0.5, 0.5, 2, 2, np.nan])
    of_tokens = with_own(TOKENS, read_own(b"prompt,position,kind,good\na,1,7,True\nb,0,3,False\n"))
    np.testing.assert_array_equal(of_tokens["kind"], [np.nan, 7, 3, np.nan, np.nan])
    assert of_tokens["good"].tolist() == ["unknown", "True", "False", "unknown", "unknown"]
    for joined in (of_prompts, of_tokens):
        assert joined.index.tolist() == TOKENS.index.tolist() and joined["norm"].eq(1).all()


def test_a_prompt_that_is_called_like_a_number_is_found():
    tokens = pd.DataFrame({"prompt": ["007"], "position": [0]})
    assert with_own(tokens, read_own(b"prompt,x\n007,5\n"))["x"].tolist() == [5.0]


def test_a_comma_too_many_shifts_nothing_and_a_prompt_may_be_called_na():
    tokens = pd.DataFrame({"prompt": ["NA", "b"], "position": [0, 0]})
    assert with_own(tokens, read_own(b"prompt,x\nNA,1,\nb,2,\n"))["x"].tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "cannot be read as a CSV"),
        (b"\xff\xfe\x00", "cannot be read as a CSV"),
        (b"name,x\na,1\n", "needs a column prompt"),
        (b"prompt,position\na,1\n", "another one to colour by"),
        (b"prompt,norm\na,1\n", "has a column norm itself"),
        (b"prompt,position,x\na,first,1\n", "number of each token, from 0"),
        (b"prompt,x\na,1\nb,1\na,2\n", "two things of a;"),
        (b"prompt,position,x\na,0,1\na,0,2\n", "two things of a and token 0;"),
        (b"prompt," + b",".join(b"c%d" % i for i in range(9)) + b"\na" + 9 * b",1" + b"\n", "9 columns to colour by; 8 are the most"),
    ],
)
def test_what_is_no_such_table_is_refused_in_one_sentence(content, sentence):
    with pytest.raises(InputError, match=sentence):
        read_own(content)
