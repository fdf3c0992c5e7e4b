"""A stranger's text on a page stays text."""

import re

# Streamlit makes links of what looks like an address, and icons of names between colons, escaped or not; a word joiner, which is not seen, keeps them apart.
_SPECIAL = re.compile(
    r"(?<=[a-z])(?=://)|(?<=www)(?=\.)|(?<=[\w.+-])(?=@)|(?<=mailto)(?=:)|(?<=xmpp)(?=:)|(?<=:)(?=[\w/+-]+:)", re.IGNORECASE
)
WORD_JOINER = "\u2060"


def plain(text: str) -> str:
    """Text of a stranger's (a file's name, a message about it) as text: no Markdown, no picture, no link."""
    return re.sub(r"([\\`*_{}\[\]()<>#+!|~$:&-])", r"\\\1", _SPECIAL.sub(WORD_JOINER, text))
