"""A stranger's text on a page stays text."""

import re

# Streamlit makes links of what looks like an address, escaped or not; a word joiner, which is not seen, keeps these apart.
_ADDRESS = re.compile(r"(?<=[a-z])(?=://)|(?<=www)(?=\.)|(?<=[\w.+-])(?=@)|(?<=mailto)(?=:)|(?<=xmpp)(?=:)", re.IGNORECASE)
WORD_JOINER = "\u2060"


def plain(text: str) -> str:
    """Text of a stranger's (a file's name, a message about it) as text: no Markdown, no picture, no link."""
    return re.sub(r"([\\`*_{}\[\]()<>#+!|~$:&-])", r"\\\1", _ADDRESS.sub(WORD_JOINER, text))
