"""The zip of a prompt holds the same tables as its parts."""

import io
import json
import zipfile

import numpy as np
import pandas as pd

from soft_prompt_explorer.analysis.adapters import SoftPrompt
from soft_prompt_explorer.analysis.core.export import WRITERS
from soft_prompt_explorer.analysis.core.provenance import Provenance
from soft_prompt_explorer.analysis.prompts.verdicts import readings
from soft_prompt_explorer.analysis.report.prompt_zip import bundle


def test_it_holds_the_report_and_each_table_that_there_is(embedded_vocabulary):
    rows = embedded_vocabulary.embeddings[[3, 5]]
    prompt = SoftPrompt("made", rows + np.float32(0.01), rows, None, None, None)
    made = bundle(
        prompt, embedded_vocabulary, Provenance("asked", (("made.npy", "0" * 64),)), behaviour=pd.DataFrame({"score": [0.5]}), card="# made"
    )
    with zipfile.ZipFile(io.BytesIO(made)) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    assert set(files) == {"README.md", "behaviour.csv", "cosines.csv", "neighbours.csv", "provenance.json", "readings.csv", "report.html"}
    assert files["readings.csv"] == WRITERS["csv"](readings(prompt, embedded_vocabulary))
    assert files["behaviour.csv"] == b"score\n0.5\n"
    assert b"made" in files["report.html"] and files["README.md"] == b"# made"
    told = json.loads(files["provenance.json"])
    assert told["command"] == "asked" and told["files"] == [{"name": "made.npy", "sha256": "0" * 64}] and b"0" * 64 in files["report.html"]
