"""The one exception a user is meant to see, and text of unknown origin made fit to be seen."""

import unicodedata


class UserError(Exception):
    """A failure told in one line: what, where, what was expected, the way out.

    `status` becomes the exit status: 1 a stage failed, 2 wrong use or configuration, 3 too many rejects.
    """

    def __init__(self, message: str, status: int = 1) -> None:
        super().__init__(printable(" ".join(message.split())))
        self.status = status


def printable(text: str) -> str:
    """The text with everything written out that is no letter, sign or space: names may hold a terminal's commands."""
    if text.isprintable():
        return text
    return "".join(c if c == "\n" or c.isprintable() or unicodedata.category(c) == "Zs" else _written(c) for c in text)


def _written(character: str) -> str:
    code = ord(character)
    return f"\\U{code:08x}" if code > 0xFFFF else f"\\u{code:04x}"
