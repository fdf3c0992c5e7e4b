"""What the lens tells of an adapter, kept with a run: the same after it was written and read, and in one sentence."""

import numpy as np
import pandas as pd
import pytest

from soft_prompt_explorer.analysis.adapters import load_soft_prompt
from soft_prompt_explorer.analysis.adapters.run_file import read_description
from soft_prompt_explorer.analysis.behaviour import beyond_chance as effect
from soft_prompt_explorer.analysis.behaviour import difference_lens as lens
from soft_prompt_explorer.analysis.behaviour.kept_lens import EFFECT, WORDS, Told, kept_with, read, write
from soft_prompt_explorer.analysis.core.folders import GALLERY


def told(*, q=(0.01, 0.02, 0.9), verdict=effect.MORE, against="start", twin_p=(np.nan, np.nan, np.nan)) -> Told:
    rows = [
        ("a", "p", layer, rank, 40 + rank, token, 2.5 - rank, 9.0 - rank, value, np.nan if layer == 4 else 0.5, 1 / twin, twin, against)
        for layer in (4, 30)
        for rank, (token, value, twin) in enumerate(zip((" yes", "NA", ' "quoted", '), q, twin_p, strict=True))
    ]
    row = ("a", "p", 0.5, 0.1, 5.0, 4.0, 6.0, 0.01, verdict)
    return Told(pd.DataFrame(rows, columns=lens.COLUMNS), pd.DataFrame([row], columns=effect.COLUMNS))


def test_what_was_written_is_read_again_without_the_path(tmp_path):
    write(told(), tmp_path)
    again = read(tmp_path)
    pd.testing.assert_frame_equal(again.words, told().words.assign(path=""))
    assert again.effect.drop(columns="path").to_dict("records") == told().effect.drop(columns="path").to_dict("records")


def test_words_that_are_numbers_and_names_that_look_like_nothing_stay_texts(tmp_path):
    numbers = told()._replace(
        words=told().words.assign(token=[" 1", "2", "3"] * 2, adapter="NA"), effect=told().effect.assign(adapter="NA")
    )
    write(numbers, tmp_path)
    assert read(tmp_path).words["token"].tolist() == [" 1", "2", "3"] * 2
    assert read(tmp_path).effect["adapter"].tolist() == ["NA"]


def test_rows_that_are_cut_off_or_out_of_their_place_count_as_nothing(tmp_path):
    write(told(), tmp_path)
    whole = (tmp_path / WORDS).read_text()
    for end in (",", "\n"):  # a cell, or the last row
        (tmp_path / WORDS).write_text(whole[: whole.rstrip().rindex(end)])
        assert read(tmp_path) is None
    (tmp_path / WORDS).write_text(whole.replace(",4,1,", ",4,7,"))
    assert read(tmp_path) is None


@pytest.mark.parametrize("file", [WORDS, EFFECT])
@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"a,b\n1,2\n", None])
def test_what_cannot_be_read_counts_as_nothing(tmp_path, file, content):
    write(told(), tmp_path)
    if content is None:
        (tmp_path / file).unlink()
    else:
        (tmp_path / file).write_bytes(content)
    assert read(tmp_path) is None


def test_the_sentence_names_the_words_that_stand_out_and_no_other():
    assert told().sentence.startswith("It pushes the model towards “yes” and “NA”. a changes more than chance: 5.0 × (4.0 to 6.0)")
    assert told().sentence.endswith("A twin trained on shuffled answers may be pushed there too: that is the form of an answer.")
    assert "no word that stands out" in told(q=(0.5, 0.6, 0.9)).sentence
    nothing = told(verdict=effect.AS_CHANCE).sentence
    assert "as much as chance" in nothing and "yes" not in nothing
    assert "compared with no prompt" in told(against="no prompt").sentence


@pytest.mark.parametrize(
    ("twin_p", "said"),
    [
        ((0.01, 0.02, 0.9), "shuffled answers is pushed there too: that is the form of an answer, and not what was learned."),
        ((0.5, 0.6, 0.01), "shuffled answers is not shown to be pushed there."),
        ((0.5, 0.01, 0.9), "shuffled answers is pushed towards “NA” too: that is the form of an answer."),
    ],
)
def test_the_sentence_tells_what_the_twin_shares(twin_p, said):
    assert told(twin_p=twin_p).sentence.endswith(said)


def test_a_word_that_comes_in_several_spellings_is_named_once_as_it_stands_first():
    words = [" positive", " negative", "positive", "Negative", " Positive", " hope"]
    last = pd.DataFrame(
        [("a", "", 30, rank, rank, token, 1.0, 9.0 - rank, 0.01, 0.5, np.nan, np.nan, "start") for rank, token in enumerate(words)],
        columns=lens.COLUMNS,
    )
    assert told()._replace(words=last).sentence.startswith("It pushes the model towards “positive”, “negative” and “hope”.")


def test_what_lies_in_a_strangers_folder_is_not_believed(tmp_path):
    import shutil

    folder = shutil.copytree(GALLERY / "plural-words-1", tmp_path / "plural-words-1")
    write(told(), folder)
    assert kept_with(load_soft_prompt(folder)) is None


def test_every_adapter_of_the_gallery_that_beats_no_prompt_is_said_to_change_more_than_chance():
    asked = 0
    for folder in sorted(path.parent for path in GALLERY.glob("*/run.json")):
        scores = read_description(folder)["scores"]
        told = read(folder)
        assert told is not None, folder.name
        if scores["trained"]["low"] > scores["no prompt"]["high"]:
            asked += 1
            assert effect.is_beyond_chance(told.effect).all(), folder.name
    assert asked >= 20
