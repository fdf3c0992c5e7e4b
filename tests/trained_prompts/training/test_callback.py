"""A script of one's own with plain PEFT and the Trainer of transformers, recorded by the callback: what was recorded is what was there, and nothing of the training changes."""

import json
import shutil
import sqlite3
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pytest
import torch
from peft import LoraConfig, PromptTuningConfig, TaskType, get_peft_model
from safetensors.numpy import load_file
from transformers import DataCollatorForSeq2Seq, Trainer, TrainerCallback, TrainingArguments

from soft_prompt_explorer.analysis.adapters import load_adapter, load_soft_prompt
from soft_prompt_explorer.analysis.adapters.own_model import trusted_model
from soft_prompt_explorer.analysis.adapters.recorded import template_of, trajectory_of
from soft_prompt_explorer.analysis.behaviour.templates import how_asked
from soft_prompt_explorer.analysis.core.errors import AdapterError
from soft_prompt_explorer.analysis.models.embedded import EMBEDDED_MODEL, EMBEDDED_SHA256
from soft_prompt_explorer.analysis.models.weights import load_model
from soft_prompt_explorer.trained_prompts.training import callback
from soft_prompt_explorer.trained_prompts.training.callback import ExplorerCallback, Recorder

WORDS = ["cat", "dog", "house", "tree", "river", "song", "book", "car"]


@dataclass
class Trained:
    trainer: Trainer
    before: np.ndarray | None
    after: np.ndarray | None


@pytest.fixture
def train_plainly(llama_folder, tmp_path, own_runs, monkeypatch):
    """What a person's script does: PEFT, a few examples, the Trainer; so short that following it may take longer than it does itself."""
    monkeypatch.setattr(callback, "WORTH", 1e9)

    def train(*callbacks, into: str = "run", config=None, steps: int = 8, resume=None, **arguments) -> Trained:
        model, tokenizer = load_model(str(llama_folder), device="cpu")
        torch.manual_seed(5)
        model = get_peft_model(model, config or PromptTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=3))
        examples = []
        for word in WORDS:
            text, answer = (tokenizer(part).input_ids for part in (f"Word: {word}\nPlural:", f" {word}s"))
            examples.append({"input_ids": text + answer, "attention_mask": [1] * len(text + answer), "labels": [-100] * len(text) + answer})
        tokenizer.pad_token = tokenizer.eos_token

        def rows():
            encoder = getattr(model, "prompt_encoder", None)
            return None if not encoder else encoder["default"].embedding.weight.detach().numpy().copy()

        before = rows()
        trainer = Trainer(
            model, TrainingArguments(
                output_dir=str(tmp_path / into), max_steps=steps, per_device_train_batch_size=2, learning_rate=0.3, logging_steps=1, save_steps=4,
                disable_tqdm=True, use_cpu=True, **({"report_to": []} | arguments),
            ),
            train_dataset=examples, data_collator=DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=-100), processing_class=tokenizer,
            callbacks=list(callbacks),
        )  # fmt: skip
        trainer.train(resume_from_checkpoint=resume)
        trainer.save_model()
        return Trained(trainer, before, rows())

    return train


def test_what_was_trained_is_found_with_its_start_beside_it_and_in_every_checkpoint(train_plainly, tmp_path):
    done = train_plainly(ExplorerCallback(every=2))
    for path in (tmp_path / "run", tmp_path / "run" / "checkpoint-4"):
        np.testing.assert_array_equal(load_adapter(path).initial, done.before)
    np.testing.assert_array_equal(load_adapter(tmp_path / "run").embeddings, done.after)
    trajectory = load_file(tmp_path / "run" / "trajectory.safetensors")
    assert trajectory["steps"].tolist() == [0, 2, 4, 6, 8]
    np.testing.assert_allclose(trajectory["embeddings"][0], done.before, atol=2e-3)
    np.testing.assert_allclose(trajectory["embeddings"][2], load_adapter(tmp_path / "run" / "checkpoint-4").embeddings, atol=2e-3)
    np.testing.assert_allclose(trajectory["embeddings"][-1], done.after, atol=2e-3)


class BrokenOffError(Exception):
    pass


class BreaksOff(TrainerCallback):
    """Ends a training as an error in it does: nothing more is called."""

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 7:
            raise BrokenOffError


LORA = LoraConfig(task_type=TaskType.CAUSAL_LM, r=2, target_modules=["q_proj"])


@pytest.mark.parametrize("config", [None, LORA], ids=["prompt", "lora"])
def test_a_training_that_goes_on_from_a_checkpoint_leaves_what_one_that_was_never_broken_off_leaves(config, train_plainly, tmp_path):
    train_plainly(ExplorerCallback(every=2), into="whole", config=config)
    with pytest.raises(BrokenOffError):
        train_plainly(ExplorerCallback(every=2), BreaksOff(), config=config)
    train_plainly(ExplorerCallback(every=2), config=config, resume=str(tmp_path / "run" / "checkpoint-4"))
    whole, run = tmp_path / "whole", tmp_path / "run"
    assert {path.name for path in run.iterdir()} == {path.name for path in whole.iterdir()}
    names = (
        ["ranks.csv"] if config else ["initial.safetensors", "checkpoint-8/initial.safetensors", "trajectory.safetensors", "followed.csv"]
    )
    for name in names:
        assert (run / name).read_bytes() == (whole / name).read_bytes()
    said, meant = (json.loads((path / "explorer.json").read_text()) for path in (run, whole))
    fed, wanted = ({example["text"] for example in record.pop("examples")} for record in (said, meant))
    assert said == meant and fed == wanted
    losses, wanted = (pd.read_csv(path / "losses.csv") for path in (run, whole))
    pd.testing.assert_frame_equal(losses.drop(columns="seconds"), wanted.drop(columns="seconds"))
    assert losses["seconds"].is_monotonic_increasing


def test_a_training_that_goes_on_where_nothing_was_recorded_tells_no_start(train_plainly, tmp_path, caplog):
    train_plainly()
    done = train_plainly(ExplorerCallback(every=2), resume=str(tmp_path / "run" / "checkpoint-4"))
    assert sum("goes on from step 4, and its start is not in" in record.message for record in caplog.records) == 1
    assert load_adapter(tmp_path / "run").initial is None
    assert trajectory_of(tmp_path / "run")[0].tolist() == [4, 6, 8]
    followed = pd.read_csv(tmp_path / "run" / "followed.csv")
    assert (
        followed["step"].tolist() == [6, 8]
        and followed["norm_ratio"].notna().all()
        and followed[["echo_share", "drift"]].isna().all(axis=None)
    )
    assert not any("explorer/drift" in entry for entry in done.trainer.state.log_history)


def test_a_training_that_goes_on_in_the_folder_of_another_one_takes_nothing_of_that(train_plainly, tmp_path, caplog):
    train_plainly(ExplorerCallback(every=2))
    train_plainly(ExplorerCallback(every=2), into="other", weight_decay=0.5)
    train_plainly(ExplorerCallback(every=2), resume=str(tmp_path / "other" / "checkpoint-4"))
    assert sum("goes on from step 4, and its start is not in" in record.message for record in caplog.records) == 1
    assert trajectory_of(tmp_path / "run")[0].tolist() == [4, 6, 8]
    assert pd.read_csv(tmp_path / "run" / "losses.csv")["step"].tolist() == [5, 6, 7, 8]


def test_the_model_of_a_recorded_training_is_found_where_it_lies_and_no_other_path_is_followed(
    train_plainly, llama_folder, own_cache, tmp_path, command
):
    train_plainly(ExplorerCallback())
    run = tmp_path / "run"
    told = command("readings", run, "--format", "csv")
    assert told.status == 0 and told.out == command("readings", run, "--model", llama_folder, "--format", "csv").out
    assert command("readings", run / "checkpoint-4").status == 0
    shutil.copytree(run, tmp_path / "stranger")  # what lies in a folder makes it no training of this person's
    shutil.copytree(llama_folder, tmp_path / "another")
    config = run / "adapter_config.json"
    config.write_text(config.read_text().replace(str(llama_folder), str(tmp_path / "another")))
    for path in (tmp_path / "stranger", run):
        refused = command("readings", path)
        assert refused.status == 2 and "a path in an adapter is not followed" in refused.err


def test_a_model_that_this_machine_unpacked_into_its_own_cache_is_known_by_that_folder(llama_folder, own_cache, own_runs, prompt_file):
    prompt = load_soft_prompt(prompt_file(np.ones((2, 16), np.float32)))
    inside, outside = own_cache / "models" / "tiny-0123456789ab-v1", own_cache / "tiny"
    for folder in (inside, outside):
        shutil.copytree(llama_folder, folder)
    assert trusted_model(replace(prompt, base_model=str(inside))) == str(inside)
    for path in (outside, own_cache / "models" / ".." / "tiny", own_cache / "models" / "none", inside / "x", "models", ""):
        assert trusted_model(replace(prompt, base_model=str(path))) is None
    embedded = own_cache / "models" / f"smollm2-{EMBEDDED_SHA256[:12]}-v1"
    shutil.copytree(llama_folder, embedded)
    assert trusted_model(replace(prompt, base_model=f"{embedded}/")) == EMBEDDED_MODEL


def test_losses_template_and_examples_are_those_that_were_fed(train_plainly, tmp_path):
    done = train_plainly(ExplorerCallback(every=2))
    losses = pd.read_csv(tmp_path / "run" / "losses.csv")
    logged = [entry["loss"] for entry in done.trainer.state.log_history if "loss" in entry]
    assert losses["step"].tolist() == list(range(1, 9))
    np.testing.assert_allclose(losses["loss"], logged)
    record = json.loads((tmp_path / "run" / "explorer.json").read_text())
    assert record["template"] == "Word: {input}\nPlural:" and not record["template_given"]
    assert record["method"] == "PROMPT_TUNING" and record["steps"] == 8
    wanted = [{"text": f"Word: {word}\nPlural:", "target": f" {word}s"} for word in WORDS]
    assert len(record["examples"]) == 16 and all(example in wanted for example in record["examples"])


def test_what_is_followed_is_what_a_hand_calculation_reads(train_plainly, tmp_path, llama_folder):
    done = train_plainly(ExplorerCallback(every=4))
    followed = pd.read_csv(tmp_path / "run" / "followed.csv")
    assert followed["step"].tolist() == [4, 8]
    rows = load_model(str(llama_folder), device="cpu").model.get_input_embeddings().weight.detach().numpy().astype(np.float64)
    units = rows - rows.mean(0)
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    nearest = [((tokens - rows.mean(0)) @ units.T).argmax(1) for tokens in (done.before, done.after)]
    last = followed.iloc[-1]
    assert last["echo_share"] == pytest.approx((nearest[0] == nearest[1]).mean())
    assert last["drift"] == pytest.approx(np.median(np.linalg.norm(done.after - done.before, axis=1)), rel=1e-4)
    norms = np.linalg.norm(rows, axis=1)
    assert last["norm_ratio"] == pytest.approx(np.median(np.linalg.norm(done.after, axis=1)) / np.median(norms), rel=1e-2)
    told = [entry for entry in done.trainer.state.log_history if "explorer/drift" in entry]
    assert [entry["step"] for entry in told] == [4, 8] and told[-1]["explorer/drift"] == pytest.approx(last["drift"])


def test_the_training_is_the_same_with_and_without_it(train_plainly):
    without, with_it = train_plainly(into="a"), train_plainly(ExplorerCallback(every=1), into="b")
    np.testing.assert_array_equal(without.after, with_it.after)


def test_a_look_is_put_off_where_it_would_take_more_than_its_share_of_the_time(train_plainly, tmp_path, monkeypatch):
    monkeypatch.setattr(callback, "WORTH", 1e-9)
    train_plainly(ExplorerCallback(every=1))
    followed = pd.read_csv(tmp_path / "run" / "followed.csv")["step"].tolist()
    assert followed == [1, 8]  # what the first cost is not known before, and the last is always taken
    assert trajectory_of(tmp_path / "run")[0].tolist() == list(range(9))


def test_of_a_lora_the_losses_and_the_examples_are_recorded(train_plainly, tmp_path):
    train_plainly(ExplorerCallback(), config=LoraConfig(task_type=TaskType.CAUSAL_LM, r=2, target_modules=["q_proj"]))
    assert len(pd.read_csv(tmp_path / "run" / "losses.csv")) == 8
    assert json.loads((tmp_path / "run" / "explorer.json").read_text())["method"] == "LORA"
    assert not (tmp_path / "run" / "initial.safetensors").exists() and load_adapter(tmp_path / "run").kind == "lora"


def test_of_a_lora_the_ranks_of_its_updates_are_followed(train_plainly, tmp_path):
    config = LoraConfig(task_type=TaskType.CAUSAL_LM, r=2, lora_alpha=6, target_modules=["q_proj", "v_proj"])
    done = train_plainly(ExplorerCallback(every=4), config=config)
    ranks = pd.read_csv(tmp_path / "run" / "ranks.csv")
    assert ranks["step"].drop_duplicates().tolist() == [4, 8]
    for path, step in ((tmp_path / "run" / "checkpoint-4", 4), (tmp_path / "run", 8)):
        told = ranks[ranks["step"] == step].set_index("module")
        tensors = load_file(path / "adapter_model.safetensors")
        assert len(told) == len(tensors) // 2
        for module, row in told.iterrows():
            a, b = (tensors[f"base_model.model.{module}.lora_{factor}.weight"].astype(float) for factor in "AB")
            sigma = np.linalg.svd(3 * b @ a, compute_uv=False)
            assert row["spectral_norm"] == pytest.approx(sigma[0], rel=1e-5)
            assert row["frobenius_norm"] == pytest.approx(np.sqrt((sigma**2).sum()), rel=1e-5)
            assert row["stable_rank"] == pytest.approx((sigma**2).sum() / sigma[0] ** 2, rel=1e-5)
    logged = [entry for entry in done.trainer.state.log_history if "explorer/update_norm" in entry]
    last = ranks[ranks["step"] == 8]
    assert logged[-1]["explorer/update_norm"] == pytest.approx(np.sqrt((last["frobenius_norm"] ** 2).sum()))
    assert logged[-1]["explorer/stable_rank"] == pytest.approx(last["stable_rank"].median())


def test_what_is_followed_stands_in_tensorboard_too(train_plainly, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train_plainly(ExplorerCallback(every=4), report_to=["tensorboard"])
    events = EventAccumulator(str(tmp_path / "run" / "runs" / "explorer"))
    events.Reload()
    followed = pd.read_csv(tmp_path / "run" / "followed.csv")
    for name in ("echo_share", "drift", "norm_ratio"):
        scalars = events.Scalars(f"explorer/{name}")
        assert [scalar.step for scalar in scalars] == [4, 8]
        np.testing.assert_allclose([scalar.value for scalar in scalars], followed[name], rtol=1e-6)


def test_what_is_followed_stands_in_wandb_too_where_it_is_installed(train_plainly, tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    train_plainly(ExplorerCallback(every=4), report_to=["wandb"])
    told, last = dict(wandb.run.summary), pd.read_csv(tmp_path / "run" / "followed.csv").iloc[-1]
    wandb.finish()
    assert {name: told[f"explorer/{name}"] for name in ("echo_share", "drift", "norm_ratio")} == pytest.approx(
        last[["echo_share", "drift", "norm_ratio"]].to_dict()
    )


def test_what_is_followed_stands_in_trackio_too_where_it_is_installed(train_plainly, tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))  # read when it is imported
    pytest.importorskip("trackio")
    train_plainly(ExplorerCallback(every=4), report_to=["trackio"])
    (database,) = (tmp_path / "trackio").glob("*.db")
    with sqlite3.connect(database) as opened:
        rows = [json.loads(metrics) for (metrics,) in opened.execute("SELECT metrics FROM metrics ORDER BY step")]
    followed = pd.read_csv(tmp_path / "run" / "followed.csv")
    assert [row["explorer/drift"] for row in rows if "explorer/drift" in row] == pytest.approx(followed["drift"].tolist())


def test_a_folder_that_cannot_be_written_ends_no_training(train_plainly, tmp_path, caplog):
    (tmp_path / "file").write_text("")
    done = train_plainly(ExplorerCallback(tmp_path / "file" / "run"))
    assert done.trainer.state.global_step == 8
    assert sum("no longer recorded" in record.message for record in caplog.records) == 1


def test_a_loop_of_ones_own_is_recorded_by_three_lines(llama_folder, tmp_path, own_runs):
    model, tokenizer = load_model(str(llama_folder), device="cpu")
    model = get_peft_model(model, PromptTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=3))
    optimiser = torch.optim.Adam(model.parameters(), lr=0.1)
    recorder = Recorder(tmp_path / "mine", model, tokenizer, every=2, template="Word: {input}\nPlural:")
    start = model.prompt_encoder["default"].embedding.weight.detach().numpy().copy()
    for word in WORDS[:4]:
        ids = torch.tensor([tokenizer(f"Word: {word}\nPlural: {word}s").input_ids])
        loss = model(input_ids=ids, labels=ids).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        recorder.after_step(loss)
    recorder.end()
    model.save_pretrained(tmp_path / "mine")
    np.testing.assert_array_equal(load_adapter(tmp_path / "mine").initial, start)
    assert pd.read_csv(tmp_path / "mine" / "losses.csv")["step"].tolist() == [1, 2, 3, 4]
    record = json.loads((tmp_path / "mine" / "explorer.json").read_text())
    assert record["template"] == "Word: {input}\nPlural:" and record["template_given"]


@pytest.mark.parametrize(
    ("texts", "template"),
    [
        (["Word: cat\nPlural:", "Word: car\nPlural:", "Word: tree\nPlural:"], "Word: {input}\nPlural:"),
        (["cat =>", "dog =>", "cow =>"], "{input} =>"),
        (["Say it: cat", "Say it: dog", "Say it: cow"], "Say it: {input}"),
        (["cat", "dog", "cow"], None),
        (["Word: cat\nPlural:"] * 5, None),
        (["{input} a:", "{input} b:", "{input} c:"], None),
        ([], None),
    ],
)
def test_the_template_is_what_the_examples_share_up_to_the_ends_of_words(texts, template):
    assert template_of(texts) == template


def test_the_template_that_was_recorded_is_how_the_prompt_is_asked_afterwards(train_plainly, tmp_path):
    train_plainly(ExplorerCallback())
    asked = how_asked(tmp_path / "run", "plural")
    assert asked.known and asked.task.template == "Word: {input}\nPlural:"
    assert how_asked(tmp_path / "run", "plural", "Say {input}:").task.template == "Say {input}:"
    record = tmp_path / "run" / "explorer.json"
    for content in (b"", b"[]", b"{}", b'{"template": 5}', b'{"template": "no input"}', b"[" * 50_000, b"\xff"):
        record.write_bytes(content)
        assert not how_asked(tmp_path / "run", "plural").known


def test_a_trajectory_is_what_was_recorded_and_without_a_record_the_checkpoints(train_plainly, tmp_path):
    done = train_plainly(ExplorerCallback(every=2))
    steps, embeddings = trajectory_of(tmp_path / "run")
    assert steps.tolist() == [0, 2, 4, 6, 8]
    (tmp_path / "run" / "trajectory.safetensors").unlink()
    from_checkpoints = trajectory_of(tmp_path / "run")
    assert from_checkpoints[0].tolist() == [0, 4, 8]
    np.testing.assert_array_equal(from_checkpoints[1][-1], done.after)
    np.testing.assert_allclose(from_checkpoints[1], embeddings[[0, 2, 4]], atol=2e-3)
    (tmp_path / "run" / "trajectory.safetensors").write_bytes(b"\0" * 100)
    with pytest.raises(AdapterError, match="damaged"):
        trajectory_of(tmp_path / "run")
    with pytest.raises(AdapterError, match="no trajectory and no checkpoint"):
        trajectory_of(tmp_path)
    with pytest.raises(AdapterError, match=r"is not there; give the folder"):
        trajectory_of(tmp_path / "nowhere")
    with pytest.raises(AdapterError, match=r"is no folder; give the folder"):
        trajectory_of(tmp_path / "run" / "adapter_config.json")


def test_without_the_callback_the_checkpoints_are_a_trajectory_too(train_plainly, tmp_path):
    done = train_plainly()
    steps, embeddings = trajectory_of(tmp_path / "run")
    assert steps.tolist() == [4, 8]
    np.testing.assert_array_equal(embeddings[-1], done.after)
