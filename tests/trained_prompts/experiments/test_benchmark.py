"""The benchmark of readings: its rule by hand, its answers on planted scores, and the adapters that ship."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from soft_prompt_explorer.analysis.adapters import load_adapter
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.models.vocabulary import load_vocabulary
from soft_prompt_explorer.analysis.models.weights import load_model
from soft_prompt_explorer.analysis.tasks.shipped import TASKS
from soft_prompt_explorer.trained_prompts.experiments import benchmark, known_truth
from soft_prompt_explorer.trained_prompts.experiments.benchmark import (
    COLUMNS,
    IN_FRAMES,
    LORA,
    NULL,
    PROMPT,
    RANDOM,
    TRUE,
    TWIN,
    UNTRAINED,
    _of_tasks,
    framed_beside_plain,
    percentile,
    summary,
    with_both_lenses,
)
from soft_prompt_explorer.trained_prompts.experiments.compared_readings import READINGS, examples_in_place
from tests.support.places import EMBEDDED

NAMES = ["red", "green", "blue", "grey"]


def scores(*, named: bool, function: bool, seed: int = 0) -> pd.DataFrame:
    """Made-up scores of twelve adapters of four tasks: the true task stands out where it is named, in the twin as well unless the function is told."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(12):
        for kind in (TRUE, TWIN):
            values = rng.normal(size=4)
            if named:
                values[i % 4] += 9 if kind == TRUE or not function else 4
            rows.append(("r", f"a{i}{known_truth.SHUFFLED if kind == TWIN else ''}", PROMPT, kind, NAMES[i % 4], 0.5, *values))
    for kind, count in ((NULL, 200), (RANDOM, 100), (UNTRAINED, 3)):
        rows += [("r", f"{kind}{i}", PROMPT, kind, "", 0.5, *rng.normal(size=4)) for i in range(count)]
    return pd.DataFrame(rows, columns=["reading", "adapter", "adapters", "kind", "task", "cpu_seconds", *NAMES])


def test_the_rule_is_the_mean_over_groups_of_the_share_of_words_below_the_best_one():
    values = np.array([0.0, 5.0, 1.0, 2.0, 3.0])
    assert percentile(values, [np.array([0, 2]), np.array([4])]) == pytest.approx((1 / 5 + 3 / 5) / 2)
    assert percentile(values, [np.array([1]), np.array([], dtype=int)]) == pytest.approx(4 / 5)


def test_planted_answers_are_identified_and_noise_is_not():
    (row,) = summary(scores(named=True, function=False)).to_dict("records")
    assert row["identified"] == 1.0 and row["p"] < 0.001 and row["low"] > 0.7 and row["n"] == row["function_n"] == 12
    (row,) = summary(scores(named=False, function=False, seed=1)).to_dict("records")
    assert row["identified"] <= 0.6 and row["p"] > 0.05 and row["false_alarms"] <= 0.12


def test_the_function_is_told_only_where_twins_score_less():
    assert summary(scores(named=True, function=False))["twins_named"].iloc[0] == 1.0  # the form of the answers alone is named
    told = [summary(scores(named=True, function=function))["function"].iloc[0] for function in (True, False)]
    assert told[0] == 1.0 and 0.1 < told[1] < 0.9


def test_false_alarms_are_counted_against_the_level_of_other_null_adapters():
    table = scores(named=False, function=False)
    table.loc[table["kind"] == RANDOM, NAMES] += 9
    assert summary(table)["false_alarms"].iloc[0] == pytest.approx(100 / 103)


def test_prompts_from_frames_stand_beside_the_same_null_adapters_and_beside_the_plain_ones_of_their_start():
    plain = scores(named=False, function=False).assign(
        adapter=lambda table: table["adapter"].replace({"a0": "plural-rows-11", "a1": "plural-text-12"})
    )
    framed = plain[plain["adapter"].isin(["plural-rows-11", "plural-text-12"])].copy()
    framed.loc[:, NAMES] = np.eye(4)[framed["task"].map(NAMES.index)] * 9
    plain.loc[plain["adapter"] == "plural-rows-11", NAMES] = [-9.0, 9.0, 9.0, 9.0]  # its task is the first
    plain.loc[plain["adapter"] == "plural-text-12", NAMES] = framed.loc[framed["adapter"] == "plural-text-12", NAMES]
    framed = framed.assign(adapter=framed["adapter"] + known_truth.FRAMED_END, adapters=IN_FRAMES)
    both = pd.concat([plain, framed])
    named = summary(both).set_index("adapters")["identified"]
    assert named[IN_FRAMES] == 1.0 and len(set(summary(both)["false_alarms"])) == 1
    (row,) = framed_beside_plain(both).to_dict("records")
    assert (row["n"], row["plain"], row["framed"], row["framed_only"], row["plain_only"]) == (2, 0.5, 1.0, 1, 0)


def test_the_two_lenses_together_are_the_sum_of_what_stands_out_from_null_adapters():
    one, other = scores(named=True, function=False), scores(named=False, function=False, seed=3)
    table = pd.concat([one.assign(reading="logit lens"), other.assign(reading="difference lens")])
    both = with_both_lenses(table).query("reading == 'both lenses'").set_index("adapter")
    for name in ("a3", "null7"):
        total = 0.0
        for each in (one, other):
            null = each[each["kind"] == NULL][NAMES]
            total = total + (each.set_index("adapter").loc[name, NAMES].to_numpy(float) - null.mean().to_numpy()) / null.std().to_numpy()
        np.testing.assert_allclose(both.loc[name, NAMES].to_numpy(float), total)
    assert both.loc["a3", "cpu_seconds"] == 1.0
    assert with_both_lenses(one) is one  # where only one of them was asked


def test_a_reading_may_score_tasks_in_place_of_words():
    words = {"red": [np.array([0])], "blue": [np.array([2])]}
    assert _of_tasks({"blue": 2, "red": -1.5}, words, 3, "r") == [-1.5, 2.0]
    assert _of_tasks(np.array([3.0, 1.0, 2.0]), words, 3, "r") == pytest.approx([2 / 3, 1 / 3])
    for wrong in ({"red": 1.0}, {"red": 1.0, "blue": np.nan}, np.ones(4), np.array([1.0, np.nan, 2.0]), "abc", 5):
        with pytest.raises(InputError, match="no number for each of 3 words, nor one for each of 2 tasks"):
            _of_tasks(wrong, words, 3, "r")


def test_examples_in_place_of_an_adapter_are_compared_as_plain_calls_do():
    import torch

    adapter = load_adapter(known_truth.FOLDER / "plural-rows-11")
    language_model = load_model(EMBEDDED)
    model, tokenizer = language_model
    found = examples_in_place(adapter, load_vocabulary(EMBEDDED), language_model)
    task = TASKS["plural"]
    shown = task.examples("train").head(4)
    before = f"{task.description}\n\n" + "".join(f"{text}{target}\n\n" for text, target in zip(shown["text"], shown["target"], strict=True))
    words = model.get_input_embeddings()

    def answers(in_front: torch.Tensor, text: str) -> torch.Tensor:
        rows = torch.cat([in_front, words(torch.tensor(tokenizer(text).input_ids))])[None]
        with torch.no_grad():
            return model(inputs_embeds=rows).logits[0, -1].log_softmax(-1)

    without = after = 0.0
    nothing = words(torch.zeros(0, dtype=torch.long))
    for text in task.examples("held-out")["text"][:6]:
        log_p = answers(torch.from_numpy(adapter.embeddings), text)
        for_text = answers(words(torch.tensor(tokenizer(before).input_ids)), text)
        without += float((log_p.exp() * (log_p - answers(nothing, text))).sum())
        after += float((log_p.exp() * (log_p - for_text)).sum())
    assert found["plural"] == pytest.approx(np.log(without / after), abs=1e-3)
    assert max(found, key=found.get) == "plural" and set(found) == set(TASKS)


def test_every_adapter_of_known_truth_ships_with_its_start_and_its_score():
    assert len(known_truth.RECIPES) == 98
    for name, recipe in known_truth.RECIPES.items():
        adapter = load_adapter(known_truth.FOLDER / name)
        assert adapter.kind == ("lora" if recipe.method == "lora" else "soft_prompt")
        assert adapter.kind == "lora" or adapter.initial.shape == adapter.embeddings.shape == (10, 576)
    size = sum(path.stat().st_size for path in known_truth.FOLDER.rglob("*") if path.is_file())
    assert size < 8_000_000


def test_the_words_of_a_task_are_its_own_answers():
    vocabulary = load_vocabulary(EMBEDDED)
    groups = known_truth.words_of_tasks(vocabulary)
    assert list(groups) == list(TASKS)
    answers = [set(group[0].tolist()) for group in groups.values()]
    assert all(not a & b for i, a in enumerate(answers) for b in answers[:i])
    assert [vocabulary.tokens[i] for i in groups["number-words-french"][0]] == [" un", " cent", " et", " cents", " seize", " sept"]


def test_what_is_kept_is_of_these_adapters_and_of_both_kinds():
    kept = benchmark.kept_scores()
    assert set(kept.loc[kept["kind"].isin([TRUE, TWIN]), "adapter"]) == set(known_truth.RECIPES)
    table = summary(kept)
    assert list(table.columns) == COLUMNS and set(table["adapters"]) == {PROMPT, LORA, IN_FRAMES}
    assert (table.loc[table["adapters"] == PROMPT, "n"] == 30).all() and set(table["reading"]) == {*READINGS, "both lenses"}
    assert (framed_beside_plain(kept)["n"] == 18).all()


def test_a_reading_that_cannot_be_had_is_refused_in_a_sentence():
    for name in ("no_such_module:f", "math:no_such_function", "nothing"):
        with pytest.raises(InputError, match="There is no reading"):
            benchmark.reading_of(name)
    assert benchmark.reading_of("math:sqrt")(4) == 2


# It knows the task by the adapter's name.
OWN = """
def reading(adapter, vocabulary, language_model):
    own = max((task for task in TASKS if adapter.name.startswith(task)), key=len, default=None)
    return {task: float(task == own) for task in TASKS}
"""


@pytest.mark.slow
def test_a_reading_of_ones_own_is_found_in_the_folder_that_one_is_in(tmp_path):
    (tmp_path / "of_mine.py").write_text(f"TASKS = {list(TASKS)}\n{OWN}", encoding="utf-8")
    spe = Path(sys.executable).parent / "spe"
    said = subprocess.run(
        [spe, "benchmark", "--reading", "of_mine:reading", "--format", "csv"], cwd=tmp_path, capture_output=True, text=True
    )
    assert said.returncode == 0, said.stderr
    table = pd.read_csv(io.StringIO(said.stdout)).set_index("adapters")
    # A name tells the task of all that were trained, and nothing of what the twin, which has the same name, did not learn.
    assert (table["identified"] == 1).all() and table.loc[[PROMPT, LORA], "function"].tolist() == [0, 0]


def test_there_is_no_recipe_of_another_name(tmp_path):
    with pytest.raises(InputError, match="no adapter of known truth called 'x'"):
        known_truth.make(["x"], folder=tmp_path)
