"""Prompts that learn inside texts: what the model sees, whose turn it is, and that without a frame nothing is different."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from soft_prompt_explorer.analysis.adapters.run_file import read_description
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.trained_prompts.runs import recorded as runs
from soft_prompt_explorer.trained_prompts.runs.card import command_of
from soft_prompt_explorer.trained_prompts.training.config import TrainingConfig
from soft_prompt_explorer.trained_prompts.training.trainer import train
from tests.support.plain_calls import plain_loss
from tests.support.training import trained

FRAMES = ("Please §.", "§\n")


def test_each_step_is_adam_on_the_loss_of_the_examples_behind_the_next_frame(toy_task, toy_config, language_model):
    model, tokenizer = language_model
    examples = toy_task.examples("train")
    steps = list(train(replace(toy_config, frames=FRAMES), language_model=language_model))

    prompt = torch.nn.Parameter(torch.from_numpy(steps[0].embeddings.copy()))
    optimiser = torch.optim.Adam([prompt])
    words = model.get_input_embeddings()
    for step, (before, after) in zip(steps[1:], [("", ""), ("Please ", "."), ("", "\n"), ("", "")], strict=True):
        optimiser.param_groups[0]["lr"] = toy_config.learning_rate * (5 - step.step) / 4
        rows = [words(torch.tensor(tokenizer(text, add_special_tokens=False).input_ids, dtype=torch.long)) for text in (before, after)]
        loss = plain_loss(model, tokenizer, torch.cat([rows[0], prompt, rows[1]]), examples["text"], examples["target"])
        assert step.loss == pytest.approx(loss.item(), abs=1e-5)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        np.testing.assert_allclose(step.embeddings, prompt.detach().numpy(), atol=1e-4)


def test_a_frame_of_nothing_is_the_plain_use(toy_config, language_model):
    plain, framed = trained(toy_config, language_model), trained(replace(toy_config, frames=("§",)), language_model)
    np.testing.assert_allclose(framed.embeddings, plain.embeddings, atol=1e-5)
    assert "frames" not in toy_config.described()


def test_a_prompt_can_be_drawn_to_words_inside_a_frame(toy_config, language_model):
    framed = trained(replace(toy_config, frames=FRAMES, readable=1.0), language_model)
    assert not np.allclose(framed.embeddings, trained(replace(toy_config, readable=1.0), language_model).embeddings, atol=1e-3)


def test_a_run_that_was_broken_off_goes_on_with_the_frame_whose_turn_it_is(toy_config, language_model):
    config = replace(toy_config, frames=FRAMES)
    whole = list(train(config, language_model=language_model))

    taken = None
    for step in train(config, language_model=language_model):
        taken = step.checkpoint()
        if step.step == 2:
            break
    rest = list(train(config, language_model=language_model, resume=taken))
    assert [step.step for step in rest] == [3, 4]
    np.testing.assert_array_equal(rest[-1].embeddings, whole[-1].embeddings)


def test_the_run_and_its_command_say_its_frames(toy_config, language_model, own_runs):
    runs.run(replace(toy_config, frames=FRAMES), "framed", language_model=language_model)
    run = read_description(own_runs / "framed")
    assert run["config"]["frames"] == list(FRAMES)
    assert "--frame 'Please §.' --frame '§\\n'" in command_of(run)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"frames": ("Please.",)}, "stands once"),
        ({"frames": ("§ and §",)}, "stands once"),
        ({"frames": ("§" + "x" * 400,)}, "at most 400"),
        ({"frames": ("Please §.",), "method": "lora"}, "not what lora learns"),
    ],
)
def test_impossible_frames_are_refused(settings, says):
    with pytest.raises(InputError, match=says):
        TrainingConfig(task="plural", **settings)
