"""A figure is the table drawn: every word of it as text, every interval in its place, and where it comes from in the file."""

import json
import re
import xml.etree.ElementTree as ET
import zlib

import numpy as np
import pandas as pd
import pytest

from soft_prompt_explorer.analysis.behaviour import kept_translation
from soft_prompt_explorer.analysis.behaviour.translation import told_in_a_figure
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.core.folders import GALLERY
from soft_prompt_explorer.analysis.core.provenance import Provenance
from soft_prompt_explorer.analysis.figures import charts
from soft_prompt_explorer.analysis.figures.drawing import form_of, width_of, word, written
from soft_prompt_explorer.analysis.prompts.likeness import matrix, tree
from soft_prompt_explorer.analysis.prompts.projection import VocabularyMap

SVG = "{http://www.w3.org/2000/svg}"
DESCRIPTION = "{http://purl.org/dc/elements/1.1/}description"
MADE = Provenance("spe figure x.npy", (("x (1).npy", "ab" * 32),), {"toy": lambda: {"sha256": "cd" * 32}})


def svg_of(figure) -> ET.Element:
    return ET.fromstring(written(figure, "svg", MADE))


def texts(figure) -> list[str]:
    return ["".join(each.itertext()) for each in svg_of(figure).iter(f"{SVG}text")]


def readings(**columns) -> pd.DataFrame:
    table = pd.DataFrame(
        {
            "prompt": "toy",
            "position": range(4),
            "nearest_token": [" word", "$x^2$", "中文", "<b>"],
            "score": [0.9, 0.5, 0.3, 0.2],
            "initial_token": [" word", None, "a", "b"],
            "verdict": ["echo (from the config's text)", "moved along a word", "near a word", "unreadable"],
        }
    )
    return table.assign(**columns)


def test_every_token_stands_in_its_figure_as_text_whatever_it_holds():
    found = texts(charts.verdicts(readings()))
    assert {"0  ␣word", "1  $x^2$", "2  \\u4e2d\\u6587", "3  <b>", "from ␣word", "from a", "from b"} <= set(found)
    assert {"echo", "moved along a word", "near a word", "unreadable"} <= set(found)
    assert "never trained" not in found  # no token is


def test_tokens_of_several_prompts_are_told_apart():
    both = pd.concat([readings(), readings(prompt="other")], ignore_index=True)
    assert {"toy 0  ␣word", "other 0  ␣word"} <= set(texts(charts.verdicts(both)))


def test_the_dots_lie_where_the_scores_are():
    figure = charts.verdicts(readings())
    (axes,) = figure.axes
    dots = np.concatenate([each.get_offsets() for each in axes.collections])
    assert sorted(map(tuple, dots.round(6).tolist())) == [(0.2, 3.0), (0.3, 2.0), (0.5, 1.0), (0.9, 0.0)]


def test_interventions_have_their_intervals_and_no_single_tokens():
    table = pd.read_csv(GALLERY / "plural-words-1" / "behaviour.csv")
    figure = charts.interventions(table)
    (axes,) = figure.axes
    whole = table[table["position"].isna() & (table["intervention"] != "whole prompt")]
    lines = [segment for each in axes.collections if hasattr(each, "get_segments") for segment in each.get_segments()]
    drawn = {(round(float(a[0]), 9), round(float(b[0]), 9)) for a, b in lines}
    assert len(lines) == len(whole)
    assert drawn == {
        (round(low, 9), round(high, 9)) for low, high in zip(whole["score_change_low"], whole["score_change_high"], strict=True)
    }
    assert len(axes.get_yticks()) == len(whole) < len(table) - 1


def test_a_spectrum_has_a_panel_a_projection_and_a_line_a_module():
    rows = [
        (f"layers.{layer}.{projection}_proj", projection, rank, 2.0**-rank) for layer in range(3) for projection in "qv" for rank in (1, 2)
    ]
    table = pd.DataFrame(rows, columns=["module", "projection", "rank", "value"])
    figure = charts.spectrum(table)
    assert [axes.get_title() for axes in figure.axes] == ["q", "v"]
    assert [len(axes.lines) for axes in figure.axes] == [3, 3]
    assert figure.axes[0].lines[0].get_ydata().tolist() == [0.5, 0.25]
    assert not any("mathdefault" in text for text in texts(figure))


def test_the_lens_draws_the_last_layer_alone_and_marks_what_is_beyond_chance():
    table = pd.DataFrame(
        {
            "layer": [4, 30, 30],
            "rank": [0, 0, 1],
            "token": ["early", " late", "weak"],
            "z": [9.0, 5.0, 1.0],
            "q": [0.01, 0.04, 0.06],
            "twin_z": np.nan,
        }
    )
    figure = charts.lens(table)
    found = texts(figure)
    assert {"★ ␣late", "weak"} <= set(found) and not any("early" in text for text in found)
    assert [bar.get_width() for bar in figure.axes[0].patches] == [5.0, 1.0]
    assert not figure.axes[0].collections
    (twin,) = charts.lens(table.assign(twin_z=[8.0, 4.0, 0.5])).axes[0].collections
    assert twin.get_offsets().tolist() == [[4.0, 0.0], [0.5, 1.0]]


def test_a_map_keeps_its_words_an_image_and_its_tokens_text():
    places = np.random.default_rng(0).normal(size=(20_000, 2)).astype(np.float32)
    on = VocabularyMap("pca", np.arange(20_000), places, 0.8, np.zeros(2), np.eye(2))
    signs = pd.DataFrame({"token": [" sign"], "x": [0.0], "y": [0.0]})
    tokens = pd.DataFrame(
        {"prompt": "toy", "x": [1.0, 2.0], "y": [0.5, 0.5], "position": [0, 1], "verdict": ["moved along a word", "unreadable"]}
    )
    content = written(charts.token_map(on, signs, tokens), "svg", MADE)
    assert len(content) < 600_000  # 20,000 points one by one are more than two megabytes
    assert {"sign", "0", "1", "moved along a word", "unreadable"} <= {
        "".join(each.itertext()) for each in ET.fromstring(content).iter(f"{SVG}text")
    }
    two = pd.concat([tokens, tokens.assign(prompt="$other$")], ignore_index=True)
    found = texts(charts.token_map(on, signs, two))
    assert {"a0", "a1", "b0", "b1", "a  toy", "b  $other$"} <= set(found)
    many = texts(charts.token_map(on, signs, pd.concat([two] * 30, ignore_index=True)))
    assert {"moved along a word", "unreadable"} <= set(many) and not {"a0", "0", "a  toy"} & set(
        many
    )  # so many labels would hide one another


def test_the_words_of_every_layer_stand_in_its_row_with_ranks_that_count_from_0():
    rows = [(layer, rank, f" w{layer}{rank}", layer + rank / 10) for layer in (4, 8, 30) for rank in range(7)]
    table = pd.DataFrame(rows, columns=["layer", "rank", "token", "z"])
    figure = charts.lens_by_layer(table)
    found = set(texts(figure))
    assert {f"␣w{layer}{rank}" for layer in (4, 8, 30) for rank in range(5)} <= found and not {"␣w45", "␣w306"} & found
    assert {"layer 4", "layer 8", "layer 30", "rank 0", "rank 4"} <= found and "rank 5" not in found
    assert figure.axes[0].images[0].get_array()[2].tolist() == pytest.approx([30.0, 30.1, 30.2, 30.3, 30.4])


def test_a_direction_has_a_bar_a_word_and_the_tested_ones_are_marked():
    table = pd.DataFrame({"rank": [0, 1, 20_000], "token_id": [7, 8, 9], "token": [" near", " next", " asked"], "score": [0.3, 0.2, -0.1]})
    figure = charts.direction(table, {9})
    assert {"0  ␣near", "1  ␣next", "★ 20,000  ␣asked"} <= set(texts(figure))
    bars = figure.axes[0].patches
    assert [bar.get_width() for bar in bars] == [0.3, 0.2, -0.1]
    assert bars[0].get_facecolor() == bars[1].get_facecolor() != bars[2].get_facecolor()


def test_shares_have_their_intervals_and_the_line_where_the_controls_end():
    table = kept_translation.read(GALLERY / "plural-words-1")
    figure = charts.shares(table)
    told = told_in_a_figure(table)
    (axes,) = figure.axes
    lines = [segment for each in axes.collections if hasattr(each, "get_segments") for segment in each.get_segments()]
    drawn = {(round(float(a[0]), 9), round(float(b[0]), 9)) for a, b in lines}
    assert drawn == {(round(low, 9), round(high, 9)) for low, high in zip(told["share_low"], told["share_high"], strict=True)}
    ends = table.loc[table["candidate"].str.startswith("control: "), "share_high"].max()
    assert sorted(line.get_xdata()[0] for line in axes.lines) == pytest.approx(sorted([0.0, ends]))
    assert {"the text that was chosen", "other texts", "controls"} <= set(texts(figure))


@pytest.mark.parametrize("level", [None, 2.0])
def test_alike_prompts_stand_side_by_side_in_the_matrix(level):
    names = ["a", "b", "c"]
    pairs = pd.DataFrame(
        {"prompt_a": ["a", "a", "b"], "prompt_b": ["b", "c", "c"], "matched_cosine": [0.1, 0.9, 0.2], "z": [-1.0, 5.0, np.nan]}
    )
    pairs = pairs.assign(pooled_cosine=0.0, mean_cosine=0.0, cka=0.0, principal_angle_mean=0.0)
    measure = "matched_cosine" if level is None else "z"
    figure = charts.similarity(matrix(pairs, measure, names), tree(pairs, names), measure, level)
    order = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert abs(order.index("a") - order.index("c")) == 1
    found = texts(figure)
    assert found.count("0.90" if level is None else "5.0") == 2
    assert len(figure.axes[1].lines) == 2  # two joins of three leaves


def test_the_losses_are_dots_of_the_first_run_and_a_line_of_each():
    table = pd.concat(
        [
            pd.DataFrame({"run": run, "step": range(1, 21), "loss": np.linspace(first, 0.5, 20)})
            for run, first in (("one", 3.0), ("$b$", 2.0))
        ]
    )
    figure = charts.losses(table)
    (axes,) = figure.axes
    (dots,) = axes.collections
    assert dots.get_offsets()[:, 1].tolist() == pytest.approx(np.linspace(3.0, 0.5, 20).tolist())
    assert [line.get_ydata()[-1] for line in axes.lines] == pytest.approx(
        [np.linspace(first, 0.5, 20)[-10:].mean() for first in (3.0, 2.0)]
    )
    assert {"each step", "one", "$b$"} <= set(texts(figure))


def test_both_files_say_where_they_come_from():
    figure = charts.verdicts(readings())
    (described,) = svg_of(figure).iter(DESCRIPTION)
    pdf = written(figure, "pdf", MADE)
    keywords = re.search(rb"/Keywords \((.*?[^\\])\)", pdf, re.S)[1]
    in_pdf = re.sub(rb"\\([()\\])", rb"\1", keywords).decode("ascii")
    for told in map(json.loads, (described.text, in_pdf)):
        assert told["command"] == "spe figure x.npy"
        assert told["files"] == [{"name": "x (1).npy", "sha256": "ab" * 32}]
        assert told["models"] == [{"name": "toy", "sha256": "cd" * 32}]


def test_text_in_a_pdf_is_text_in_an_embedded_font():
    pdf = written(charts.verdicts(readings()), "pdf", MADE)
    assert b"/FontFile2" in pdf and b"/Subtype /Type3" not in pdf
    pages = b"".join(_inflated(pdf))
    shown = b"".join(re.findall(rb"\((.*?)\)", pages))  # kerning cuts words into several strings
    assert all(name.encode("utf-16-be") in shown for name in ("echo", "moved along a word", "unreadable"))


def _inflated(pdf: bytes):
    for match in re.finditer(rb"stream\r?\n(.*?)\r?\nendstream", pdf, re.S):
        try:
            yield zlib.decompress(match[1])
        except zlib.error:
            continue


@pytest.mark.parametrize("form", ["pdf", "svg"])
def test_the_same_figure_is_the_same_file_but_for_its_date(form):
    def without_date(content: bytes) -> bytes:
        return re.sub(rb"20\d\d-\d\d-\d\dT[\d:+]+", b"", content)

    assert without_date(written(charts.verdicts(readings()), form, MADE)) == without_date(written(charts.verdicts(readings()), form, MADE))


def test_a_width_is_in_the_file_as_it_was_asked_for():
    svg = svg_of(charts.verdicts(readings(), width=width_of("100mm")))
    assert float(svg.get("width").removesuffix("pt")) == pytest.approx(100 / 25.4 * 72, abs=0.01)


@pytest.mark.parametrize(("text", "width"), [("85mm", 85.0), ("8.5 cm", 85.0), ("3.35in", 85.09)])
def test_a_width_has_a_unit(text, width):
    assert width_of(text) == pytest.approx(width)


@pytest.mark.parametrize("text", ["85", "mm", "-85mm", "1mm", "5000mm", "85px", "1e3mm", ""])
def test_another_width_is_refused_in_a_sentence(text):
    with pytest.raises(InputError, match="for instance 85mm"):
        width_of(text)


def test_only_two_endings_are_known(tmp_path):
    assert form_of(tmp_path / "a.PDF") == "pdf"
    with pytest.raises(InputError, match=r"\.pdf or \.svg"):
        form_of(tmp_path / "a.png")


def test_a_figure_that_nobody_can_print_is_refused():
    with pytest.raises(InputError, match="m tall"):
        charts.verdicts(pd.concat([readings()] * 200, ignore_index=True))


def test_a_word_keeps_the_space_that_starts_it():
    assert word(" été") == "␣été"


def test_score_by_size_has_a_line_a_way_with_its_intervals_and_leaves_out_what_has_no_score():
    rows = [(model, parameters, way, score, score - 0.1, score + 0.05)
            for model, parameters, scores in (("small", 1e8, {"zero-shot": 0.2, "LoRA": 0.6}), ("large", 1e9, {"zero-shot": 0.5, "LoRA": np.nan}))
            for way, score in scores.items()]  # fmt: skip
    table = pd.DataFrame(rows, columns=["model", "parameters", "way", "score", "low", "high"]).assign(
        least=[0.2, 0.1, 0.5, np.nan], most=[0.2, 0.9, 0.5, np.nan]
    )
    figure = charts.score_by_size({"plural": table, "mean": table[table["way"] == "zero-shot"]}, "exact match")
    assert {"plural", "mean", "zero-shot", "LoRA", "100 M", "1,000 M", "exact match", "parameters of the model"} <= set(texts(figure))
    lines, bars = zip(*((drawn[0], drawn[2][0]) for drawn in figure.axes[0].containers), strict=True)
    assert [line.get_ydata().tolist() for line in lines] == [[0.2, 0.5], [0.6]]
    for bar, expected in zip(bars, ([[0.1, 0.25], [0.4, 0.55]], [[0.5, 0.65]]), strict=True):
        np.testing.assert_allclose(np.array(bar.get_segments())[:, :, 1], expected)
    assert len(figure.axes[1].containers) == 1
    seeds = [line.get_ydata().tolist() for line in figure.axes[0].lines if line.get_markerfacecolor() == "white"]
    assert seeds == [[0.1, 0.9]] and not any(line.get_markerfacecolor() == "white" for line in figure.axes[1].lines)
