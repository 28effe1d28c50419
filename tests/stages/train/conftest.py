"""A small collection that went through every stage before train, and ways to change what train finds."""

import shutil
import signal
from dataclasses import replace
from zlib import crc32

import numpy as np
import pyarrow as pa
import pytest
from small import ROOT, in_process, make_collection, write_params

from pipeline.files import sha256_file
from pipeline.shards import read_sidecar, read_table, shard_name, shard_numbers, sidecar_path, write_table
from stages.train import stage

CHAIN = ("ingest", "parse", "detect", "segment", "embed", "align")


@pytest.fixture(scope="module")
def mined(tmp_path_factory):
    """A folder in which a small collection went through every stage before train."""
    folder = tmp_path_factory.mktemp("cells")
    make_collection(folder / "collection", 24)
    configure(folder)
    for name in CHAIN:
        in_process(name, folder)
    return folder


def configure(folder, **changes):
    """params.yaml of that folder: a tiny encoder, batches of 8, six steps."""
    settings = {
        "embed__path": str(ROOT / "demo/checkpoints/vision_random"),
        "train__path": str(ROOT / "demo/checkpoints/bert_tiny"),
        "train__teachers_path": str(ROOT / "presets/no_teachers"),
        "train__triplets_path": str(ROOT / "presets/no_triplets.tsv"),
        "train__batch_size": 8,
        "train__max_steps": 6,
        "train__eval_every": 3,
        "evaluate__path": str(ROOT / "demo/world/sts"),
    }
    write_params(folder / "params.yaml", folder / "collection", **(settings | changes))


@pytest.fixture(scope="session")
def tiny_bert():
    return ROOT / "demo/checkpoints/bert_tiny"


@pytest.fixture
def train(monkeypatch, capsys):
    """train(folder, recipe, **changes): the stage, in this process, with those parameters; its exit code and lines."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def run(folder, recipe, seed=0, **changes):
        configure(folder, **changes)
        monkeypatch.chdir(folder)
        monkeypatch.setattr("sys.argv", ["stages.train", "--recipe", recipe, "--seed", str(seed)])
        with pytest.raises(SystemExit) as ended:
            stage.main()
        said = capsys.readouterr().err
        assert "Traceback" not in said
        return ended.value.code or 0, said

    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture(scope="module")
def with_text(mined, tmp_path_factory):
    """The same folder, its features also with made-up vectors of captions and phrases, as a CLIP checkpoint gives."""
    folder = tmp_path_factory.mktemp("text") / "cells"
    shutil.copytree(mined, folder)
    data = folder / "data/small"
    for number in shard_numbers(data / "embed/features"):
        texts = read_table(data / f"ingest/captions/{shard_name(number)}.parquet", "captions").column("id").to_pylist()
        named = read_table(data / f"parse/phrases/{shard_name(number)}.parquet", "phrases").column("text").to_pylist()
        ids = [*((f"caption:{t}", "caption") for t in texts), *((f"phrase:{t}", "phrase") for t in sorted(set(named)))]
        rewrite(
            data / "embed/features",
            number,
            lambda table, ids=ids: pa.concat_tables([table, text_rows(table.schema, ids)]).sort_by("id"),
        )
    return folder


def text_rows(schema, ids):
    width = schema.field("vector").type.byte_width // 2
    vectors = [np.random.default_rng(crc32(i.encode())).normal(size=width).astype("<f2").tobytes() for i, _ in ids]
    columns = {"id": [i for i, _ in ids], "kind": [k for _, k in ids], "image_id": [None] * len(ids), "vector": vectors}
    return pa.table(columns, schema=schema)


def rewrite(table_dir, number, change):
    """Puts another table in a shard's place, as if its stage had written it."""
    path = table_dir / f"{shard_name(number)}.parquet"
    table = change(read_table(path, table_dir.name))
    path.unlink()  # it may be a link into the scratch store
    write_table(path, table_dir.name, table)
    sidecar = read_sidecar(sidecar_path(table_dir, number))
    written = {"sha256": sha256_file(path), "rows": table.num_rows}
    replace(sidecar, tables=sidecar.tables | {table_dir.name: written}).write(sidecar_path(table_dir, number))


@pytest.fixture
def changed(mined, tmp_path):
    """changed(table, change): a copy of the mined folder in which shard 0 of a table (or all) went through `change`."""

    def made(table, change, everywhere=False):
        folder = tmp_path / "cells"
        if not folder.exists():
            shutil.copytree(mined, folder)
        for number in shard_numbers(folder / "data/small" / table) if everywhere else (0,):
            rewrite(folder / "data/small" / table, number, change)
        return folder

    return made
