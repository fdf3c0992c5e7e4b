"""The page of a report: its figures are those of the tables, nothing of a stranger's becomes markup, and it stands by itself."""

import re
from dataclasses import replace
from html import escape
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from soft_prompt_explorer.analysis.adapters import SoftPrompt, load_lora, load_soft_prompt
from soft_prompt_explorer.analysis.behaviour import kept_lens, kept_translation
from soft_prompt_explorer.analysis.behaviour.asked import behaviour
from soft_prompt_explorer.analysis.behaviour.changes import WHOLE
from soft_prompt_explorer.analysis.behaviour.translation import sentence
from soft_prompt_explorer.analysis.behaviour.verdict import Judged, judge
from soft_prompt_explorer.analysis.core.folders import GALLERY
from soft_prompt_explorer.analysis.loras.ranks import spectra
from soft_prompt_explorer.analysis.models.vocabulary import load_vocabulary
from soft_prompt_explorer.analysis.prompts.directions import direction, task_direction
from soft_prompt_explorer.analysis.prompts.likeness import similarity
from soft_prompt_explorer.analysis.prompts.search import neighbours
from soft_prompt_explorer.analysis.prompts.starts import recover_initial
from soft_prompt_explorer.analysis.prompts.verdicts import readings
from soft_prompt_explorer.analysis.report.page import html, of_lora, of_prompt
from tests.support.places import EMBEDDED
from tests.support.worlds import TOKENS, WIDTH, moved, vocabulary_of_words, world

VOID = {"meta", "br", "hr", "img", "link"}


@pytest.fixture(scope="module")
def vocabulary():
    return vocabulary_of_words()


@pytest.fixture
def prompt(vocabulary):
    return moved(vocabulary, 0.3 * np.random.default_rng(1).standard_normal((TOKENS, WIDTH)))


class Page(HTMLParser):
    """Every element closed by its own end, and the text in cells."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.rows: list[list[str]] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.seen.add(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.add(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data


def test_what_a_run_does_and_what_it_pushes_towards_stand_first_in_the_sentences_of_its_page(vocabulary):
    adapter = load_lora(GALLERY / "sentiment-lora-8")
    text = html([of_lora(adapter)], None)
    does, pushes = sentence(kept_translation.kept_with(adapter)), kept_lens.kept_with(adapter).sentence
    places = [text.index(escape(each, quote=False)[:60]) for each in (does, pushes)]
    assert (
        text.index("What it does")
        < places[0]
        < text.index("What it pushes the model towards")
        < places[1]
        < text.index("Before it is trusted")
    )
    Page(text)


def asked(of, vocabulary):
    table = behaviour(of, vocabulary, world(np.eye(WIDTH)[0], of.initial), direction=task_direction([of], vocabulary))
    read = readings(of, vocabulary)
    shared = task_direction([of], vocabulary)
    return Judged(table, read, shared, judge(read, table, direction=shared, vocabulary=vocabulary))


def test_what_a_page_says_is_what_the_tables_hold(prompt, vocabulary):
    known = asked(prompt, vocabulary)
    text = html([of_prompt(prompt, vocabulary, asked=known)], vocabulary)
    page = Page(text)
    assert text.index(known.verdict.label.capitalize()) < text.index("Each virtual token")
    assert known.verdict.sentence.replace("'", "&#39;") in text
    read = readings(prompt, vocabulary)
    words = neighbours(prompt, vocabulary, top_k=5)
    tokens = [row for row in page.rows if len(row) == 9 and row[0].isdigit()]
    assert len(tokens) == len(read)
    for row, of in zip(tokens, read.itertuples(), strict=True):
        assert row[1].endswith(of.verdict)
        mine = words[words["position"] == of.position]
        assert row[2] == " · ".join(f"␣{token.strip()} {score:.2f}" for token, score in zip(mine["token"], mine["score"], strict=True))
        assert row[3] == ("< 0.001" if of.p_chance < 0.001 else f"{of.p_chance:.3f}")
        assert row[6] == f"{of.drift:.2f}"
    shared = direction([prompt], vocabulary, top_k=10)
    assert f"concentration {shared['concentration'].iloc[0]:.2f}" in text
    made = [row for row in page.rows if len(row) == 8 and row[0] != "intervention"]
    assert len(made) == len(known.table)
    for row, of in zip(made, known.table.itertuples(), strict=True):
        assert row[0].startswith(of.intervention)
        assert row[1] == ("" if pd.isna(of.position) else str(of.position))
        assert float(row[2]) == pytest.approx(of.score, abs=5e-4)
        if of.intervention == WHOLE:
            assert row[3] == row[7] == ""
            continue
        assert float(row[3].replace("−", "-")) == pytest.approx(of.score_change, abs=5e-4)
        low, high = (float(number) for number in row[7].replace("−", "-").split(" to "))
        assert (low, high) == pytest.approx((of.loss_change_low, of.loss_change_high), abs=6e-4)


def test_the_drawing_puts_every_change_in_its_place(prompt, vocabulary):
    known = asked(prompt, vocabulary)
    text = html([of_prompt(prompt, vocabulary, asked=known)], vocabulary)
    rows = known.table[known.table["position"].isna() & (known.table["intervention"] != WHOLE)]
    zero = float(re.search(r'<line x1="([\d.]+)" x2="\1"', text)[1])
    crosses = [float(x) + 5 for x in re.findall(r'<path d="M([\d.]+) ', text)]
    circles = [float(x) for x in re.findall(r'<circle cx="([\d.]+)"', text)]
    random = rows["intervention"].str.startswith("random direction")
    assert len(crosses) == random.sum() > 0 and len(circles) == (~random).sum()
    changes = np.concatenate([rows.loc[random, "score_change"], rows.loc[~random, "score_change"]])
    low = min(0.0, rows["score_change_low"].min())
    scale = 560 / (max(0.0, rows["score_change_high"].max()) - low)
    np.testing.assert_allclose(np.array(crosses + circles) - zero, changes * scale, atol=0.11)


def test_prompts_are_told_apart_and_compared_and_one_that_was_not_asked_says_so(vocabulary):
    rng = np.random.default_rng(3)
    prompts = [moved(vocabulary, 0.3 * rng.standard_normal((TOKENS, WIDTH)), name) for name in ("one", "another")]
    text = html([of_prompt(each, vocabulary) for each in prompts], vocabulary)
    page = Page(text)
    assert text.count("The model has not been asked") == 2
    assert ["one", "another"] in [row[:2] for row in page.rows]
    assert "svg" not in page.seen
    short = [moved(vocabulary, 0.3 * rng.standard_normal((1, WIDTH)), name) for name in ("one", "one")]
    assert "Clusters are looked for among 3" in html([of_prompt(each, vocabulary) for each in short], vocabulary)


def test_prompts_that_started_together_are_said_to_be_alike_for_that(vocabulary):
    """Twelve tokens of two prompts in two heaps, found again and tighter than chance; what is said of them depends on what is known of their start."""
    rng = np.random.default_rng(4)
    heaps = np.concatenate([vocabulary.embeddings[[10] * 6], vocabulary.embeddings[[200] * 6]])
    rows = [(heaps + 0.05 * rng.standard_normal((12, WIDTH))).astype(np.float32) for _ in range(2)]
    said = {}
    for start in (heaps.astype(np.float32), None):
        prompts = [SoftPrompt(name, values, start, None, None, None) for name, values in zip(("one", "another"), rows, strict=True)]
        page = Page(html([of_prompt(each, vocabulary) for each in prompts], vocabulary))
        pair = next(row for row in page.rows if row[:2] == ["one", "another"])
        said[start is None] = pair[-1], {row[-1] for row in page.rows if len(row) == 6 and row[1] == "12"}
        z = similarity(prompts, vocabulary)["z"].iloc[0]
        assert pair[5] == f"{z:+.1f}"
    assert said[False] == ("12 of 12", {"yes, but its tokens lay together from the start"})
    assert said[True] == ("unknown", {"yes, but what its tokens started from is unknown, so it may be an echo"})


def test_what_rests_on_guessed_initial_values_says_so(vocabulary):
    near = SoftPrompt("near", np.array(vocabulary.embeddings[:6]) * np.float32(1.001), None, None, None, None)
    page = html([of_prompt(recover_initial(near, vocabulary), vocabulary)], vocabulary)
    assert "was guessed" in page and "rests on that guess" in page


def test_nothing_of_a_strangers_becomes_markup_and_the_page_fetches_nothing(prompt, vocabulary, tmp_path):
    name = '<script>alert(1)</script><img src=x onerror="alert(2)">'
    np.save(tmp_path / "x.npy", prompt.embeddings)
    hostile = load_soft_prompt(tmp_path / "x.npy", name=name)
    hostile = replace(hostile, base_model="x\ud800\u202e" + "y" * 100_000, notes=("<b>bold</b>",), method="<i>")
    text = html([of_prompt(hostile, vocabulary)], vocabulary)
    assert len(text.encode()) < 40_000 and "\u202e" not in text
    page = Page(text)
    assert not {"b", "i", "script", "img", "link", "iframe", "object", "form"} & page.seen
    assert "&lt;script&gt;" in text
    assert "http" not in text.replace("http-equiv", "")
    assert "default-src 'none'" in text


def test_a_lora_has_its_ranks_and_what_is_wrong_with_it(command, tmp_path):
    path = GALLERY / "capitals-lora-8"
    written = command("report", path, "--out", tmp_path / "lora.html")
    assert written.status == 0, written.err
    page = Page((tmp_path / "lora.html").read_text())
    table = spectra(load_lora(path))
    modules = {row[0]: row for row in page.rows if len(row) == 8}
    for of in table.itertuples():
        assert [float(number) for number in modules[of.module][1:4]] == pytest.approx(
            [of.rank, of.stable_rank, of.effective_rank], abs=6e-3
        )
    grid = [row for row in page.rows if len(row) == 3 and row[0].isdigit()]
    by_place = table.set_index(["layer", "projection"])["effective_rank"]
    assert len(grid) == table["layer"].nunique()
    for layer, q, v in grid:
        assert (float(q), float(v)) == pytest.approx((by_place[int(layer), "q"], by_place[int(layer), "v"]), abs=0.051)


def test_a_prompt_that_ships_is_reported_with_the_verdict_that_is_kept_with_it(command, tmp_path):
    path = GALLERY / "plural-words-1"
    written = command("report", path, "--out", tmp_path / "plural.html")
    assert written.status == 0, written.err
    text = (tmp_path / "plural.html").read_text()
    asked, said = written.err.splitlines()[:2]
    assert (
        asked == "plural-words-1 was asked: ‘Singular: ring⏎Plural:’ → ‘ rings’"
        and f"The first example {asked.removeprefix('plural-words-1 ')}" in text
    )
    sentence = said.removeprefix("plural-words-1: ")
    assert sentence.startswith("On 100 examples of plural: 10 of 10 tokens echo their initialisation")
    assert escape(sentence, quote=False).replace("'", "&#39;") in text
    row = readings(load_soft_prompt(path), load_vocabulary(EMBEDDED)).iloc[3]
    assert next(row for row in Page(text).rows if row[0] == "3")[6] == f"{row['drift']:.2f}"


def test_a_page_that_cannot_be_written_is_refused_before_any_work(command, tmp_path):
    for out, said in ((tmp_path / "report.pdf", "does not end in .html"), (tmp_path / "no" / "report.html", "does not exist")):
        refused = command("report", tmp_path / "none.npy", "--out", out)
        assert refused.status == 2
        assert said in refused.err
    refused = command("report", tmp_path / "none.npy", "--out", tmp_path / "report.html", "--task", "nonsense")
    assert refused.status == 2
    assert "No task is called 'nonsense'" in refused.err


def test_a_lora_whose_modules_share_no_layers_makes_no_endless_table(tmp_path):
    from safetensors.numpy import save_file

    one = np.ones((1, 2), np.float32)
    names = [f"layers.{i}.p{i}" for i in range(200)] + [f"layers.{'9' * 30}.<b>"]
    tensors = {f"base_model.model.{name}.lora_{factor}.weight": one if factor == "A" else one.T for name in names for factor in "AB"}
    save_file({name: np.ascontiguousarray(values) for name, values in tensors.items()}, tmp_path / "x.safetensors")
    text = html([of_lora(load_lora(tmp_path / "x.safetensors"))], None)
    assert "Effective ranks by layer" not in text and len(text) < 100_000
    assert "b" not in Page(text).seen


@pytest.mark.parametrize("lora", [True, False])
def test_a_file_without_layers_or_initial_values_is_reported_too(lora, tmp_path, vocabulary, prompt):
    if lora:
        from safetensors.numpy import save_file

        rng = np.random.default_rng(0)
        shapes = {"base_model.model.head.lora_A.weight": (4, 20), "base_model.model.head.lora_B.weight": (12, 4)}
        save_file({name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}, tmp_path / "x.safetensors")
        text = html([of_lora(load_lora(tmp_path / "x.safetensors"))], None)
        assert "Effective ranks by layer" not in text
    else:
        np.save(tmp_path / "x.npy", prompt.embeddings)
        text = html([of_prompt(load_soft_prompt(tmp_path / "x.npy"), vocabulary)], vocabulary)
        assert "are unknown, so a word near a token may be no more than its start" in text
        assert "displacements share" not in text
    Page(text)
