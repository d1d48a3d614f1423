"""The one exception a user is meant to see."""


class UserError(Exception):
    """A failure told in one line: what, where, what was expected, the way out.

    `status` becomes the exit status: 1 a stage failed, 2 wrong use or configuration, 3 too many rejects.
    """

    def __init__(self, message: str, status: int = 1) -> None:
        super().__init__(" ".join(message.split()))
        self.status = status
