"""A person's script of twenty lines, with plain PEFT on the embedded model; afterwards the command line knows the start, the template and the way."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pyarrow.dataset
import pytest

from tests.support.places import EMBEDDED

SCRIPT = """
import sys
from peft import PromptTuningConfig, TaskType, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, DataCollatorForSeq2Seq, Trainer, TrainingArguments
from soft_prompt_explorer import ExplorerCallback

folder, out, seed = sys.argv[1], sys.argv[2], int(sys.argv[3])
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32")
config = PromptTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=4)
model = get_peft_model(model, config)
examples = []
for thing, colour in [("grass", "green"), ("snow", "white"), ("coal", "black"), ("blood", "red"), ("the sky", "blue"), ("a lemon", "yellow")]:
    text, answer = tokenizer(f"Thing: {thing}\\nColour:").input_ids, tokenizer(f" {colour}").input_ids
    examples.append({"input_ids": text + answer, "attention_mask": [1] * len(text + answer), "labels": [-100] * len(text) + answer})
arguments = TrainingArguments(output_dir=out, max_steps=6, per_device_train_batch_size=2, learning_rate=0.05, seed=seed, save_steps=3, report_to=[], use_cpu=True)
trainer = Trainer(model, arguments, train_dataset=examples, data_collator=DataCollatorForSeq2Seq(tokenizer), processing_class=tokenizer, callbacks=[ExplorerCallback(every=3)])
trainer.train()
trainer.save_model()
"""


def spe(*words: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "soft_prompt_explorer", *words], capture_output=True, text=True, check=True)


def trained(folder: Path, seeds: Sequence[int], tmp_path: Path) -> list[str]:
    """Where the script left what it trained on the model in a folder, under one name a seed."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    for seed in seeds:
        run = [sys.executable, str(script), str(folder), str(tmp_path / f"seed{seed}" / "final"), str(seed)]
        subprocess.run(run, check=True, capture_output=True, text=True)
    return [str(tmp_path / f"seed{seed}" / "final") for seed in seeds]


@pytest.mark.slow
def test_what_a_script_trained_is_known_afterwards_with_no_further_option(embedded_model, own_runs, tmp_path):
    from soft_prompt_explorer.analysis.models.weights import prepare_model

    paths = trained(prepare_model(EMBEDDED), (1, 2, 3), tmp_path)
    names = [f"seed{seed}/final" for seed in (1, 2, 3)]
    spe("readings", *paths, "--out", str(tmp_path / "readings.csv"))
    told = pd.read_csv(tmp_path / "readings.csv")
    assert told["prompt"].tolist() == [name for name in names for _ in range(4)] and told["path"].unique().tolist() == paths
    assert (told["drift"] > 0).all()
    spe("trajectory", *paths, "--out", str(tmp_path / "way.csv"))
    way = pd.read_csv(tmp_path / "way.csv")
    assert way["path"].unique().tolist() == paths
    assert way["step"].unique().tolist() == [0, 3, 6] and (way.loc[way["step"] == 0, "drift"] < 0.01).all()
    assert way.loc[way["step"] == 6, "nearest_token"].tolist() == told["nearest_token"].tolist()
    for name, columns in (("similarity", ["path_a", "path_b"]), ("neighbours", ["path"]), ("inspect", ["path"])):
        spe(name, *paths, "--out", str(tmp_path / f"{name}.csv"))
        table = pd.read_csv(tmp_path / f"{name}.csv")
        assert sorted(set(table[columns].to_numpy().ravel())) == paths, name
    spe("batch", str(tmp_path / "seed*" / "final"), "--out", str(tmp_path / "batch"))
    tokens = pyarrow.dataset.dataset(tmp_path / "batch" / "tokens", partitioning="hive").to_table().to_pandas()
    assert tokens["nearest_token"].tolist() == told["nearest_token"].tolist() and tokens["path"].nunique() == 3
    colours = tmp_path / "colours.csv"
    colours.write_text("input,target\n" + "".join(f"{thing},{colour}\n" for thing, colour in [("grass", "green"), ("snow", "white")] * 12))
    asked = spe("evaluate", paths[0], "--task", str(colours), "--limit", "2")
    assert "‘Thing: snow⏎Colour:’" in asked.stderr or "‘Thing: grass⏎Colour:’" in asked.stderr
