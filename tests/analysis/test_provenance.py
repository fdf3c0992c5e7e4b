"""A table, a report and a figure say where they come from: what was read for them, by its digest."""

import hashlib
import json
import re

import numpy as np
import pandas as pd
import pytest
from pyarrow import parquet

from soft_prompt_explorer.analysis.__main__ import app
from soft_prompt_explorer.analysis.core.folders import GALLERY
from soft_prompt_explorer.analysis.models.embedded import EMBEDDED_SHA256
from tests.support.commands import caller_of

PROMPT = GALLERY / "plural-words-1"


@pytest.fixture
def command(monkeypatch, capsys):
    return caller_of("analysis", app, monkeypatch, capsys)


def sha256(path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def beside(path) -> dict:
    return json.loads(path.with_name(f"{path.name}.provenance.json").read_bytes())


def test_a_table_names_its_model_its_file_and_its_command(command, tmp_path):
    assert command("readings", PROMPT, "--out", tmp_path / "t.csv").status == 0
    told = beside(tmp_path / "t.csv")
    assert told["models"] == [{"name": "smollm2-135m", "sha256": EMBEDDED_SHA256}]
    assert told["files"] == [{"name": "plural-words-1", "sha256": sha256(PROMPT / "adapter_model.safetensors")}]
    assert told["command"].endswith(f"readings {PROMPT} --out {tmp_path / 't.csv'}") and told["seed"] is None
    assert pd.read_csv(tmp_path / "t.csv").columns[0] == "prompt"  # nothing stands before the header


def test_what_one_command_read_is_not_said_of_the_next(command, tmp_path):
    command("neighbours", GALLERY / "capitals-words-1", "--out", tmp_path / "a.parquet")
    command("neighbours", PROMPT, "--out", tmp_path / "b.parquet")
    told = json.loads(parquet.read_schema(tmp_path / "b.parquet").metadata[b"provenance"])
    assert [each["name"] for each in told["files"]] == ["plural-words-1"]


def test_the_start_that_was_given_and_the_seed_are_named_and_the_second_file_too(command, tmp_path):
    rows = np.load(_as_npy(tmp_path / "prompt.npy"))
    np.save(tmp_path / "start.npy", rows + 0.01)
    outcome = command(
        "clusters", tmp_path / "prompt.npy", "--initial", tmp_path / "start.npy", "--seed", 7, "--model", "smollm2-135m",
        "--members", tmp_path / "members.csv", "--out", tmp_path / "clusters.json",
    )  # fmt: skip
    assert outcome.status == 0, outcome.err
    for told in (json.loads((tmp_path / "clusters.json").read_bytes())["provenance"], beside(tmp_path / "members.csv")):
        assert told["seed"] == 7
        assert told["files"] == [{"name": name, "sha256": sha256(tmp_path / name)} for name in ("prompt.npy", "start.npy")]


def _as_npy(path):
    from soft_prompt_explorer.analysis.adapters import load_soft_prompt

    np.save(path, load_soft_prompt(PROMPT).embeddings)
    return path


def test_a_lora_is_read_without_a_model(command, tmp_path):
    command("spectra", GALLERY / "capitals-lora-8", "--out", tmp_path / "t.csv")
    told = beside(tmp_path / "t.csv")
    assert told["models"] == [] and [each["name"] for each in told["files"]] == ["capitals-lora-8"]


def test_a_model_of_ones_own_is_named_by_the_digest_of_its_weights(command, tmp_path, llama_folder):
    width = json.loads((llama_folder / "config.json").read_text())["hidden_size"]
    np.save(tmp_path / "p.npy", np.random.default_rng(0).normal(size=(3, width)).astype(np.float32))
    outcome = command("neighbours", tmp_path / "p.npy", "--model", llama_folder, "--out", tmp_path / "t.csv")
    assert outcome.status == 0, outcome.err
    expected = hashlib.sha256(b"".join(bytes.fromhex(sha256(path)) for path in sorted(llama_folder.glob("*.safetensors")))).hexdigest()
    assert beside(tmp_path / "t.csv")["models"] == [{"name": str(llama_folder), "sha256": expected}]


def test_standard_output_stays_a_list_of_rows(command):
    assert isinstance(json.loads(command("neighbours", PROMPT, "--top-k", 1, "--format", "json").out), list)


def test_a_report_says_where_it_comes_from_to_people_and_to_programs(command, tmp_path):
    assert command("report", PROMPT, GALLERY / "capitals-lora-8", "--out", tmp_path / "r.html").status == 0
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    told = json.loads(re.search(r'<meta name="provenance" content="(.*?)">', page)[1].replace("&#34;", '"'))
    assert [each["name"] for each in told["files"]] == ["plural-words-1", "capitals-lora-8"]
    assert told["models"] == [{"name": "smollm2-135m", "sha256": EMBEDDED_SHA256}]
    assert page.count(EMBEDDED_SHA256) == 2 and "Where this comes from" in page


def test_a_figure_says_so_too(command, tmp_path):
    assert command("figure", "verdicts", PROMPT, "--out", tmp_path / "f.svg").status == 0
    told = json.loads(
        re.search(r"<dc:description>(.*?)</dc:description>", (tmp_path / "f.svg").read_text(encoding="utf-8"))[1].replace("&quot;", '"')
    )
    assert [each["name"] for each in told["files"]] == ["plural-words-1"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("verdicts", PROMPT, "--out", "f.png"), ".pdf or .svg"),
        (("verdicts", PROMPT, "--out", "f.pdf", "--width", "3"), "for instance 85mm"),
        (("verdicts", GALLERY / "capitals-lora-8", "--out", "f.pdf"), "holds no virtual tokens"),
        (("spectrum", PROMPT, "--out", "f.pdf"), "no LoRA"),
        (("map", PROMPT, "--out", "f.pdf", "--projection", "tsne"), "umap or pca"),
        (("interventions", PROMPT, "--out", "f.pdf", "--template", "{input}"), "give --task too"),
    ],
)
def test_a_figure_that_cannot_be_drawn_is_refused_in_a_sentence(command, tmp_path, monkeypatch, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    status, _, err = command("figure", *arguments)
    assert status == 2 and sentence in err and err.count("\n") == 1
    assert not list(tmp_path.glob("f.*"))


def test_ones_own_examples_are_named(monkeypatch, capsys, tmp_path):
    from soft_prompt_explorer.analysis.core import provenance
    from soft_prompt_explorer.analysis.tasks.finding import get_task

    examples = tmp_path / "mine.csv"
    pd.DataFrame({"input": [f"thing {i}" for i in range(40)], "target": ["red", "blue"] * 20}).to_csv(examples, index=False)
    read = provenance.Log()
    monkeypatch.setattr(provenance, "_find", lambda: read)
    get_task(str(examples))
    assert list(read.files) == [("mine.csv", sha256(examples))]
