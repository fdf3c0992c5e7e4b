"""What a text in a prompt's place recovers, by plain calls of transformers: one input at a time, every token read anew at each step."""

import numpy as np
import torch

MOST = 12


def ends_a_line(tokenizer, token: int) -> bool:
    return "\n" in tokenizer.decode([token]) or token == tokenizer.eos_token_id


def next_log_probabilities(model, ids: list[int], rows: np.ndarray | None = None) -> torch.Tensor:
    """(positions, V), of the token after each, with virtual tokens in front."""
    inputs = model.get_input_embeddings()(torch.tensor([ids]))
    if rows is not None:
        inputs = torch.cat([torch.from_numpy(rows)[None], inputs], dim=1)
    with torch.no_grad():
        return model(inputs_embeds=inputs).logits[0].log_softmax(-1)


def answer(model, tokenizer, text: str, rows: np.ndarray | None = None) -> list[int]:
    """Written greedily, with the token that ends the line."""
    ids, written = tokenizer(text).input_ids, []
    while len(written) < MOST:
        written.append(int(next_log_probabilities(model, ids + written, rows)[-1].argmax()))
        if ends_a_line(tokenizer, written[-1]):
            break
    return written


def at_answer(model, tokenizer, text: str, written: list[int], rows: np.ndarray | None = None) -> torch.Tensor:
    """The log-probabilities at each token of an answer, the whole text tokenised at once."""
    return next_log_probabilities(model, tokenizer(text).input_ids + written, rows)[-len(written) - 1 : -1]


def divergence(tokenizer, written: list[int], p: torch.Tensor, q: torch.Tensor) -> float:
    """Over the answer's tokens, without that which ends its line."""
    count = max(1, len(written) - ends_a_line(tokenizer, written[-1]))
    return sum(float((p[i].exp() * (p[i] - q[i])).sum()) for i in range(count))
