import re
from contextlib import ExitStack
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from peft import LoraConfig, PeftModel, PrefixTuningConfig, PromptTuningConfig, get_peft_model
from rouge_score.rouge_scorer import RougeScorer

from soft_prompt_explorer.analysis.adapters import load_adapter
from soft_prompt_explorer.analysis.asking.answers import predictions, write
from soft_prompt_explorer.analysis.asking.in_front import Subject, bare, subject_of
from soft_prompt_explorer.analysis.asking.scores import (
    COLUMNS,
    SCORECARD_COLUMNS,
    calibration,
    evaluate,
    score,
    scorecard,
    scorecard_and_calibration,
)
from soft_prompt_explorer.analysis.core.folders import GALLERY
from soft_prompt_explorer.analysis.models.weights import LanguageModel, load_model
from soft_prompt_explorer.analysis.tasks import scoring
from soft_prompt_explorer.analysis.tasks.shipped import TASKS
from soft_prompt_explorer.analysis.tasks.task import Task
from soft_prompt_explorer.trained_prompts.training.config import TrainingConfig
from soft_prompt_explorer.trained_prompts.training.trainer import train
from tests.support.plain_calls import label_scores


@pytest.mark.parametrize("with_prompt", [False, True])
def test_labels_of_one_and_of_several_tokens_are_scored_as_one_by_one(toy_task, toy_config, with_prompt):
    model, tokenizer = load_model(toy_config.model, device="cpu")
    prompt = np.random.default_rng(0).normal(size=(3, 16)).astype(np.float32) if with_prompt else None
    table = toy_task.examples("held-out")
    scores = np.array([label_scores(model, tokenizer, prompt, text, toy_task.labels) for text in table["text"]])
    truth = [toy_task.labels.index(target) for target in table["target"]]
    lengths = [len(tokenizer(target, add_special_tokens=False).input_ids) for target in table["target"]]
    assert max(lengths) > min(lengths)

    row = evaluate("it", prompt, "toy", language_model=LanguageModel(model, tokenizer)).iloc[0]
    assert list(row.index) == COLUMNS
    assert row["n"] == 4
    assert row["score"] == np.mean(scores.argmax(axis=1) == truth)
    assert row["loss"] == pytest.approx(np.mean([-scores[i, t] / n for i, (t, n) in enumerate(zip(truth, lengths, strict=True))]), abs=1e-4)


@pytest.mark.slow
def test_sentiment_is_scored_as_plain_transformers_calls_score_it(embedded_model):
    model, tokenizer = embedded_model
    prompt = model.get_input_embeddings().weight[1000:1005].numpy()
    task = TASKS["sentiment"]
    table = task.examples("held-out").head(12)
    chosen = [task.labels[int(np.argmax(label_scores(model, tokenizer, prompt, text, task.labels)))] for text in table["text"]]
    row = evaluate("it", prompt, "sentiment", language_model=embedded_model, limit=12).iloc[0]
    assert row["score"] == np.mean(np.array(chosen) == table["target"].to_numpy())


@pytest.mark.slow
def test_a_free_answer_counts_when_greedy_generation_writes_it(embedded_model):
    model, tokenizer = embedded_model
    table = TASKS["capitals"].examples("held-out").head(20)
    right = 0
    for text, target in zip(table["text"], table["target"], strict=True):
        inputs = tokenizer(text, return_tensors="pt")
        written = tokenizer.decode(model.generate(**inputs, max_new_tokens=12, do_sample=False)[0, inputs.input_ids.shape[1] :])
        right += written.startswith(target) and not written[len(target) : len(target) + 1].isalnum()
    row = evaluate("it", None, "capitals", language_model=embedded_model, limit=20).iloc[0]
    assert 0 < right < 20
    assert row["score"] == right / 20


def test_the_interval_is_wilsons(toy_task, toy_config):
    row = evaluate("it", None, "toy", language_model=load_model(toy_config.model, device="cpu")).iloc[0]
    n, p, z = 4, row["score"], 1.959963984540054
    centre, half = (p + z * z / (2 * n)) / (1 + z * z / n), z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    assert (row["low"], row["high"]) == (pytest.approx(centre - half), pytest.approx(centre + half))


# --- Every method, against plain transformers and PEFT calls -----------------------------------------------------------

KINDS = ("bare", "prompt", "prefix", "lora")
TEXTS = [
    "The cat SAT",
    "the Mat",
    "a new line of The Text on the mat",
    "Text",
    "on",
    "Of a cat",
    "the café",
    "sat ON the mat sat",
    "New",
    "中文 the",
]
ENDS = re.compile(r" *[\w'’-]")  # what follows an answer and goes on with it


@pytest.fixture
def subject_and_peft(language_model, tmp_path):
    """What PEFT drew and saved: as the subject that is scored here, and as PEFT's own model, loaded from its folder."""
    with ExitStack() as stack:

        def make(kind: str):
            if kind == "bare":
                return bare(language_model), load_model(language_model[0].config.name_or_path, device="cpu")[0]
            torch.manual_seed(5)
            settings = {
                "prompt": PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3),
                "prefix": PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3),
                "lora": LoraConfig(task_type="CAUSAL_LM", r=3, target_modules=["q_proj", "up_proj"], init_lora_weights=False),
            }[kind]
            fresh = get_peft_model(load_model(language_model[0].config.name_or_path, device="cpu")[0], settings)
            with torch.no_grad():
                for parameter in fresh.parameters():
                    if parameter.requires_grad:
                        parameter.mul_({"prompt": 0.1, "prefix": 2.0, "lora": 3.0}[kind])
            fresh.save_pretrained(tmp_path / kind)
            theirs = PeftModel.from_pretrained(load_model(language_model[0].config.name_or_path, device="cpu")[0], tmp_path / kind)
            what = tmp_path / kind if kind == "lora" else load_adapter(tmp_path / kind)
            return stack.enter_context(subject_of(what, language_model)), theirs.eval()

        yield make


def plain_logits(model, ids: list[int]) -> torch.Tensor:
    """(length, V), of one row of token ids; what stands in front of it is left out."""
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long)).logits[0, -len(ids) :]


def plainly_written(model, tokenizer, text: str, most: int) -> tuple[str, float]:
    """Token by token, the whole row through the model each time, up to the end of the line; and the product of the probabilities."""
    ids, written, probability = tokenizer(text).input_ids, [], 1.0
    for _ in range(most):
        chances = plain_logits(model, ids + written)[-1].softmax(-1)
        written.append(int(chances.argmax()))
        probability *= chances.max().item()
        if "\n" in tokenizer.decode(written[-1:]) or written[-1] == tokenizer.eos_token_id:
            break
    return tokenizer.decode(written, skip_special_tokens=True).split("\n")[0], probability


def task_of(inputs, targets, labels=None, scoring="") -> Task:
    table = pd.DataFrame({"input": inputs, "target": targets, "split": "held-out"})
    return Task("made", "Made.", "Say {input}\nAnswer:", labels, "made here", lambda: table, scoring=scoring)


@pytest.mark.parametrize("kind", KINDS)
def test_labels_are_scored_as_plain_calls_score_them(kind, subject_and_peft, language_model):
    ours, theirs = subject_and_peft(kind)
    tokenizer = language_model[1]
    labels = (" the cat", " mat", " na")
    task = task_of(TEXTS, [labels[i % 3] for i in range(len(TEXTS))], labels)
    answered = predictions(ours, task, task.examples("held-out"))
    assert answered["text"].tolist() == [f"Say {text}\nAnswer:" for text in TEXTS]
    chosen, sure = [], []
    for row in answered.itertuples():
        read, chances = tokenizer(row.text).input_ids, []
        for label in labels:
            answer = tokenizer(label, add_special_tokens=False).input_ids
            steps = plain_logits(theirs, read + answer).log_softmax(-1)[len(read) - 1 :]
            chances.append(sum(steps[i, token].item() for i, token in enumerate(answer)))
            if label == row.target:
                assert row.loss == pytest.approx(-chances[-1] / len(answer), abs=1e-4)
        chosen.append(labels[int(np.argmax(chances))])
        sure.append(np.exp(max(chances)) / np.exp(chances).sum())
        assert row.probability == pytest.approx(sure[-1], abs=1e-4)
    assert answered["answer"].tolist() == chosen
    right = np.array(chosen) == answered["target"].to_numpy()
    assert answered["correct"].tolist() == right.tolist()
    assert score("it", ours, task, task.examples("held-out"))["score"].item() == right.mean()

    # Calibration by hand: ten bins, each with its upper edge.
    error = 0.0
    for low in np.arange(10) / 10:
        inside = [i for i, p in enumerate(sure) if low < p <= low + 0.1]
        if inside:
            error += len(inside) / len(sure) * abs(np.mean(right[inside]) - np.mean([sure[i] for i in inside]))
    card = scorecard("it", ours, task).set_index("measure")["value"]
    assert card["calibration error"] == pytest.approx(error, abs=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_exact_match_is_what_greedy_generation_writes(kind, subject_and_peft, language_model):
    """Some targets are what the model writes, others begin so and some are something else."""
    ours, theirs = subject_and_peft(kind)
    tokenizer = language_model[1]
    written = [plainly_written(theirs, tokenizer, f"Say {text}\nAnswer:", 8)[0] for text in TEXTS]
    targets = []
    for i, text in enumerate(written):
        ids = tokenizer(text, add_special_tokens=False).input_ids[: 1 + i % 3]
        targets.append(tokenizer.decode(ids) if i % 4 else " the cat")
    task = task_of(TEXTS, [target if target.strip() else " mat" for target in targets])
    answered = predictions(ours, task, task.examples("held-out"))
    expected = []
    for row in answered.itertuples():
        wanted = tokenizer(row.target, add_special_tokens=False).input_ids
        ids, generated = tokenizer(row.text).input_ids, []
        for _ in range(len(wanted) + 1):
            generated.append(int(plain_logits(theirs, ids + generated)[-1].argmax()))
        expected.append(generated[:-1] == wanted and not ENDS.match(tokenizer.decode(generated[-1:], skip_special_tokens=True)))
        steps = plain_logits(theirs, ids + wanted).log_softmax(-1)[len(ids) - 1 :]
        assert row.loss == pytest.approx(-np.mean([steps[i, token].item() for i, token in enumerate(wanted)]), abs=1e-4)
        if expected[-1]:
            assert row.probability == pytest.approx(np.exp(sum(steps[i, token].item() for i, token in enumerate(wanted))), abs=1e-4)
            assert row.answer == row.target
        else:
            assert row.answer.endswith("…")
    assert answered["correct"].tolist() == expected
    assert score("it", ours, task, task.examples("held-out"))["score"].item() == np.mean(expected)


def test_an_answer_counts_where_no_word_goes_on_with_it(toy_config, language_model, monkeypatch):
    """A model that has learned four lines by heart is asked for what each begins with."""
    tokenizer = language_model[1]
    lines = {"the new line": " mat.", "the text": " mat on", "on the mat": " the cat sat", "a café": " the cat, on"}
    learned = replace(task_of(list(lines), list(lines.values())), name="lines")
    table = learned.load().assign(split="train")
    monkeypatch.setitem(TASKS, "lines", replace(learned, load=lambda: table))
    config = TrainingConfig(task="lines", model=toy_config.model, method="full", steps=80, batch_size=4, learning_rate=0.01)
    *_, last = train(config, language_model=language_model)
    for text, line in lines.items():
        ids = tokenizer(f"Say {text}\nAnswer:", return_tensors="pt").input_ids
        written = last.model.generate(ids, max_new_tokens=8, do_sample=False, eos_token_id=None)[0, ids.shape[1] :]
        assert tokenizer.decode(written).startswith(line)

    asked = task_of([*lines, "the text"], [" mat", " mat", " the cat", " the cat", " text"])
    answered = predictions(Subject(last.model, tokenizer), asked, asked.examples("held-out"))
    assert answered["correct"].tolist() == [True, False, False, True, False]
    assert answered["answer"].tolist()[:4] == [" mat", " mat on…", " the cat sat…", " the cat"]


@pytest.mark.parametrize("kind", KINDS)
def test_rouge_is_rouge_scores_own_of_what_is_written_one_by_one(kind, subject_and_peft, language_model):
    ours, theirs = subject_and_peft(kind)
    tokenizer = language_model[1]
    texts = [f"Say {text}\nAnswer:" for text in TEXTS[:5]]
    targets = [f" {plainly_written(theirs, tokenizer, text, 4)[0]} mat" for text in texts]
    most = max(len(tokenizer(target, add_special_tokens=False).input_ids) for target in targets) + 8
    written = [plainly_written(theirs, tokenizer, text, most) for text in texts]

    table = write(ours, texts, most)
    assert table["answer"].tolist() == [text for text, _ in written]
    np.testing.assert_allclose(table["probability"], [probability for _, probability in written], rtol=1e-2, atol=1e-12)

    task = task_of(TEXTS[:5], targets, scoring="rouge")
    answered = predictions(ours, task, task.examples("held-out"))
    assert answered["answer"].tolist() == [text for text, _ in written]
    card = scorecard("it", ours, task).set_index("measure")
    for measure, name in (("ROUGE-1", "rouge1"), ("ROUGE-2", "rouge2"), ("ROUGE-L", "rougeL")):
        scorer = RougeScorer([name])
        each = [scorer.score(target, text)[name].fmeasure for target, (text, _) in zip(targets, written, strict=True)]
        assert card.loc[measure, "value"] == pytest.approx(np.mean(each), abs=1e-9)
    assert 0 < card.loc["ROUGE-1", "value"] < 1


def test_a_scorecard_leaves_nothing_out_and_its_changed_inputs_are_those_changed_by_hand(subject_and_peft):
    ours, _ = subject_and_peft("prompt")
    labels = (" the cat", " mat")
    targets = [labels[i % 2] for i in range(len(TEXTS))]
    task = task_of(TEXTS, targets, labels)
    card = scorecard("it", ours, task)
    assert card.columns.tolist() == SCORECARD_COLUMNS
    assert card["measure"].tolist() == [
        "accuracy", "accuracy, lower case", "accuracy, typing errors", "loss", "calibration error", "seconds an example",
    ]  # fmt: skip
    again, bins = scorecard_and_calibration("it", ours, task)
    timed = card["measure"] == "seconds an example"
    pd.testing.assert_frame_equal(again[~timed], card[~timed])
    pd.testing.assert_frame_equal(bins, calibration("it", ours, task))
    assert bins["n"].sum() == len(TEXTS) and (bins["accuracy"] * bins["n"]).sum() == pytest.approx(card["value"][0] * len(TEXTS))
    assert (card["n"] == len(TEXTS)).all() and set(card["prompt"]) == {"it"} and set(card["task"]) == {"made"}
    values = card.set_index("measure")
    assert values.loc["loss", "value"] == pytest.approx(predictions(ours, task, task.examples("held-out"))["loss"].mean(), abs=1e-9)
    assert values.loc[["loss", "calibration error", "seconds an example"], ["low", "high"]].isna().all(axis=None)
    rng = np.random.default_rng(0)
    by_hand = {"lower case": [text.lower() for text in TEXTS], "typing errors": [scoring.with_typos(text, rng) for text in TEXTS]}
    assert by_hand["typing errors"] != TEXTS
    for change, inputs in by_hand.items():
        changed = task_of(inputs, targets, labels)
        assert values.loc[f"accuracy, {change}", "value"] == predictions(ours, changed, changed.examples("held-out"))["correct"].mean()
    assert scorecard("it", ours, replace(task, labels=None), limit=4)["measure"].tolist() == [
        "exact match", "ROUGE-L", "ROUGE-1", "ROUGE-2", "exact match, lower case", "exact match, typing errors", "loss", "calibration error",
        "seconds an example",
    ]  # fmt: skip


def test_the_words_of_a_template_keep_their_capitals_and_the_losses_are_those_of_lower_cased_inputs(subject_and_peft, monkeypatch):
    """Also where the template's words stand in the input, and where it has nothing after it."""
    from soft_prompt_explorer.analysis.asking import scores as evaluation
    from soft_prompt_explorer.analysis.asking.answers import predictions

    ours, _ = subject_and_peft("bare")
    seen = []
    real = predictions
    monkeypatch.setattr(
        evaluation, "predictions", lambda subject, task, table, **options: seen.append(table) or real(subject, task, table, **options)
    )
    for template in ("Say {input}\nAnswer:", "{input}", "THE Mat {input} Mat"):
        seen.clear()
        inputs = [text for text in TEXTS if text != "Text"]
        task = replace(task_of(inputs, [" mat", " the cat", " mat"] * 3, (" mat", " the cat")), template=template)
        scorecard("it", ours, task)
        assert seen[1]["text"].tolist() == [template.replace("{input}", text.lower()) for text in inputs]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Position ids are not supported")
@pytest.mark.parametrize("name", ["sentiment-words-1", "capitals-words-1"])
def test_a_shipped_prompt_is_scored_as_peft_and_transformers_score_it(name, embedded_model):
    """Labels by the logits of PEFT's model, free answers by its own generation."""
    if not (GALLERY / name).is_dir():
        pytest.skip("it is being trained")
    n = 10
    task, tokenizer = TASKS[name.split("-")[0]], embedded_model[1]
    table = task.examples("held-out").head(n)
    theirs = PeftModel.from_pretrained(load_model("smollm2-135m", device="cpu")[0], GALLERY / name)
    right = []
    for text, target in zip(table["text"], table["target"], strict=True):
        inputs = tokenizer(text, return_tensors="pt")
        if task.labels:
            with torch.no_grad():
                chances = theirs(**inputs).logits[0, -1].log_softmax(-1)
            right.append(max(task.labels, key=lambda label: chances[tokenizer(label).input_ids[0]]) == target)
            continue
        generated = theirs.generate(**inputs, max_new_tokens=10, do_sample=False, pad_token_id=tokenizer.eos_token_id)[
            0, inputs.input_ids.shape[1] :
        ]
        written = tokenizer.decode(generated, skip_special_tokens=True).split("\n")[0]
        right.append(written.startswith(target) and not ENDS.match(written[len(target) :]))
    row = evaluate(name, load_adapter(GALLERY / name).embeddings, task.name, language_model=embedded_model, limit=n).iloc[0]
    assert row["score"] == np.mean(right)
    assert np.mean(right) > 0
