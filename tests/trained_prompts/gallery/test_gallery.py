import json

import numpy as np
import pytest

from soft_prompt_explorer.analysis.adapters import load_adapter
from soft_prompt_explorer.analysis.adapters.run_file import read_description
from soft_prompt_explorer.analysis.asking.lora import applied
from soft_prompt_explorer.analysis.asking.scores import compare_lora, evaluate
from soft_prompt_explorer.analysis.core.folders import GALLERY
from soft_prompt_explorer.trained_prompts.gallery import RECIPES
from soft_prompt_explorer.trained_prompts.runs.store import list_runs
from soft_prompt_explorer.trained_prompts.training.settling import settled

SHIPPED = sorted(path.parent.name for path in GALLERY.glob("*/run.json"))
LORAS = [name for name in SHIPPED if RECIPES[name].method == "lora"]
PROMPTS = [name for name in SHIPPED if name not in LORAS]


TASKS = {
    "sentiment": 1066,
    "capitals": 70,
    "antonyms": 86,
    "plural": 100,
    "past-tense": 100,
    "number-words": 100,
    "first-letter": 198,
}  # held-out examples
SCORED = 500  # of them, at most, of runs that were made since the gallery has been so large


def test_six_tasks_by_three_seeds_ship_with_ten_and_twenty_tokens_and_both_starts():
    runs = list_runs().query("origin == 'gallery' and method == 'prompt-tuning' and readable == 0")
    assert set(runs["task"]) == set(TASKS)
    whole = [task for task, of_task in runs.groupby("task") if {1, 2, 3} <= set(of_task["seed"])]
    assert len(whole) >= 6
    for task, of_task in runs[runs["task"].isin(whole)].groupby("task"):
        assert {10, 20} <= set(of_task["tokens"]), task
        assert {"sample-vocab", "random"} <= set(of_task["init"]), task
    assert sum(path.stat().st_size for path in GALLERY.rglob("*")) < 25 * 2**20


def test_on_six_tasks_prompt_tuning_beats_the_bare_model_beyond_both_intervals():
    beyond = set()
    for name in PROMPTS:
        run = read_description(GALLERY / name)
        if run["scores"]["trained"]["low"] > run["scores"]["no prompt"]["high"]:
            beyond.add(run["config"]["task"])
    assert len(beyond) >= 6, beyond


def test_three_prompts_that_were_drawn_to_words_ship_and_say_so():
    drawn = list_runs().query("origin == 'gallery' and readable > 0")
    assert len(drawn) >= 3
    for name in drawn["name"]:
        assert "drawn to words" in " ".join(load_adapter(GALLERY / name).notes)


@pytest.mark.parametrize("name", SHIPPED)
def test_what_ships_was_made_by_its_recipe_and_beats_the_bare_model(name):
    run = read_description(GALLERY / name)
    assert run["config"] == json.loads(json.dumps(settled(RECIPES[name]).described()))
    assert run["steps_done"] == RECIPES[name].steps
    assert run["scores"]["trained"]["score"] > run["scores"]["no prompt"]["score"]
    held_out = TASKS[run["config"]["task"]]
    assert run["scores"]["trained"]["n"] in (held_out, min(held_out, SCORED))


@pytest.mark.slow
@pytest.mark.parametrize("name", PROMPTS)
def test_peft_loads_a_shipped_prompt_and_its_logits_are_those_of_the_rows_put_in_front_by_hand(name, embedded_model):
    import torch
    from peft import PeftModel

    model, tokenizer = embedded_model
    rows = load_adapter(GALLERY / name).embeddings
    peft_model = PeftModel.from_pretrained(model, GALLERY / name)
    np.testing.assert_array_equal(peft_model.get_prompt(batch_size=1)[0].detach().numpy(), rows)
    ids = tokenizer("Review: a wonderful , moving film .\nSentiment:", return_tensors="pt")
    with torch.no_grad():
        by_hand = model(inputs_embeds=torch.cat([torch.from_numpy(rows)[None], model.get_input_embeddings()(ids.input_ids)], dim=1)).logits
        assert abs(peft_model(**ids).logits - by_hand).max() < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in PROMPTS if name.endswith("words-1") and not name.startswith("sentiment")])
def test_the_score_on_a_card_can_be_measured_again(name, embedded_model):
    run = read_description(GALLERY / name)
    score = run["scores"]["trained"]
    row = evaluate(name, load_adapter(GALLERY / name).embeddings, run["config"]["task"], language_model=embedded_model).iloc[0]
    # One answer may tip over on another processor; the loss is the sharper measure.
    assert abs(row["score"] - score["score"]) <= 1.01 / score["n"]
    assert row["loss"] == pytest.approx(score["loss"], abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", LORAS)
def test_a_shipped_lora_is_read_loaded_by_peft_and_scores_what_its_card_says(name, embedded_model):
    from peft import PeftModel

    model, tokenizer = embedded_model
    adapter = load_adapter(GALLERY / name)
    assert {factors.rank for factors in adapter.modules.values()} == {RECIPES[name].rank} and len(adapter) == 60
    inputs = tokenizer("Country: Japan\nCapital:", return_tensors="pt")
    with applied(model, GALLERY / name):
        ours = model(**inputs).logits
    peft_model = PeftModel.from_pretrained(model, GALLERY / name)
    try:
        assert abs(peft_model(**inputs).logits - ours).max() < 1e-4
    finally:
        peft_model.unload()
    task, kept = RECIPES[name].task, read_description(GALLERY / name)["scores"]["trained"]
    if task == "capitals":
        row = compare_lora(GALLERY / name, name, task, language_model=embedded_model).set_index("prompt").loc[name]
        assert abs(row["score"] - kept["score"]) <= 1.01 / kept["n"]
        assert row["loss"] == pytest.approx(kept["loss"], abs=1e-3)
