"""The one kind of error that a person may see: a sentence, and what to do next."""


class InputError(ValueError):
    """The input was refused. The message is one sentence for the person who gave the input.

    The command line prints it and ends with status 2; a page shows it where the person is. What a stranger's file put into the
    message is escaped, so that it stays one line and moves no terminal.
    """

    def __init__(self, sentence: str) -> None:
        super().__init__("".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in sentence))


class AdapterError(InputError):
    """A file is not a soft prompt or LoRA that can be read: says what was found, expected, and what to do."""


class ModelError(InputError):
    """A model name that resolves to nothing, or a model that cannot be read: says what was tried."""
