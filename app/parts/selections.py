"""A selection of things by number, as a link holds it."""

import re


def ranges(numbers: list[int]) -> str:
    """Numbers as a link holds them: 0-4,9."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and number == parts[-1][1] + 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in parts)


def numbers_in(text: str, below: int) -> list[int]:
    """What `ranges` wrote, ascending and each once; what is no range, or out of bounds, is left out."""
    found: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"([0-9]{1,15})(?:-([0-9]{1,15}))?", part)
        if match is not None:
            first, last = int(match[1]), int(match[2] or match[1])
            found.update(range(first, min(last, below - 1) + 1))
    return sorted(found)
