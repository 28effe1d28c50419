"""Wrong parameters, caches that lie, and a scheduler that cannot be reached."""

import shutil
import subprocess
import sys

import pytest
from checkout import dvc, make_checkout, run
from faults.inject import flip
from small import digests, environment, in_process, run_stage, write_params

from pipeline import params, sections
from pipeline.mistakes import keys

UNREACHABLE = {"PREFECT_API_URL": "http://127.0.0.1:9/api", "PREFECT_HOME": "/nonexistent"}


@pytest.mark.fault("F56")
@pytest.mark.parametrize("stage", ["parse", "embed", "train"])
def test_wrong_parameters_stop_a_stage_before_any_model_is_loaded(small, stage):
    """No weights lie where the parameters say: whoever looked for them first would end with exit 3."""
    write_params(small / "params.yaml", small / "collection", parse__backend="stanza", parse__path="none")
    text = (small / "params.yaml").read_text().replace("top_k: 3", "top_q: 3").replace("max_words: 8", "max_words: x")
    (small / "params.yaml").write_text(text.replace("dtype: fp32", "dtype: fp31"))
    done = run_stage(stage, small, *(["--recipe", "mcseo", "--seed", "0"] if stage == "train" else []))
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert "mistakes" in done.stderr and done.stderr.count("\n  ") >= 4, "all of them at once"
    for name in ("detect.top_q", "parse.max_words", "detect.dtype", "embed.dtype"):
        assert name in done.stderr


@pytest.mark.fault("F56")
def test_parameters_are_read_without_any_model_library(small):
    script = "import sys; from pipeline import entry, params, runner; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], cwd=small, env=environment(), capture_output=True, text=True)
    loaded = set(done.stdout.split())
    assert "pipeline.params" in loaded and not loaded & {"torch", "stanza", "transformers"}


@pytest.mark.fault("F57")
def test_a_parameter_of_a_name_that_dvc_ignores_would_be_found():
    """What forbids it walks the models by `keys`; that it sees one deep inside is tried here."""

    class Inner(sections.Section):
        size: int

    class Outer(sections.Section):
        inner: Inner

    def parts(model) -> set[str]:
        return {part for key in keys(model) for part in key.split(".")}

    assert parts(Outer) & {"size", "nfiles"} == {"size"}
    assert not parts(params.Params) & {"size", "nfiles"}


@pytest.mark.fault("F59")
def test_a_parameter_set_back_computes_nothing(small):
    for stage in ("ingest", "parse", "detect"):
        in_process(stage, small)
    right = digests(small / "data")
    for stage, change in (("ingest", {"ingest__min_side": 8}), ("parse", {"parse__max_words": 3})):
        write_params(small / "params.yaml", small / "collection", **change)
        assert "4 shards computed" in in_process(stage, small)
        write_params(small / "params.yaml", small / "collection")
        assert "0 shards computed, 4 from the scratch store" in in_process(stage, small)
    assert digests(small / "data") == right


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A checkout in which ingest and parse have run under DVC, without any server."""
    folder = make_checkout(tmp_path_factory.mktemp("orchestration") / "checkout", images=8)
    dvc(folder, "repro", "parse", env=UNREACHABLE)
    return folder


@pytest.mark.graph
@pytest.mark.fault("F61")
def test_without_a_reachable_server_the_graph_runs(made):
    assert (made / "data/small/parse/phrases/0000.parquet").is_file()
    done = run(made, sys.executable, "-m", "pipeline", "run", "detect", env=UNREACHABLE)
    assert "done" in done.stdout and (made / "data/small/detect/boxes/0000.parquet").is_file()


@pytest.mark.graph
@pytest.mark.fault("F15")
@pytest.mark.parametrize("linked", ["hardlink", "copy"])
def test_a_damaged_object_of_dvcs_cache(made, tmp_path, linked):
    """What it restores is refused by the next stage, by its sidecar; the stage that wrote it mends it."""
    folder = tmp_path / "copy"
    shutil.copytree(made, folder, symlinks=True)
    dvc(folder, "config", "--local", "cache.type", linked)
    right = digests(folder / "data/small/parse")
    shutil.rmtree(folder / "data/small/parse")
    wanted = right["phrases/0001.parquet"]
    cached = [path for path in (folder / ".dvc/cache/files").rglob("*") if path.is_file() and _sha256(path) == wanted]
    assert len(cached) == 1
    flip(cached[0], cached[0].stat().st_size // 3)
    dvc(folder, "checkout", "parse", check=False)
    done = run_stage("detect", folder, "--params", "params.yaml")
    assert done.returncode == 3 and "Traceback" not in done.stderr, done.stderr
    run(folder, sys.executable, "-m", "stages.parse")
    assert digests(folder / "data/small/parse") == right
    assert run_stage("detect", folder).returncode == 0


def _sha256(path) -> str:
    from pipeline.files import sha256_file

    return sha256_file(path)
