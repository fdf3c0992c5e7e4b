"""What the columns of tables are called on the screen. Files keep the names that scripts rely on."""

NAMES = {  # where taking out the underscores would leave no word
    "no_prompt": "without",
    "initial_token": "started from",
    "nearest_token": "near to",
    "delta_token": "moved towards",
    "norm_ratio": "norm, in medians",
    "p_chance": "is it luck? (p)",
    "q_chance": "is it luck? (q)",
    "p_learned": "learned? (p)",
    "q_learned": "learned? (q)",
    "score_change": "score changed by",
    "score_change_low": "score change, at least",
    "score_change_high": "score change, at most",
    "loss_change": "loss changed by",
    "loss_change_low": "loss change, at least",
    "loss_change_high": "loss change, at most",
    "rank_90": "ranks for 90 %",
    "rank_95": "ranks for 95 %",
    "rank_99": "ranks for 99 %",
    "kl": "KL",
    "cka": "CKA",
    "rouge_1": "ROUGE-1",
    "rouge_1_others": "ROUGE-1 of other tasks",
}


def in_words(column: str) -> str:
    """A column's name in words.

    >>> in_words("effective_rank"), in_words("rank_90")
    ('effective rank', 'ranks for 90 %')
    """
    return NAMES.get(column, column.replace("_", " "))
