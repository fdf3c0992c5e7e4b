"""What plain calls of transformers and numpy answer, one example or one vector at a time."""

import numpy as np
import torch


def label_scores(model, tokenizer, prompt, text, labels) -> list[float]:
    """The log-probability of every label after a text, one forward pass a label, nothing batched."""
    scores = []
    for label in labels:
        read, answer = tokenizer(text).input_ids, tokenizer(label, add_special_tokens=False).input_ids
        inputs = model.get_input_embeddings()(torch.tensor([read + answer]))
        if prompt is not None:
            inputs = torch.cat([torch.from_numpy(prompt)[None], inputs], dim=1)
        with torch.no_grad():
            log_probabilities = model(inputs_embeds=inputs).logits[0].log_softmax(-1)
        scores.append(sum(log_probabilities[i - len(answer) - 1, token].item() for i, token in enumerate(answer)))
    return scores


def plain_loss(model, tokenizer, prompt: torch.Tensor, texts, targets) -> torch.Tensor:
    """Mean cross-entropy of all answer tokens, each example alone, by transformers' own label loss."""
    total, count = 0.0, 0
    for text, target in zip(texts, targets, strict=True):
        read, answer = tokenizer(text).input_ids, tokenizer(target, add_special_tokens=False).input_ids
        inputs = torch.cat([prompt, model.get_input_embeddings()(torch.tensor(read + answer))])[None]
        labels = torch.tensor([[-100] * (len(prompt) + len(read)) + answer])
        total = total + model(inputs_embeds=inputs, labels=labels).loss * len(answer)
        count += len(answer)
    return total / count


def nearest_token(vectors: np.ndarray, vocabulary) -> np.ndarray:
    """The nearest token of all, whole word or not."""
    rows = vocabulary.embeddings.astype(np.float64)
    centred, vectors = rows - rows.mean(axis=0), vectors.astype(np.float64) - rows.mean(axis=0)
    return (vectors @ centred.T / np.linalg.norm(centred, axis=1)).argmax(axis=1)


def by_transformers(model, rows: np.ndarray, ids: list[int]) -> torch.Tensor:
    """The logits at the last position, of plain transformers: the rows and then the words."""
    with torch.no_grad():
        words = model.get_input_embeddings()(torch.tensor([ids]))
        return model(inputs_embeds=torch.cat([torch.from_numpy(rows)[None], words], dim=1)).logits[0, -1]
