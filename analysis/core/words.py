"""Text that prints, and numbers and lists as they are said in sentences."""

from __future__ import annotations

from collections.abc import Sequence


def printable(token: str | bytes) -> str:
    """A token as it stands in every table: no unprintable character, and reversible by eye.

    >>> printable("\\n"), printable(b"\\xe4\\xb8"), printable(" word")
    ('\\\\n', '<0xE4><0xB8>', ' word')
    """
    if isinstance(token, bytes):
        try:
            token = token.decode("utf-8")
        except UnicodeDecodeError:
            return "".join(f"<0x{byte:02X}>" for byte in token)
    if token.isprintable() and "\\" not in token:
        return token
    return "".join(c if c.isprintable() and c != "\\" else escaped(c) for c in token)


def escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()


def shown(token: str) -> str:
    """A token for a narrow cell: the space that starts a word is made visible."""
    return "␣" + token[1:] if token.startswith(" ") else token


def listed(things: Sequence[str], last: str = "and") -> str:
    """Several things in words: `a, b and c`."""
    return things[0] if len(things) == 1 else f"{', '.join(things[:-1])} {last} {things[-1]}"


def counted(number: int, noun: str) -> str:
    """So many of a thing: `1 virtual token`, `1,200 virtual tokens`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def p_value(p: float) -> str:
    """A p-value as it is told everywhere: `0.012`, `< 0.001`; what rounds to the level of 0.05 and lies under it is `< 0.05`."""
    rounded = f"{p:.3f}"
    return "< 0.001" if p < 0.001 else "< 0.05" if p < 0.05 and rounded == "0.050" else rounded


def p_said(value: float) -> str:
    said = p_value(value)
    return said if said.startswith("<") else f"= {said}"


def signed(value: float, digits: int = 2) -> str:
    """A change, with its sign."""
    return f"{value:+.{digits}f}".replace("-", "−")


def byte_count(number: float) -> str:
    """A size as it is told everywhere: two digits that count, in units of a thousand.

    >>> byte_count(921_600), byte_count(18_432_000), byte_count(2_900_000_000)
    ('0.92 MB', '18 MB', '2.9 GB')
    """
    size, unit = (number / 1e9, "GB") if number >= 999.5e6 else (number / 1e6, "MB")
    return f"{size:.0f} {unit}" if size >= 10 else f"{size:.2g} {unit}"
