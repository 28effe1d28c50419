"""What can go wrong, as exit codes a person and a scheduler can act on (docs/exit-codes.md)."""

import sys


class StageError(Exception):
    """A mistake or a shortage that ends a stage in one readable line.

    The message says what is wrong, where, and what to do. `code` is the exit code.
    """

    code = 1


class ParamsError(StageError):
    """A parameter is wrong (exit 2). The message may list several mistakes, one a line."""

    code = 2


class InputError(StageError):
    """An input is missing, damaged or empty (exit 3)."""

    code = 3


class RejectError(StageError):
    """More records were rejected than `max_reject_rate` allows (exit 4)."""

    code = 4


class ResourceError(StageError):
    """Disk, memory or a lock is short, or another run holds the stage (exit 5)."""

    code = 5


class TransientError(StageError):
    """A passing fault, worth a retry (exit 75, the EX_TEMPFAIL of sysexits.h)."""

    code = 75


class Interrupted(KeyboardInterrupt):
    """SIGINT, raised where the main thread stands so that temporary files are cleaned up (exit 130).

    Not KeyboardInterrupt itself: if that passes through code that Python compiles from a string (dataclasses do), the
    process later dies of the signal although it was caught.
    """


class Terminated(KeyboardInterrupt):
    """SIGTERM, raised likewise (exit 143)."""


def tell(message: str) -> None:
    """Prints one line to stderr, where DVC and Prefect show it as it comes."""
    sys.stderr.write(message.rstrip("\n") + "\n")
    sys.stderr.flush()
