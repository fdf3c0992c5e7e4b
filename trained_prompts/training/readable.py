"""Virtual tokens that are drawn to words while they learn, so that what they become can be read.

A prompt trained plainly stays near the words that it started from, or near none. Two papers ask for more. Khashabi et al. 2022 (*Prompt Waywardness*,
section 3.1) add the distance to given words to the loss. Wen et al. 2023 (*Hard Prompts Made Easy*, PEZ) let the model see only the nearest words and
hand the gradient through to the vectors behind them. Here one number γ leads from plain prompt tuning to PEZ. The model sees, for a vector p
whose nearest word is w,

    e = argmin ‖x − p‖² + γ‖x − w‖² = (p + γ w) / (1 + γ)          γ = 0: e = p.   γ = ∞: e = w.

and p receives the gradient of e. What is kept is e. "Nearest" is by centred cosine as everywhere; the words are whole ones, and a token's
initial word is not among its own. So that such a prompt ends near words is how it was made and no evidence that it learned them: that is what
its score with the words themselves in place of the vectors is for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn.utils import parametrize

from soft_prompt_explorer.analysis.prompts.search import allowed_tokens, nearest, unit_rows

if TYPE_CHECKING:
    from soft_prompt_explorer.analysis.models.vocabulary import Vocabulary


class _DrawnToWords(torch.nn.Module):
    """(n, d) vectors in, (n, d) vectors between them and their nearest words out."""

    def __init__(self, initial: np.ndarray, vocabulary: Vocabulary, gamma: float) -> None:
        super().__init__()
        ids = np.flatnonzero(allowed_tokens(vocabulary, exclude_special=True, whole_words=True))
        rows = np.asarray(vocabulary.embeddings)[ids]
        first, _ = nearest(initial, vocabulary, top_k=1)
        self.share = 1.0 if np.isinf(gamma) else gamma / (1.0 + gamma)
        self._rows = torch.from_numpy(np.array(rows, dtype=np.float32))
        self._mean = torch.from_numpy(vocabulary.mean.astype(np.float32))
        self._units = torch.from_numpy(unit_rows(rows.astype(np.float64) - vocabulary.mean).astype(np.float32))
        self._not_its_own = torch.from_numpy(np.where(ids[None, :] == first, -np.inf, 0.0).astype(np.float32))

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            centred = vectors.detach().cpu() - self._mean
            words = self._rows[(centred @ self._units.T / centred.norm(dim=1, keepdim=True) + self._not_its_own).argmax(dim=1)]
            seen = torch.lerp(vectors, words.to(vectors.device), self.share)  # with the share 1 the words to the last bit
        return seen + (vectors - vectors.detach())


def draw_to_words(embedding: torch.nn.Embedding, initial: np.ndarray, vocabulary: Vocabulary, gamma: float) -> torch.nn.Parameter:
    """Make an embedding answer rows drawn to words; answers the parameter behind it, which is what learns."""
    parametrize.register_parametrization(embedding, "weight", _DrawnToWords(initial, vocabulary, gamma))
    (behind,) = embedding.parameters()
    return behind
