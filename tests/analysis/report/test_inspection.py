"""What a person should know about a file, said where it is looked at."""

import numpy as np
import pytest

from soft_prompt_explorer.analysis.adapters import load_adapter
from soft_prompt_explorer.analysis.report.inspection import inspect, receipt
from tests.support.places import EMBEDDED


@pytest.mark.parametrize(
    ("scale", "word"), [(1.0, None), (0.001, "3 of 4 tokens is under 0.01 times"), (1000.0, "3 of 4 tokens is over 100 times")]
)
@pytest.mark.parametrize("model", [None, EMBEDDED])
def test_norms_far_from_the_vocabularys_are_remarked_on(prompt_file, embedded_vocabulary, scale, word, model):
    rows = np.array(embedded_vocabulary.embeddings[[100, 2000, 3000, 4000]])
    rows[1:] *= scale
    note = inspect([prompt_file(rows)], model=model)["notes"].item()
    assert ("times that of" in note) == (word is not None)
    assert word is None or word in note


def test_a_prompt_of_another_width_is_not_compared(prompt_file):
    assert "times that of" not in inspect([prompt_file(np.full((2, 10), 1e4))])["notes"].item()


def test_rows_that_repeat_are_explained_where_the_prompt_started_from_text(tmp_path):
    import json

    import torch
    from safetensors.torch import save_file

    save_file({"prompt_embeddings": torch.eye(3, 4)[[0, 1, 2, 0]].contiguous()}, tmp_path / "adapter_model.safetensors")
    config = {"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 4, "prompt_tuning_init": "TEXT", "base_model_name_or_path": "no/such"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    note = inspect([tmp_path])["notes"].item()
    assert "1 of 4 rows repeat another, as initialisation from a short text makes them" in note
    assert "base model is unknown" not in note


def test_the_receipt_says_what_was_checked(prompt_file):
    table = receipt(load_adapter(prompt_file(np.eye(3, 4)))).set_index("check")["found"]
    assert table["what was read"] == "3 × 4, every value finite, float64"
    assert table["pickle"].startswith("none")
    assert len(table["sha256"]) == 64
