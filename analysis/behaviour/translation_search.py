"""A text of ten tokens found by gradient: greedy coordinate gradient (Zou et al. 2023, arXiv 2307.15043, section 2) against an adapter's own answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from soft_prompt_explorer.analysis.asking import read_once
from soft_prompt_explorer.analysis.asking.batches import Example, answer_logits
from soft_prompt_explorer.analysis.asking.read_once import ReadOnce
from soft_prompt_explorer.analysis.behaviour.translation_scores import Behaviour
from soft_prompt_explorer.analysis.core.late import Late
from soft_prompt_explorer.analysis.core.progress import Report, no_report
from soft_prompt_explorer.analysis.models.weights import LanguageModel

if TYPE_CHECKING:
    import torch
else:
    torch = Late("torch")

TOKENS = 10
FILLER = " x"
AFTER = "\n"
TOP = 128  # tokens of each position that the gradient favours most
TRIED = 24  # texts a step
AT_ONCE = 8  # inputs a step, drawn anew
SEED = 20_265


def searched(
    choose: Behaviour, template: str, language_model: LanguageModel, *, steps: int, tokens: int = TOKENS, report: Report = no_report
) -> str:
    """The text with a line's end after it that comes nearest to the adapter on these inputs, as far as so many steps find it.

    Each step changes one token: by the gradient of KL(adapter ‖ text) with respect to the token's embedding, some of the most promising changes are drawn and
    tried. Only texts that the tokenizer reads as these very tokens are, so that the text can be copied.

    Parameters
    ----------
    choose : answers of the adapter; a step looks at eight of them, the end at all.
    """
    model, tokenizer = language_model
    head = tokenizer("").input_ids
    tail = tokenizer(AFTER, add_special_tokens=False).input_ids
    probe = choose.texts[0]
    after = tokenizer(probe, add_special_tokens=False).input_ids
    examples = [
        Example(tuple(ids) + answer[: length - 1], answer[:length])
        for ids, answer, length in zip(
            tokenizer(list(choose.texts), add_special_tokens=False).input_ids, choose.answers, choose.lengths, strict=True
        )
    ]

    def reads_so(ids: Sequence[int]) -> bool:
        return tokenizer(tokenizer.decode(list(ids)) + AFTER + probe).input_ids == [*head, *ids, *tail, *after]

    def read(ids: np.ndarray) -> ReadOnce:
        whole = np.concatenate([np.tile(head, (len(ids), 1)).astype(int), ids, np.tile(tail, (len(ids), 1))], axis=1)
        return read_once.read(read_once.nothing(language_model), torch.as_tensor(whole, device=model.device))

    def kls(before: ReadOnce, some: Sequence[int], texts: int) -> torch.Tensor:
        """(texts,), of each the mean KL over some inputs, in nats an answer."""
        batch = [examples[i] for _ in range(texts) for i in some]
        logits = answer_logits(before.forward, batch, virtual_tokens=0, device=model.device).float().log_softmax(dim=-1)
        log_p = torch.cat([choose.log_p[i] for i in some]).to(logits.device)
        each = (log_p.exp() * (log_p - logits.reshape(texts, *log_p.shape))).sum(dim=(1, 2))
        return each / len(some)

    rng = np.random.default_rng(SEED)
    words = model.get_input_embeddings()
    with torch.no_grad():
        table = words(torch.arange(words.weight.shape[0], device=model.device))
    allowed = _printable_ids(tokenizer, len(table))
    ids = np.array((tokenizer(FILLER, add_special_tokens=False).input_ids * tokens)[:tokens])
    visited = {tuple(ids.tolist())} if reads_so(ids.tolist()) else set()
    for step in range(steps):
        report(step / steps, f"searching a text of {tokens} tokens, step {step + 1}")
        some = sorted(rng.permutation(len(examples))[:AT_ONCE].tolist())
        rows = table[torch.as_tensor(ids, device=model.device)].detach().clone().requires_grad_(True)
        with torch.enable_grad():
            fixed = [table[torch.as_tensor(part, dtype=torch.long, device=model.device)] for part in (head, tail)]
            before = read_once.read(read_once.nothing(language_model), embeddings=torch.cat([fixed[0], rows, fixed[1]])[None])
            (slope,) = torch.autograd.grad(kls(before, some, 1).sum(), rows)
        promise = -(slope @ table.T)
        promise[:, ~allowed] = -torch.inf
        best = promise.topk(min(TOP, int(allowed.sum())), dim=1).indices.cpu().numpy()
        tried = [ids.copy()]
        for _ in range(4 * TRIED):
            changed = ids.copy()
            position = int(rng.integers(tokens))
            changed[position] = best[position, int(rng.integers(best.shape[1]))]
            if len(tried) <= TRIED and reads_so(changed.tolist()):
                tried.append(changed)
        texts = np.stack(tried)
        with torch.inference_mode():
            found = kls(read(texts), some, len(texts))
        ids = texts[int(found.argmin())]
        visited.add(tuple(ids.tolist()))
    last = [np.array(each) for each in visited][-AT_ONCE:] or [ids]
    with torch.inference_mode():
        whole = [float(kls(read(each[None]), range(len(examples)), 1)[0]) for each in last]
    return tokenizer.decode(last[int(np.argmin(whole))].tolist()) + AFTER


def _printable_ids(tokenizer, size: int) -> torch.Tensor:
    """(size,) bool: tokens that are text by themselves, on one line, and no control token."""
    texts = tokenizer.batch_decode([[i] for i in range(min(size, len(tokenizer)))])
    special = set(tokenizer.all_special_ids)
    fine = [text.isprintable() and "\ufffd" not in text and bool(text.strip()) and i not in special for i, text in enumerate(texts)]
    return torch.tensor(fine + [False] * (size - len(fine)))
