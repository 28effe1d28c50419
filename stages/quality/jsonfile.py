"""JSON files of gold: damage in them is told in one line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from pipeline.errors import InputError

T = TypeVar("T")


def read(file: Path, made: Callable[[Any], T], expected: str) -> T:
    """`made(document)` of a file; `expected` says what the file should be.

    Raises:
        InputError: it cannot be read, is not JSON, or `made` cannot make anything of it.
    """
    try:
        return made(json.loads(file.read_text(encoding="utf-8-sig")))
    except json.JSONDecodeError as error:
        raise InputError(f"{file}: line {error.lineno}: not valid JSON ({error.msg})") from None
    except (OSError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{file}: cannot be read ({error})") from None
    except (AttributeError, LookupError, TypeError, ValueError, OverflowError) as error:
        said = " ".join(str(error).split())[:200]
        raise InputError(f"{file}: not gold ({type(error).__name__}: {said}); it is {expected}") from None
