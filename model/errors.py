"""The one exception a user's mistake raises in `model/`."""

PARAMETERS = 2
INPUT = 3


class ModelError(ValueError):
    """A mistake that its message explains in one line: what, where, what to do.

    `code` follows the exit codes of the command line: 2 = parameters (also a run that diverged, which a parameter
    cures), 3 = input (files, weights, data).
    """

    def __init__(self, message: str, code: int = INPUT):
        super().__init__(" ".join(str(message).split()))
        self.code = code
