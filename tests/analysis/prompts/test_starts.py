"""Where a prompt's training started: by its config's words as PEFT takes them, by another file's rows part by part, and marked for what it is."""

import io
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from soft_prompt_explorer.analysis.adapters import AdapterError, SoftPrompt, load_adapter
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.models.embedded import EMBEDDED_MODEL
from soft_prompt_explorer.analysis.models.vocabulary import load_vocabulary
from soft_prompt_explorer.analysis.models.weights import load_tokenizer
from soft_prompt_explorer.analysis.prompts.starts import LEVEL, mark_of, plain_verdict, recover_initial, split_from, start_from_config
from soft_prompt_explorer.analysis.prompts.verdicts import readings
from soft_prompt_explorer.analysis.report.inspection import inspect
from tests.support.made_prompts import prompt_of
from tests.support.tiny_models import random_llama

TEXT = "the cat sat on the naïve mat"


def peft_folder(folder, rows, **config):
    folder.mkdir(parents=True)
    save_file({"prompt_embeddings": torch.as_tensor(np.asarray(rows, dtype=np.float32))}, folder / "adapter_model.safetensors")
    known = {"peft_type": "PROMPT_TUNING", "task_type": "CAUSAL_LM", "num_transformer_submodules": 1, "num_virtual_tokens": len(rows)}
    (folder / "adapter_config.json").write_text(json.dumps(known | config))
    return folder


@pytest.fixture
def model_folder(llama_folder, own_cache):
    return str(llama_folder)


@pytest.mark.parametrize(("tokens", "halves"), [(3, 1), (7, 1), (40, 1), (5, 2)])
def test_the_start_is_the_one_that_peft_itself_makes_of_the_text(tokens, halves, model_folder, tiny_llama, tmp_path):
    """PEFT's own PromptEmbedding is the reference, for texts shorter and longer than the prompt, and over both halves together."""
    from peft import PromptEmbedding, PromptTuningConfig

    config = PromptTuningConfig(
        task_type="CAUSAL_LM", num_virtual_tokens=tokens, token_dim=16, num_transformer_submodules=halves, num_attention_heads=2, num_layers=2,
        prompt_tuning_init="TEXT", prompt_tuning_init_text=TEXT, tokenizer_name_or_path=model_folder,
    )  # fmt: skip
    expected = PromptEmbedding(config, tiny_llama.get_input_embeddings()).embedding.weight.detach().numpy()
    moved = expected + np.random.default_rng(0).normal(size=expected.shape)
    path = peft_folder(
        tmp_path / "prompt", moved, num_virtual_tokens=tokens, num_transformer_submodules=halves, prompt_tuning_init="TEXT",
        prompt_tuning_init_text=TEXT, tokenizer_name_or_path=model_folder, base_model_name_or_path=model_folder,
    )  # fmt: skip
    prompt = start_from_config(load_adapter(path), load_vocabulary(model_folder))
    assert np.array_equal(prompt.initial, expected)
    assert mark_of(prompt) == " (from the config's text)"
    assert [len(part.initial) for part in prompt.split()] == [tokens] * halves


def test_the_start_of_cpt_is_the_one_that_peft_itself_takes(model_folder, tiny_llama, tmp_path):
    from peft import CPTConfig, get_peft_model

    ids = [5, 9, 9, 2, 41, 7]
    model = get_peft_model(
        random_llama(load_tokenizer(model_folder), hidden_size=16, intermediate_size=32, num_hidden_layers=1),
        CPTConfig(task_type="CAUSAL_LM", cpt_token_ids=ids, cpt_mask=[1] * 6, cpt_tokens_type_mask=[1, 2, 2, 3, 4, 4]),
    )
    rows = model.prompt_encoder["default"].embedding.weight.detach().numpy()
    model.save_pretrained(tmp_path / "cpt")
    prompt = load_adapter(tmp_path / "cpt")
    assert (prompt.kind, prompt.method, len(prompt)) == ("soft_prompt", "CPT", 6)
    vocabulary = load_vocabulary(model_folder)
    started = start_from_config(prompt, replace(vocabulary, embeddings=model.get_input_embeddings().weight.detach().numpy()))
    assert np.array_equal(started.initial, rows)
    assert mark_of(started) == " (from the config's token ids)"
    assert inspect([tmp_path / "cpt"], model=model_folder)["notes"][0].count("from the config's token ids") == 1


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"prompt_tuning_init": "RANDOM", "prompt_tuning_init_text": TEXT}, None),  # a text that stands there unused
        ({"prompt_tuning_init": "TEXT"}, None),
        ({"prompt_tuning_init": "TEXT", "prompt_tuning_init_text": TEXT, "tokenizer_name_or_path": "nobody/has-this"}, "nobody/has-this is not on this machine"),
        ({"prompt_tuning_init": "TEXT", "prompt_tuning_init_text": TEXT, "tokenizer_kwargs": {"padding_side": "left"}}, "in a way of its own"),
        ({"peft_type": "CPT", "cpt_token_ids": [1, 2]}, "2 cpt_token_ids for 4 rows"),
        ({"peft_type": "CPT", "cpt_token_ids": [1, 2, 3, 10**9]}, "the token 1000000000"),
        ({"peft_type": "CPT", "cpt_token_ids": [1, 2, 3, -1]}, "the token -1"),
        ({"peft_type": "CPT", "cpt_token_ids": [1, 2, 3, "x"]}, "the token x"),
    ],
)  # fmt: skip
def test_a_start_that_cannot_be_told_stays_unknown_and_the_note_says_why(config, says, model_folder, tmp_path):
    prompt = load_adapter(peft_folder(tmp_path / "prompt", np.ones((4, 16)), **config))
    started = start_from_config(prompt, load_vocabulary(model_folder))
    assert started.initial is None
    assert mark_of(started) == ""
    assert started.notes == prompt.notes if says is None else says in started.notes[-1]


def test_every_verdict_on_a_start_from_the_config_says_so(embedded_vocabulary, tmp_path, command):
    ids = (load_tokenizer(EMBEDDED_MODEL)(" Decide whether it is good")["input_ids"] * 9)[:12]
    rows = embedded_vocabulary.embeddings[ids] + np.random.default_rng(1).normal(size=(12, 576)) * 0.02
    config = {
        "prompt_tuning_init": "TEXT",
        "prompt_tuning_init_text": " Decide whether it is good",
        "base_model_name_or_path": "HuggingFaceTB/SmolLM2-135M-Instruct",
    }
    path = peft_folder(tmp_path / "prompt", rows, **config)
    table = readings(start_from_config(load_adapter(path), embedded_vocabulary), embedded_vocabulary)
    assert table["initial_token"].tolist() == [embedded_vocabulary.tokens[i] for i in ids]
    assert table["echo"].all()
    assert table["verdict"].str.endswith(" (from the config's text)").all()
    assert {plain_verdict(verdict) for verdict in table["verdict"]} == {"echo"}
    done = command("readings", path, "--format", "csv")
    assert done.status == 0
    assert done.out.count("(from the config's text)") == 12


def test_a_configs_own_word_does_not_mark_a_start(tmp_path):
    prompt = load_adapter(peft_folder(tmp_path / "prompt", np.ones((4, 16)), initial="recovered"))
    assert mark_of(replace(prompt, initial=prompt.embeddings)) == ""


# --- Rows of another file --------------------------------------------------------------------------------------------


def bare(rows, **more) -> SoftPrompt:
    return SoftPrompt("p", np.asarray(rows, dtype=np.float32), None, None, None, None, **more)


def test_each_half_starts_from_its_own_rows():
    rng = np.random.default_rng(0)
    start, end = rng.normal(size=(2, 10, 4))
    parts = (("encoder", 6), ("decoder", 4))
    for initial in (bare(start), bare(start, parts=parts)):
        halves = split_from(bare(end, parts=parts), initial)
        assert [half.name for half in halves] == ["p (encoder)", "p (decoder)"]
        assert np.array_equal(halves[0].initial, start[:6].astype(np.float32))
        assert np.array_equal(halves[1].initial, start[6:].astype(np.float32))


def test_each_task_starts_from_its_own_product_and_from_none_where_the_file_has_no_factors():
    rng = np.random.default_rng(0)
    start, end = rng.normal(size=(2, 5, 4)).astype(np.float32)
    factors, trained = rng.normal(size=(2, 3, 5, 4)).astype(np.float32)
    prompt = bare(end, task_factors=trained)
    shared, *tasks = split_from(prompt, bare(start, task_factors=factors))
    assert np.array_equal(shared.initial, start)
    for i, task in enumerate(tasks):
        assert np.array_equal(task.embeddings, end * trained[i])
        assert np.array_equal(task.initial, start * factors[i])
    shared, *tasks = split_from(prompt, bare(start))
    assert np.array_equal(shared.initial, start)
    assert all(task.initial is None for task in tasks)


@pytest.mark.parametrize(
    ("prompt", "initial", "says"),
    [
        ({}, {"rows": 4}, "shape"),
        ({"parts": (("encoder", 3), ("decoder", 2))}, {"parts": (("encoder", 2), ("decoder", 3))}, "encoder"),
        ({}, {"parts": (("encoder", 2), ("decoder", 3))}, "none"),
        ({}, {"task_factors": np.ones((2, 5, 4))}, "2 tasks"),
        ({"task_factors": np.ones((3, 5, 4))}, {"task_factors": np.ones((2, 5, 4))}, "2 tasks"),
        ({"base_model": "a/b"}, {"base_model": "c/d"}, "c/d"),
        ({}, {"kind": "prefix"}, "keys and values"),
        ({}, {"kind": "textual_inversion"}, "textual_inversion"),
    ],
)
def test_what_cannot_be_the_start_of_a_prompt_is_refused(prompt, initial, says):
    models = [options.pop("base_model", None) for options in (prompt, initial)]
    start = replace(bare(np.ones((initial.pop("rows", 5), 4)), **initial), base_model=models[1])
    with pytest.raises(InputError, match=says):
        split_from(replace(bare(np.zeros((5, 4)), **prompt), base_model=models[0]), start)


def test_the_embedded_model_has_two_names():
    start = replace(bare(np.ones((5, 4))), base_model="HuggingFaceTB/SmolLM2-135M-Instruct")
    (prompt,) = split_from(replace(bare(np.zeros((5, 4))), base_model="smollm2-135m"), start)
    assert prompt.initial.all()


def test_the_command_line_takes_a_start_for_each_prompt_in_their_order(command, embedded_vocabulary, prompt_file):
    rows = embedded_vocabulary.embeddings[1000:1012].reshape(2, 6, 576)
    paths = [prompt_file(rows[i] + 0.1 * (i + 1), f"end-{i}") for i in range(2)]
    starts = [prompt_file(rows[i], f"start-{i}") for i in range(2)]
    done = command("direction", *paths, "--initial", starts[0], "--initial", starts[1])
    assert done.status == 0
    for wrong in (starts[:1], [*starts, starts[0]]):
        done = command("direction", *paths, *(each for start in wrong for each in ("--initial", start)))
        assert done.status == 2
        assert f"There are {len(wrong)} --initial for 2 prompts" in done.err
    done = command("readings", paths[0], "--initial", starts[0], "--format", "csv")
    assert done.status == 0
    drift = np.linalg.norm(np.full(576, 0.1))
    assert pd.read_csv(io.StringIO(done.out))["drift"].tolist() == pytest.approx([drift] * 6, rel=1e-4)


def test_a_text_that_holds_no_character_leaves_the_start_unknown_and_says_so(embedded_vocabulary, tmp_path):
    """Half of a pair of UTF-16, which JSON can hold and no text can."""
    folder = peft_folder(
        tmp_path / "half", embedded_vocabulary.embeddings[:3], prompt_tuning_init="TEXT", prompt_tuning_init_text="good \ud800"
    )
    prompt = start_from_config(load_adapter(folder), embedded_vocabulary)
    assert prompt.initial is None
    assert "the config's text holds what is no character, so its start cannot be told" in prompt.notes


@pytest.mark.parametrize("spread", [0.001, 0.02, 0.05])
@pytest.mark.parametrize("drift", [0.0, 1.0])
def test_short_random_starts_are_not_taken_for_words_to_which_the_mean_is_near(embedded_vocabulary, spread, drift):
    """Seen from the mean row all of them point away from it, at the one word that lies there. `readings` calls none of them near."""
    rng = np.random.default_rng(5)
    shared = rng.standard_normal(576)
    prompt = prompt_of(spread * rng.standard_normal((10, 576)) + drift * shared / np.linalg.norm(shared))
    assert (readings(prompt, embedded_vocabulary)["q_chance"] >= LEVEL).all()
    with pytest.raises(InputError, match="only 0 of its 10 tokens are nearer to a word than chance allows"):
        recover_initial(prompt, embedded_vocabulary)


def test_recover_takes_what_a_config_names_and_guesses_only_the_others(command, embedded_vocabulary, tmp_path):
    """Both prompts stand at other words than those that their configs name; the third one names none."""
    rows = embedded_vocabulary.embeddings[3000:3006] + 0.01
    ids = (load_tokenizer(EMBEDDED_MODEL)(TEXT)["input_ids"] * 6)[:6]
    text = peft_folder(tmp_path / "text", rows, prompt_tuning_init="TEXT", prompt_tuning_init_text=TEXT)
    listed = peft_folder(tmp_path / "listed", rows, peft_type="CPT", cpt_token_ids=[700, 701, 702, 703, 704, 705])
    neither = peft_folder(tmp_path / "neither", rows)
    done = command("readings", text, listed, neither, "--model", EMBEDDED_MODEL, "--initial", "recover", "--format", "csv")
    assert done.status == 0, done.err
    tables = dict(list(pd.read_csv(io.StringIO(done.out), keep_default_na=False).groupby("prompt")))
    for name, expected, mark in (
        ("text", ids, "(from the config's text)"),
        ("listed", range(700, 706), "(from the config's token ids)"),
        ("neither", range(3000, 3006), "(recovered)"),
    ):
        assert tables[name]["initial_token"].tolist() == [embedded_vocabulary.tokens[i] for i in expected], name
        assert tables[name]["verdict"].str.endswith(mark).all(), name


@pytest.mark.parametrize("kind", ["npy", "folder"])
def test_the_command_line_starts_each_half_of_an_encoder_decoders_prompt_from_its_own_rows(kind, command, embedded_vocabulary, tmp_path):
    ids = [500, 501, 502, 900, 901, 902]
    rows = embedded_vocabulary.embeddings[ids]
    config = {"num_transformer_submodules": 2, "num_virtual_tokens": 3, "task_type": "SEQ_2_SEQ_LM"}
    trained = peft_folder(tmp_path / "prompt", rows + 0.02, **config)
    start = tmp_path / "start.npy"
    if kind == "npy":
        np.save(start, rows)
    else:
        start = peft_folder(tmp_path / "start", rows, **config)
    done = command("readings", trained, "--model", EMBEDDED_MODEL, "--initial", start, "--format", "csv")
    assert done.status == 0, done.err
    table = pd.read_csv(io.StringIO(done.out), keep_default_na=False)
    assert table["prompt"].tolist() == ["prompt (encoder)"] * 3 + ["prompt (decoder)"] * 3
    assert table["initial_token"].tolist() == [embedded_vocabulary.tokens[i] for i in ids]
    np.save(tmp_path / "half.npy", rows[:3])
    done = command("readings", trained, "--model", EMBEDDED_MODEL, "--initial", tmp_path / "half.npy")
    assert done.status == 2 and "the shape (3, 576)" in done.err


def test_the_command_line_starts_each_task_of_a_multitask_prompt_from_its_own_product(command, embedded_vocabulary, tmp_path):
    rng = np.random.default_rng(0)
    rows = np.array(embedded_vocabulary.embeddings[500:504])
    config = {"peft_type": "MULTITASK_PROMPT_TUNING", "num_tasks": 2, "num_ranks": 1}
    columns, across = rng.normal(size=(2, 4, 1)), rng.normal(size=(2, 1, 576))
    trained = multitask(peft_folder(tmp_path / "prompt", rows + 0.02, **config), columns + 0.01, across)
    start = multitask(peft_folder(tmp_path / "start", rows, **config), columns, across)
    done = command("readings", trained, "--model", EMBEDDED_MODEL, "--initial", start, "--format", "csv")
    assert done.status == 0, done.err
    table = pd.read_csv(io.StringIO(done.out), keep_default_na=False)
    moved = {"prompt (shared)": np.full((4, 576), 0.02)} | {
        f"prompt (task {i})": (rows + 0.02) * ((columns[i] + 0.01) @ across[i]) - rows * (columns[i] @ across[i]) for i in range(2)
    }
    assert list(dict.fromkeys(table["prompt"])) == list(moved)
    for name, by in moved.items():
        assert table.loc[table["prompt"] == name, "drift"].astype(float).tolist() == pytest.approx(np.linalg.norm(by, axis=1), rel=1e-3), (
            name
        )
    np.save(tmp_path / "rows.npy", rows)  # tells nothing of the tasks' factors
    done = command("readings", trained, "--model", EMBEDDED_MODEL, "--initial", tmp_path / "rows.npy", "--format", "csv")
    table = pd.read_csv(io.StringIO(done.out))
    assert table.loc[table["prompt"] == "prompt (shared)", "drift"].notna().all()
    assert table.loc[table["prompt"] != "prompt (shared)", "drift"].isna().all()
    other = multitask(peft_folder(tmp_path / "other", rows, **config | {"num_tasks": 1}), columns[:1], across[:1])
    done = command("readings", trained, "--model", EMBEDDED_MODEL, "--initial", other)
    assert done.status == 2 and "of 1 tasks" in done.err


def multitask(folder, columns, rows):
    """The folder, with the factors of each task beside the shared rows."""
    factors = {"prefix_task_cols": columns, "prefix_task_rows": rows}
    arrays = {name: torch.as_tensor(np.asarray(values, dtype=np.float32)) for name, values in factors.items()}
    save_file(load_file(folder / "adapter_model.safetensors") | arrays, folder / "adapter_model.safetensors")
    return folder


def test_paths_of_one_name_are_told_apart_by_their_folders(tmp_path, command, embedded_vocabulary):
    for run in ("run1", "run2"):
        peft_folder(tmp_path / run / "final", embedded_vocabulary.embeddings[500:504] * (1.0 if run == "run1" else 1.5))
    done = command("similarity", tmp_path / "run1" / "final", tmp_path / "run2" / "final", "--format", "csv")
    assert done.status == 0
    assert done.out.splitlines()[1].startswith("run1/final,run2/final,")


def test_a_prefix_is_no_start(tmp_path):
    with pytest.raises(AdapterError, match="keys and values"):
        split_from(bare(np.ones((2, 4))), bare(np.ones((2, 4)), kind="prefix"))
