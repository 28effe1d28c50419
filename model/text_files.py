"""Text files of evaluation sets, read whole."""

from pathlib import Path

from model.errors import ModelError


def read_text(file: Path, encoding: str = "utf-8") -> str:
    """The file's text, a byte order mark of UTF-8 taken off.

    Raises ModelError: it cannot be read, or is not UTF-8 where it must be (file and line are named).
    """
    try:
        data = file.read_bytes().removeprefix(b"\xef\xbb\xbf")
        return data.decode(encoding)
    except OSError as error:
        raise ModelError(f"{file}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ModelError(f"{file}:{line}: not UTF-8; convert the file (iconv -f latin1 -t utf-8)") from error
