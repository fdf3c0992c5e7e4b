"""The largest model, where it was made ready (`make qwen`): what is learned for it answers in PEFT as it does here."""

from pathlib import Path

import pytest
import torch

from soft_prompt_explorer.analysis.adapters import load_soft_prompt
from soft_prompt_explorer.analysis.asking.in_front import subject_of
from soft_prompt_explorer.analysis.models.names import is_at_hand
from soft_prompt_explorer.analysis.models.packaged import QWEN_MODEL
from soft_prompt_explorer.analysis.models.weights import is_prepared, load_model, prepare_model
from soft_prompt_explorer.trained_prompts.runs import recorded
from soft_prompt_explorer.trained_prompts.training.config import TrainingConfig

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (is_at_hand(QWEN_MODEL) and is_prepared(QWEN_MODEL)), reason="the model is not here: make qwen"),
]


@pytest.mark.parametrize(("dtype", "steps", "close"), [("bfloat16", 2, 1e-2), ("float32", 10, 1e-4)])
def test_a_prompt_of_the_largest_model_gives_the_same_logits_in_peft(dtype, steps, close, tmp_path, own_runs):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    language_model = load_model(QWEN_MODEL, dtype=dtype, device="cpu")
    config = TrainingConfig(task="antonyms", model=QWEN_MODEL, steps=steps, dtype=dtype, device="cpu")
    recorded.run(config, "it", language_model=language_model, limit=4, folder=Path(tmp_path))
    ids = language_model.tokenizer("Word: hot\nOpposite:", return_tensors="pt").input_ids
    with subject_of(load_soft_prompt(tmp_path / "it"), language_model) as ours, torch.inference_mode():
        a = ours.forward(input_ids=ids).logits[0, -1].float()
    del ours, language_model
    base = AutoModelForCausalLM.from_pretrained(prepare_model(QWEN_MODEL), dtype=getattr(torch, dtype)).eval()
    theirs = PeftModel.from_pretrained(base, tmp_path / "it").eval()
    with torch.inference_mode():
        b = theirs(input_ids=ids).logits[0, -1].float()
        bare = base(input_ids=ids).logits[0, -1].float()
    assert (a - b).abs().max() < close
    assert (a - bare).abs().max() > 0.5  # else the prompt did nothing
