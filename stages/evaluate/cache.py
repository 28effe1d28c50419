"""Scores that are known already: one file a (model, task, data), in the scratch store.

The name of a file is the hash of everything a score depends on: the model folder's content, its pooling, the task and
the content of its data, the protocol, the code that computes it, and the libraries under it. A file that is damaged
counts as not there.
"""

import importlib.metadata
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pipeline.files import hash_path, sha256_json, write_json
from stages.evaluate.embedder import Embedder

_LIBRARIES = ("torch", "transformers", "tokenizers", "numpy", "scipy", "scikit-learn")
_CODE = (Path(__file__).resolve().parent, Path(__file__).resolve().parents[2] / "model")


@dataclass(frozen=True)
class Cache:
    """The scores of one model under one protocol, in `folder`."""

    folder: Path
    embed: Embedder
    protocol: str

    @cached_property
    def _model(self) -> dict:
        """What every score of this run depends on."""
        return {
            "model": self.embed.digest,
            "pooling": self.embed.pooling,
            "max_length": self.embed.max_length,
            "dtype": str(self.embed.dtype),
            "protocol": self.protocol,
            "code": [hash_path(folder) for folder in _CODE],
            "libraries": [importlib.metadata.version(name) for name in _LIBRARIES],
        }

    def _file(self, suite: str, task: str, data: str) -> Path:
        return self.folder / f"{sha256_json({**self._model, 'suite': suite, 'task': task, 'data': data})}.json"

    def read(self, suite: str, tasks: dict[str, str]) -> dict[str, dict]:
        """{task: scores} of those of `tasks` ({task: hash of its data}) that are known."""
        found = {task: _whole(self._file(suite, task, data)) for task, data in tasks.items()}
        return {task: scores for task, scores in found.items() if scores is not None}

    def write(self, suite: str, tasks: dict[str, str], scores: dict[str, dict]) -> None:
        """Keeps the scores of tasks that are not missing."""
        for task, data in tasks.items():
            if task in scores and "missing" not in scores[task]:
                body = {"suite": suite, "task": task, "scores": scores[task], "sha256": sha256_json(scores[task])}
                write_json(self._file(suite, task, data), body)


def _whole(file: Path) -> dict | None:
    try:
        body = json.loads(file.read_text(encoding="utf-8"))
        return body["scores"] if sha256_json(body["scores"]) == body["sha256"] else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
