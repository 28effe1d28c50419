"""What is wrong in a parameter file, in words: every mistake at once, each with its path and what is allowed."""

import difflib
import re
from pathlib import Path

from pydantic import BaseModel, ValidationError

from pipeline.errors import ParamsError


def mistakes_in(model: type[BaseModel], values: dict) -> list[str]:
    """Every mistake in a parameter file, one line each, sorted."""
    try:
        return sorted(_left_out(model.model_validate(values)))
    except ValidationError as error:
        return sorted({_describe(model, item) for item in error.errors()})


def _left_out(section: BaseModel, prefix: str = "") -> list[str]:
    """Parameters the file does not name. They have a usual value, but DVC would not see it, nor see it change."""
    found = []
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if name not in section.model_fields_set:
            usual = "null" if field.default is None else field.get_default(call_default_factory=True)
            found.append(f"{prefix}{name}: missing; its usual value is {usual}")
        elif isinstance(value, BaseModel):
            found += _left_out(value, f"{prefix}{name}.")
    return found


def listed(path: Path, mistakes: list[str]) -> ParamsError:
    head = f"{path}: {len(mistakes)} mistake{'s' if len(mistakes) > 1 else ''}"
    return ParamsError("\n".join([head, *(f"  {line}" for line in mistakes)]))


def _describe(model: type[BaseModel], item: dict) -> str:
    where = ".".join(str(part) for part in item["loc"])
    message = re.sub(r"^(Value error|Input should be), ?", "", item["msg"])
    message = re.sub(r"^Input should be ", "must be ", item["msg"]) if item["msg"].startswith("Input") else message
    if item["type"] == "extra_forbidden":
        return f"{where}: unknown parameter{suggest(model, where)}"
    if item["type"] == "missing":
        return f"{where}: missing"
    given = item.get("input")
    shown = f" (is {given!r})" if isinstance(given, str | int | float | bool | None) else ""
    return f"{where}: {message}{shown}"


def keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    found = []
    for name, field in model.model_fields.items():
        found.append(prefix + name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found += keys(field.annotation, f"{prefix}{name}.")
    return found


def suggest(model: type[BaseModel], key: str) -> str:
    """The parameter that was probably meant, or what is allowed in its place."""
    known = keys(model)
    near = difflib.get_close_matches(key, known, 1, 0.6)
    parent = key.rsplit(".", 1)[0]
    allowed = [k.rsplit(".", 1)[1] for k in known if k.startswith(parent + ".") and k.count(".") == key.count(".")]
    if near:
        return f"; did you mean {near[0]}?"
    return f"; allowed here: {', '.join(allowed)}" if allowed else ""
