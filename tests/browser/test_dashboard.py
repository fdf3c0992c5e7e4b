"""The dashboard as a person uses it: the real pages, the real model, a real browser."""

import io
import json
import pickle
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from playwright.sync_api import expect
from safetensors.torch import save_file

from soft_prompt_explorer.analysis.core.folders import GALLERY
from tests.support.chromium import calm, download, loaded, upload, window
from tests.support.commands import command_line_csv
from tests.support.places import REPOSITORY
from tests.support.provenances import content_of, lasting
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow


def test_a_person_reads_trains_watches_opens_and_exports(page, runs_folder):
    page.goto("/")
    loaded(page)
    expect(page.get_by_role("heading", name="A soft prompt works. Can you read it?")).to_be_visible()
    page.get_by_role("link", name="One that ships: past tense").click()
    expect(page.get_by_role("heading", name="past-tense-words-1", level=1)).to_be_visible()
    loaded(page)
    expect(page.locator(".rows .mark").first).to_be_visible()

    page.goto("/train?task=plural&steps=4&tokens=4&every=4&limit=10&beside=sentiment-words-1")
    loaded(page)
    expect(page.get_by_text("2,304 parameters learn")).to_be_visible()
    page.get_by_role("textbox", name="Name").fill("browser-run")
    page.get_by_role("textbox", name="Name").press("Tab")
    loaded(page)
    page.get_by_role("button", name="Train", exact=True).click()
    expect(page.get_by_role("heading", name="browser-run")).to_be_visible()
    expect(page).to_have_url(re.compile("job="))
    loaded(page)
    link = page.url
    page.reload()  # the job is the server's: it goes on
    expect(page.get_by_text("Saved as browser-run.")).to_be_visible()
    expect(page).to_have_url(link)
    loaded(page)
    curve = page.locator(".js-plotly-plot").first
    expect(curve).to_be_visible()
    wait_until(lambda: curve.evaluate("plot => plot.data[0].x.length ?? plot._fullData[0]._length") == 4)
    assert curve.evaluate("plot => plot.data[2].name") == "sentiment-words-1"
    expect(page.get_by_text(re.compile(r"Score on \d+ training examples set aside"))).to_be_visible()
    expect(page.get_by_text("Verdicts after step 4")).to_be_visible()
    losses = pd.read_csv(io.BytesIO(download(page, "CSV", "browser-run-losses"))).set_index("run")
    shipped = pd.read_csv(GALLERY / "sentiment-words-1" / "losses.csv")
    assert losses.loc["sentiment-words-1", "loss"].tolist() == pytest.approx(shipped["loss"].tolist())
    assert losses.loc["browser-run", "validation"].notna().tolist() == [False, False, False, True]
    assert (runs_folder / "browser-run" / "adapter_model.safetensors").is_file()

    page.get_by_role("button", name="Read it", exact=True).click()
    expect(page.get_by_role("heading", name="browser-run", level=1)).to_be_visible()
    expect(page).to_have_url(re.compile("prompt=browser-run"))
    calm(page)
    page.get_by_role("tab", name="Tokens").click()
    expect(page.get_by_role("heading", name="All tokens")).to_be_visible()
    assert download(page, "CSV", "neighbours") == command_line_csv("neighbours", str(runs_folder / "browser-run"), "--top-k", "8")


def test_every_export_of_a_shipped_prompt_is_the_command_lines(page, tmp_path):
    page.goto("/prompt?prompt=sentiment-words-1&tab=Tokens&metric=euclidean&k=5")
    loaded(page)
    shipped = str(REPOSITORY / "trained_prompts" / "gallery" / "sentiment-words-1")
    for label, ending in (("CSV", "csv"), ("Parquet", "parquet"), ("JSON", "json"), ("Markdown", "md")):
        out = tmp_path / f"table.{ending}"
        arguments = ["neighbours", shipped, "--metric", "euclidean", "--top-k", "5", "--out", str(out)]
        subprocess.run([sys.executable, "-m", "analysis", *arguments], cwd=REPOSITORY, check=True, stderr=subprocess.DEVNULL)
        assert content_of(ending, download(page, label, "neighbours")) == content_of(ending, out.read_bytes()), label
    of_page, beside = (
        json.loads(download(page, "Provenance", "neighbours")),
        json.loads((tmp_path / "table.csv.provenance.json").read_bytes()),
    )
    assert of_page["command"] == "dashboard" and lasting(of_page) == lasting(beside)
    figure = tmp_path / "verdicts.svg"
    subprocess.run([sys.executable, "-m", "analysis", "figure", "verdicts", shipped, "--out", str(figure)], cwd=REPOSITORY, check=True)
    drawn = [
        re.sub(rb"<dc:description>.*?</dc:description>", b"", each) for each in (download(page, "SVG", "verdicts"), figure.read_bytes())
    ]
    assert drawn[0] == drawn[1]


def test_a_link_restores_the_settings_and_a_change_is_in_the_link(page):
    page.goto("/prompt?prompt=sentiment-words-1&tab=Tokens&metric=dot&k=3")
    calm(page)
    page.locator("summary", has_text="Heat map and all rows").press("Enter")
    expect(page.get_by_text("rank (0 is nearest)")).to_be_visible()
    page.get_by_role("button", name="Settings").click()
    page.get_by_role("combobox", name="Metric").click()
    page.get_by_role("option", name="cosine", exact=True).click()
    expect(page).to_have_url(re.compile(r"k=3.*metric=cosine|metric=cosine.*k=3"))
    loaded(page)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b"plain text, not a prompt", "neither a NumPy array"),
        (b"\x93NUMPY\x01\x00", "cannot be read"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n", "run git lfs pull"),
        (pickle.dumps(print), "refuses"),
    ],
)
def test_a_file_that_is_no_prompt_gets_a_sentence_and_loses_nothing(page, content, says):
    upload(page, {"name": "mine.npy", "mimeType": "application/octet-stream", "buffer": content})
    expect(page.get_by_text(says)).to_be_visible()
    expect(page.get_by_role("heading", name="Library")).to_be_visible()
    loaded(page)


def test_a_persons_own_file_is_opened_with_a_receipt_and_read(page, embedded_vocabulary, tmp_path):
    good = embedded_vocabulary.tokens.index(" good")
    np.save(tmp_path / "planted.npy", np.array(embedded_vocabulary.embeddings[[good, good + 1]]))
    page.goto("/")
    loaded(page)
    page.get_by_role("link", name="Open a file").click()
    expect(page.get_by_role("heading", name="Library")).to_be_visible()
    loaded(page)
    page.locator('input[type="file"]').set_input_files(tmp_path / "planted.npy")
    expect(page.get_by_text("planted: Soft prompt, 2 virtual tokens, 576 wide")).to_be_visible()
    expect(page.get_by_role("heading", name="What was checked")).to_be_visible()
    page.get_by_role("button", name="Read this prompt").click()
    expect(page.get_by_role("heading", name="planted (your file)", level=1)).to_be_visible()
    calm(page)
    page.get_by_role("tab", name="Tokens").click()
    expect(page.get_by_text("The initial values of this prompt are unknown")).to_be_visible()
    nearest = pd.read_csv(io.BytesIO(download(page, "CSV", "neighbours"))).iloc[0]
    assert (nearest["prompt"], nearest["token_id"], nearest["token"]) == ("planted", good, " good")
    assert nearest["score"] == pytest.approx(1.0)


def test_a_prompt_of_another_width_gets_a_sentence(page, tmp_path):
    np.save(tmp_path / "wide.npy", np.ones((3, 768), dtype=np.float32))
    upload(page, tmp_path / "wide.npy")
    page.get_by_role("button", name="Read this prompt").click()
    expect(page.get_by_text("This prompt is 768 wide")).to_be_visible()
    expect(page.get_by_text("--model")).to_have_count(0)  # a page names its own fields


def test_the_two_files_of_an_encoder_decoder_are_one_prompt_of_two_parts_that_can_be_kept(page, runs_folder, tmp_path):
    for half in ("encoder", "decoder"):
        torch.save(torch.randn(4, 576), tmp_path / f"{half}.pt")
    upload(page, tmp_path / "decoder.pt", tmp_path / "encoder.pt")
    expect(page.get_by_text("uploaded: Soft prompt, 8 virtual tokens")).to_be_visible()
    expect(page.get_by_text("tokens 4 to 7 are the decoder's")).to_be_visible()
    page.get_by_role("button", name="Keep it").click()
    page.get_by_role("textbox", name="Name").fill("kept-pair")
    page.get_by_role("textbox", name="Name").press("Tab")
    page.get_by_role("button", name="Keep", exact=True).click()
    expect(page.get_by_text("Kept as kept-pair.")).to_be_visible()
    assert (runs_folder / "kept-pair" / "decoder.pt").read_bytes() == (tmp_path / "decoder.pt").read_bytes()
    page.goto("/prompt?prompt=kept-pair&tab=Tokens&k=3")
    calm(page)
    page.get_by_role("radio", name="decoder").click()
    expect(page.get_by_text("kept-pair (decoder): encoder and decoder")).to_be_visible()  # the line that says where the figures come from
    loaded(page)
    assert pd.read_csv(io.BytesIO(download(page, "CSV", "neighbours")))["prompt"].unique().tolist() == ["kept-pair (decoder)"]


def test_the_files_of_a_lora_are_listed_by_module(page, tmp_path):
    factors = {
        f"lora_unet_block_{i}.{part}.weight": torch.randn(*shape)
        for i in range(3)
        for part, shape in (("lora_down", (2, 6)), ("lora_up", (5, 2)))
    }
    save_file(factors, tmp_path / "style.safetensors")
    upload(page, tmp_path / "style.safetensors")
    expect(page.get_by_text("style: LoRA, 3 modules")).to_be_visible()
    expect(page.get_by_text("alpha is not in the file for 3 modules")).to_be_visible()
    table = pd.read_csv(io.BytesIO(download(page, "CSV")))
    assert table["module"].tolist() == [f"lora_unet_block_{i}" for i in range(3)]
    assert table[["rank", "out_features", "in_features"]].to_numpy().tolist() == [[2, 5, 6]] * 3


def test_a_path_is_opened_in_the_folders_that_were_allowed_and_nowhere_else(page, allowed_folder):
    np.save(allowed_folder / "by-path.npy", np.ones((3, 8), dtype=np.float32))
    page.goto("/library?tab=Open+a+file&path=by-path.npy")
    loaded(page)
    expect(page.get_by_text("by-path: Soft prompt, 3 virtual tokens, 8 wide")).to_be_visible()
    page.goto("/library?tab=Open+a+file&path=/etc/hostname")
    loaded(page)
    expect(page.get_by_text("that may be opened")).to_be_visible()


def test_one_persons_stopped_training_does_not_disturb_another_persons_page_and_goes_on_when_asked(page, chromium, dashboard, runs_folder):
    page.goto("/train?task=capitals&steps=2000&tokens=3")
    loaded(page)
    page.get_by_role("textbox", name="Name").fill("stopped-run")
    page.get_by_role("textbox", name="Name").press("Tab")
    loaded(page)
    page.get_by_role("button", name="Train", exact=True).click()
    expect(page.get_by_text("left, then the scores")).to_be_visible()

    context = window(chromium, dashboard, width=800)
    other = context.new_page()
    other.goto("/prompt?prompt=sentiment-words-1&tab=Tokens&k=4")
    loaded(other)
    page.get_by_role("button", name="Stop", exact=True).click()
    expect(page.get_by_text("not among your runs yet")).to_be_visible()
    expect(other.get_by_role("heading", name="All tokens")).to_be_visible()
    expect(other.get_by_test_id("stAlertContentError")).to_have_count(0)
    context.close()
    assert not (runs_folder / "stopped-run").exists()

    page.goto("/train")
    loaded(page)
    page.get_by_role("link", name="stopped-run: stopped, not saved").click()
    page.get_by_role("button", name="Resume", exact=True).click()
    expect(page.get_by_text("left, then the scores")).to_be_visible()
    page.get_by_role("button", name="Stop", exact=True).click()
    expect(page.get_by_text("not among your runs yet")).to_be_visible()
    page.get_by_role("button", name="Discard", exact=True).click()
    expect(page.get_by_text("not among your runs yet")).to_have_count(0)
    loaded(page)  # before, what goes and what comes are both there
    expect(page.get_by_text("Sentiment, in 20 steps")).to_be_visible()
    expect(page.get_by_text("stopped-run")).to_have_count(0)


def test_a_persons_own_examples_are_a_task_and_others_get_a_sentence(page):
    page.goto("/train")
    loaded(page)
    page.locator("summary", has_text="Choose everything yourself").press("Enter")
    page.locator("summary", has_text="Your own examples").press("Enter")
    page.locator('input[type="file"]').set_input_files({"name": "mine.csv", "mimeType": "text/csv", "buffer": b"question,answer\n1,2\n"})
    expect(page.get_by_text("has no column input")).to_be_visible()
    rows = b"".join(b"%d,%s\n" % (i, b"even" if i % 2 == 0 else b"odd") for i in range(40))
    page.locator('input[type="file"]').set_input_files({"name": "mine.csv", "mimeType": "text/csv", "buffer": b"input,target\n" + rows})
    expect(page.get_by_text("Your own examples from mine.csv. 30 examples to train on")).to_be_visible()
    expect(page).to_have_url(re.compile("task=own-mine"))
    expect(page.get_by_text("has no column input")).to_have_count(0)
    loaded(page)
