"""What things say of themselves in a notebook is true of them, and a stranger's text is no markup there."""

from dataclasses import replace

import soft_prompt_explorer as spe
from soft_prompt_explorer.analysis.core.notebook import TELLERS
from soft_prompt_explorer.analysis.prompts.verdicts import readings


def test_a_prompt_tells_its_words_and_how_many_tokens_have_which_verdict(embedded_vocabulary):
    prompt = spe.load_adapter(spe.GALLERY / "plural-words-1")
    readings(prompt, embedded_vocabulary)  # so that the null is drawn
    told = prompt._repr_html_()
    assert "<b>plural-words-1</b>: soft_prompt, 10 × 576" in told
    assert "Verdicts: 10 echo." in told
    assert told.count("<tr>") == 11 and "<td>␣organ</td>" in told


def test_a_prompt_of_a_model_that_is_not_here_says_so():
    prompt = replace(spe.load_adapter(spe.GALLERY / "plural-words-1"), base_model="nobody/nothing")
    assert "once the vocabulary of its model is at hand" in prompt._repr_html_()


def test_a_lora_tells_its_modules_and_a_vocabulary_its_size(embedded_vocabulary):
    told = spe.load_adapter(spe.GALLERY / "capitals-lora-8")._repr_html_()
    assert "LoRA of 60 modules" in told and told.count("<tr>") == 13 and "and 48 more" in told
    assert "49,152 tokens, 576 wide" in embedded_vocabulary._repr_html_()
    assert len(TELLERS) == 3


def test_what_a_file_says_is_text():
    prompt = replace(spe.load_adapter(spe.GALLERY / "plural-words-1"), name="<script>alert(1)</script>", method="<b>")
    told = prompt._repr_html_()
    assert "<script>" not in told and "&lt;script&gt;" in told and "&lt;b&gt;" in told
