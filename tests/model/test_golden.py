"""`python -m model.golden DIR` on the reference vectors, on others made by loops, on altered and on broken ones."""

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import naive_family
import naive_vectors
import pytest
import torch
from safetensors.torch import load_file, save_file

from model.golden.__main__ import main
from model.golden.check import KINDS, check_case, check_directory, kind_of
from model.golden.measure import DTYPES, TOLERANCES
from model.golden.vectors import read

ROOT = Path(__file__).resolve().parents[2]


def vectors(kind: str, seed: int):
    return (naive_family.family if kind in ("dalr", "trajectory") else naive_vectors.file_of)(kind, seed)


@pytest.fixture(scope="session")
def fresh(tmp_path_factory) -> Path:
    """A directory of vectors of every kind in sizes the reference ones do not have."""
    folder = tmp_path_factory.mktemp("fresh")
    for seed, kind in enumerate(KINDS):
        vectors(kind, seed).write(folder, kind)
    return folder


@pytest.fixture
def copy(fresh, tmp_path):
    """copy(kind) -> a folder with that file alone, and functions to read and change it."""

    class Copy:
        def __init__(self, kind):
            self.folder, self.kind = tmp_path / "copy", kind
            self.folder.mkdir()
            self.table = json.loads((fresh / f"{kind}.json").read_text())
            self.tensors = load_file(fresh / f"{kind}.safetensors")

        def write(self, name=None):
            name = name or self.kind
            (self.folder / f"{name}.json").write_text(json.dumps(self.table))
            save_file(self.tensors, self.folder / f"{name}.safetensors")
            return self.folder

    return Copy


def reference(shared_folder: Path) -> Path:
    return shared_folder / "golden"


# ---------------------------------------------------------------- what must pass


def test_the_reference_vectors_are_met(shared, capsys):
    assert main([str(reference(shared))]) == 0
    out = capsys.readouterr().out
    assert "43 cases: all within tolerance" in out and "unchecked" not in out.lower() and "FAILED" not in out
    for file in reference(shared).glob("*.json"):
        for case in json.loads(file.read_text())["cases"]:
            assert any(line.split()[:2] == [file.stem, case] for line in out.splitlines()), (file.stem, case)


def test_vectors_of_other_sizes_made_by_loops_are_met(fresh):
    outcome = check_directory(fresh)
    assert outcome.good, [*outcome.failed[:5], *outcome.unchecked[:5]]
    assert {check.file for check in outcome.checks} == set(KINDS)
    for group in TOLERANCES:
        assert any(check.group == group for check in outcome.checks), group


@pytest.mark.parametrize("seed", [11, 12, 13])
@pytest.mark.parametrize("kind", ["simcse_unsup", "simcse_sup", "mcse", "diffcse_rtd", "dalr"])
def test_other_draws_are_met(tmp_path, kind, seed):
    vectors(kind, seed).write(tmp_path, kind)
    outcome = check_directory(tmp_path)
    assert outcome.good, [*outcome.failed[:5], *outcome.unchecked[:5]]


def test_names_order_and_stored_types_do_not_matter(copy):
    given = copy("kdmcse")
    names = {name: f"{i}.x" for i, name in enumerate(reversed(given.table["cases"]))}
    given.table["cases"] = {names[k]: v for k, v in sorted(given.table["cases"].items())}

    def renamed(key):
        owner = max((n for n in names if key.startswith(f"{n}/")), key=len, default=None)
        return names[owner] + key.removeprefix(owner) if owner else key

    def stored(tensor):
        return tensor.double() if tensor.is_floating_point() else tensor.int()

    given.tensors = {renamed(k): stored(t) for k, t in sorted(given.tensors.items(), reverse=True)}
    assert main([str(given.write("kdmcse-heldout"))]) == 0


def test_a_setting_left_out_is_the_usual_one(copy):
    given = copy("simcse_unsup")
    for entry in given.table["cases"].values():
        entry["settings"].pop("tau")
    assert main([str(given.write())]) == 1  # these were made at another temperature than the usual 0.05
    z = torch.eye(3, 5)
    loss = math.log1p(2 * math.exp(-20))
    given.table["cases"] = {"e": {"settings": {}, "expected": {"loss": loss}}}
    given.tensors = {"e/z": z, "e/z2": z.clone()}
    assert main([str(given.write())]) == 0


def test_kinds_are_told_by_the_longest_name():
    assert [kind_of(n) for n in ("mcse", "mcseo", "mcseo_2", "mcse-x", "mcsex", "dalr_b", "other")] == [
        "mcse",
        "mcseo",
        "mcseo",
        "mcse",
        None,
        "dalr",
        None,
    ]


# ---------------------------------------------------------------- what must fail


def spoilt(tensor: torch.Tensor) -> torch.Tensor:
    """Another tensor: the largest entry that is no masked logit a little larger, or an integer off by one."""
    flat = tensor.clone().flatten()
    at = flat.nan_to_num().abs().masked_fill(flat < -1e4, 0).argmax()
    flat[at] = flat[at] * 1.003 + 0.003 if tensor.is_floating_point() else flat[at] + 1
    return flat.view(tensor.shape)


@pytest.mark.parametrize("kind", KINDS)
def test_every_expected_number_counts(fresh, kind):
    """All of them off by 0.3 %: every comparison of that case fails, in both precisions, and none is lost."""
    cases = [case for case in read(fresh)[0] if case.file == kind]
    compared = 0
    for case in cases:
        right, _ = check_case(case)
        # what is compared appears in the checks by its own name; the rest of the tensors are inputs
        named = {c.name for c in right if not c.name.endswith(" (none)")}
        tensors = {k: spoilt(t) if k in named else t for k, t in case.tensors.items()}
        expected = {k: v * 1.003 + 0.003 if isinstance(v, float) else v + 1 for k, v in case.expected.items()}
        wrong, unchecked = check_case(replace(case, expected=expected, tensors=tensors))
        assert not unchecked
        settled = ("pair_every_K", "total_steps")  # of a trajectory: settings, not expected values
        for check in wrong:
            if check.name.endswith(" (none)") or (kind == "trajectory" and check.name in settled):
                continue
            assert check.failed, check
            compared += 1
        assert len(wrong) == len(right)
    assert compared >= 2 * len(cases)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_one_wrong_number_is_found_and_named(copy, capsys, dtype):
    given = copy("mcse")
    factor = 1 + 20 * TOLERANCES["losses, logits"][dtype]
    given.table["cases"]["small"]["expected"]["inter"] *= factor
    assert main([str(given.write())]) == 1
    out = capsys.readouterr().out
    failed = [line for line in out.splitlines() if line.startswith("FAILED")]
    assert len(failed) == (1 if dtype == torch.float64 else 2)
    assert all("mcse small: inter is off by" in line for line in failed)
    assert f"{len(failed)} over their tolerance" in out


def test_a_wrong_gradient_and_a_gradient_that_should_not_be_are_found(copy, capsys):
    given = copy("mcse")
    given.tensors["small/grad_inter/d_W_text"][0, 0] += 1e-3
    del given.tensors["small/grad_intra/d_z2"]  # = intra does not depend on z2
    assert main([str(given.write())]) == 1
    out = capsys.readouterr().out
    assert "grad_inter/d_W_text is off" in out and "grad_intra/d_z2 (none) is off" in out


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_not_a_number_is_never_near(copy, value):
    given = copy("simcse_sup")
    given.tensors["small/grad/d_z1"][0, 0] = value
    assert main([str(given.write())]) == 1


def test_a_mask_on_another_entry_is_found(copy, capsys):
    given = copy("kdmcse")
    logits = given.tensors["masked/logits_img_view1"]
    gone = (logits < -1e4).nonzero()[0].tolist()
    logits[gone[0], gone[1]] = 1.0
    assert main([str(given.write())]) == 1
    assert "logits_img_view1 is off by inf" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["simcse_unsup", "kdmcse", "mcseo", "trajectory"])
def test_other_inputs_give_other_values(copy, kind):
    given = copy(kind)
    key = next(k for k in given.tensors if k.endswith(("/z", "/object", "/pair_img")) and "inputs/open" not in k)
    given.tensors[key] = given.tensors[key].flip(-1)
    assert main([str(given.write())]) == 1


# ---------------------------------------------------------------- what is not of the format


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({}, "holds no reference vectors"),
        ({"README.md": "text"}, "holds no reference vectors"),
        ({"mcse.json": "{}"}, "there is no mcse.safetensors beside it"),
        ({"mcse.json": "{", "mcse.safetensors": ""}, "mcse.json is no JSON"),
        ({"mcse.json": '{"cases": {}}', "mcse.safetensors": "short"}, "mcse.safetensors cannot be read"),
    ],
)
def test_a_folder_of_something_else_is_one_line(tmp_path, capsys, files, says):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert main([str(tmp_path)]) == 3
    captured = capsys.readouterr()
    assert says in captured.err and captured.err.count("\n") == 1 and not captured.out


def test_no_folder_is_one_line(tmp_path, capsys):
    assert main([str(tmp_path / "absent")]) == 3
    assert "no such folder" in capsys.readouterr().err


def test_a_kind_that_is_not_known_is_unchecked_and_the_rest_is_checked(copy, capsys):
    given = copy("simcse_unsup")
    given.write()
    given.write("supsimcse")
    assert main([str(given.folder)]) == 1
    out = capsys.readouterr().out
    assert "UNCHECKED supsimcse small: kind 'supsimcse' is unknown; known: simcse_unsup" in out
    assert "all within tolerance, 2 unchecked" in out


def change(table, tensors, what):
    case = table["cases"]["small"]
    match what:
        case "value":
            case["expected"]["spread"] = 1.0
        case "tensor":
            tensors["small/margin_angles"] = torch.ones(2)
        case "stray":
            tensors["elsewhere/z"] = torch.ones(2)
        case "gradient":
            tensors["small/grad_spread/d_z"] = torch.ones(2)
        case "no input":
            del tensors["small/z2"]
        case "no setting":
            case["settings"].pop("lambda_rtd")
            tensors.pop("small/discriminator_logits")
        case "shape":
            tensors["small/z"] = torch.ones(3)
        case "text":
            case["expected"]["contrastive"] = "0.5"
        case "entry":
            table["cases"]["small"] = 3


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("value", "nothing here computes spread"),
        ("tensor", "nothing here computes margin_angles"),
        ("stray", "1 tensors belong to no case, the first elsewhere/z"),
        ("gradient", "nothing here computes grad_spread/d_z"),
        ("no input", "lacks the tensor z2"),
        ("no setting", "lacks the tensor discriminator_logits"),
        ("shape", "small: "),
        ("text", "the expected value contrastive is no number"),
        ("entry", "has no settings and expected values"),
    ],
)
def test_what_cannot_be_checked_is_told_and_the_rest_is_checked(copy, capsys, what, says):
    given = copy("diffcse_rtd")
    change(given.table, given.tensors, what)
    assert main([str(given.write())]) == 1
    out = capsys.readouterr().out
    told = [line for line in out.splitlines() if line.startswith("UNCHECKED")]
    assert told and all(says in line for line in told), told
    assert any(
        line.startswith("diffcse_rtd") and "other/size" in line and line.endswith("ok") for line in out.splitlines()
    )


def test_a_case_without_anything_to_compare_is_unchecked(copy):
    given = copy("simcse_unsup")
    given.table["cases"]["small"]["expected"] = {}
    given.tensors = {k: t for k, t in given.tensors.items() if "/grad" not in k and "/logits" not in k}
    outcome = check_directory(given.write())
    assert [left.case for left in outcome.unchecked] == ["small"] and not outcome.good


def test_the_command_runs_as_a_module(copy):
    folder = copy("schedule").write()
    done = subprocess.run(
        [sys.executable, "-m", "model.golden", str(folder)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "21 comparisons in 3 cases: all within tolerance"


def test_the_folder_must_be_given(capsys):
    with pytest.raises(SystemExit) as stopped:
        main([])
    assert stopped.value.code == 2 and "DIR" in capsys.readouterr().err
