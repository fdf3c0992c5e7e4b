"""The words of the field and of the explorer, a record each: the page Learn and docs/glossary.md are made from them."""

from __future__ import annotations

from dataclasses import dataclass

from soft_prompt_explorer.analysis.behaviour.verdict import LABELS
from soft_prompt_explorer.analysis.core.papers import BENJAMINI, HEWITT, HU, KHASHABI, LESTER, LI, LIU, MINDER, WEN, Paper
from soft_prompt_explorer.analysis.prompts.verdicts import VERDICTS

INTRODUCTION = "The words that the explorer uses, in short. Where a word stands for a figure, its measure tells how it is computed."


@dataclass(frozen=True)
class Term:
    """One word.

    Attributes
    ----------
    says : what it means, in one to three sentences.
    measure : the name of the measure that tells how it is computed, if there is one.
    paper : where it comes from, if from one paper.
    """

    word: str
    says: str
    measure: str = ""
    paper: Paper | None = None


_TERMS = (
    Term("Adapter", "A small file that changes what a large model does, while the model's own weights stay as they are. Soft prompts, prefixes and LoRAs are adapters."),
    Term("Base model", "The model as it was published, without any adapter."),
    Term("Causal", "A direction or a word is causal when taking it away, or putting it in alone, changes the answers more than other directions of the same size do.", "Task direction out, and alone"),
    Term("Cluster", "Virtual tokens that lie close together. It is believed only when resamples find it again and chance does not make it as tight.", "Cluster stability"),
    Term("Control", "The same question asked of something that cannot know the answer. A figure says something only beside its control.", paper=HEWITT),
    Term("Difference lens", "The words that an adapter makes likelier on texts that have nothing to do with its task. It needs no data of the task.", "Difference lens", MINDER),
    Term("Direction", "What all virtual tokens of a prompt moved along together, from where they started.", "Concentration"),
    Term("Displacement", "How far, and which way, training moved a virtual token from its start."),
    Term("Embedding", "The vector that a model reads in place of a word. A soft prompt puts vectors of its own in the same place."),
    Term("Examples", "Inputs with their answers, written in front of a question. With four of them a model often does a task that it was never trained on."),
    Term("Held out", "Examples that took no part in training or in any choice. Scores are told of these alone."),
    Term("Interval", "Where the true value lies in 95 of 100 such measurements. 0.89 (0.81 to 0.94) says that 0.85 would be no surprise and 0.70 would be."),
    Term("LoRA", "Low-rank adaptation: two thin matrices beside a weight of the model. Their product is added to the weight.", paper=HU),
    Term("Nearest word", "The word of the vocabulary whose embedding is most like a virtual token. Every vector has one, random ones too.", "Centred cosine", KHASHABI),
    Term("Null", "What a figure comes to where nothing was learned: random vectors, random prompts, answers dealt out anew. Chance is measured, not assumed."),
    Term("p and q", "p says how often chance alone gives as much or more. q is p after a correction for having asked many times; 0.05 of q means one in twenty of such findings is chance.", "Chance: p and q", BENJAMINI),
    Term("P-tuning", "Prompt tuning in which a small network makes the virtual tokens while they are learned.", paper=LIU),
    Term("Prefix tuning", "Learned vectors in every layer's attention, not only in front of the input.", paper=LI),
    Term("Prompt engineering", "Writing instructions or examples in words until the model does what is wanted. Nothing is trained."),
    Term("Prompt tuning", "Training a soft prompt while the model stays frozen.", paper=LESTER),
    Term("Rank", "Of a LoRA: the number of directions that an update can have. Of a word: its place when all words are sorted, counted from 0 in files.", "Effective rank"),
    Term("Readable", "A prompt is readable when what its tokens moved along names its task, beyond chance and beyond its twins.", "Words test"),
    Term("Drawn to words", "A prompt that was drawn to words while it learned has near words because it was made so. They do not do what it does.", paper=WEN),
    Term("Share", "How much of what an adapter changes a text in its place changes too: 1 is all, 0 is as much as nothing in its place, below 0 is worse than nothing.", "Fidelity of a text"),
    Term("Soft prompt", "A few learned vectors in front of a model's input. They match no word of the vocabulary.", paper=LESTER),
    Term("Spectrum", "The singular values of a LoRA's update, the largest first. A steep one says that few directions do the work.", "Effective rank"),
    Term("Start", "The values of the virtual tokens before training: often words drawn from the vocabulary."),
    Term("Translation", "A text that does in the adapter's place what the adapter does, as far as any text does. Its share and its controls stand beside it.", "Fidelity of a text"),
    Term("Twin", "The same training with the answers dealt out anew among the examples. It can learn the form of the answers and not the task.", "Beside its twin", HEWITT),
    Term("Virtual token", "One vector of a soft prompt. It stands where the embedding of a word would stand."),
    Term("Vocabulary", "All words and parts of words that a model reads and writes, each with its embedding."),
    Term("Zero-shot", "The model's answers to the plain question, without examples and without an adapter."),
    *(Term(name.capitalize(), f"The verdict on a virtual token: {says}.", "Verdict") for name, says in VERDICTS.items()),
    *(Term(name.capitalize(), f"The verdict on a prompt: {says}.", "Task direction out, and alone") for name, says in LABELS.items()),
)  # fmt: skip
TERMS = tuple(sorted(_TERMS, key=lambda term: term.word.casefold()))


def glossary_markdown() -> str:
    """Every word as plain Markdown: the text of docs/glossary.md."""
    return "\n\n".join(["# Glossary", INTRODUCTION, *(f"**{term.word}.** {told(term)}" for term in TERMS)]) + "\n"


def told(term: Term) -> str:
    """What a word means, with its source."""
    return f"{term.says} ({term.paper})" if term.paper else term.says
