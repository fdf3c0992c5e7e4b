"""What a person may be shown: refusals as one sentence each, and text that prints."""


class InputError(ValueError):
    """The input was refused. The message is one sentence for the person who gave the input.

    The command line prints it and ends with status 2; a page shows it where the person is. What a stranger's file put into the
    message is escaped, so that it stays one line and moves no terminal.
    """

    def __init__(self, sentence: str) -> None:
        super().__init__("".join(c if c.isprintable() else _escaped(c) for c in sentence))


class AdapterError(InputError):
    """A file is not a soft prompt or LoRA that can be read: says what was found, expected, and what to do."""


class ModelError(InputError):
    """A model name that resolves to nothing, or a model that cannot be read: says what was tried."""


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
    return "".join(c if c.isprintable() and c != "\\" else _escaped(c) for c in token)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()


def shown(token: str) -> str:
    """A token for a narrow cell: the space that starts a word is made visible."""
    return "␣" + token[1:] if token.startswith(" ") else token
