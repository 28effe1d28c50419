"""`python -m stages.evaluate compare`, from folders of scores to table, Markdown, CSV and picture."""

import csv
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from small import digests, environment

from stages.evaluate.compare.command import _resamples, main
from tests.stages.evaluate.compare.kept import RUNS, SEVEN, copied, drawn, lay, told

NONE = "no difference shown"


def run(capsys, *arguments) -> tuple[int, str, str]:
    """(exit code, what was printed, what was told)."""
    try:
        main([str(argument) for argument in arguments])
        code = 0
    except SystemExit as ended:
        code = ended.code
    return code, *capsys.readouterr()


def rows(out: Path) -> list[dict]:
    return list(csv.DictReader((out / "compare.csv").read_text().splitlines()))


def comma(paths) -> str:
    return ",".join(map(str, paths))


# ------------------------------------------------------------ the kept runs: trained, not made up


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Score folders of the kept runs: SimCSE with seeds 0 to 9, the encoder it starts from with seeds 0 to 4."""
    root = tmp_path_factory.mktemp("kept")
    simcse = [lay(root, f"simcse-{seed}") for seed in range(10)]
    return simcse, [lay(root, f"untrained-{seed}") for seed in range(5)]


def test_two_arms_of_one_recipe_differ_in_nothing(trained, tmp_path, capsys):
    simcse, _ = trained
    arms = ("--arm", f"a={comma(simcse[:5])}", "--arm", f"b={comma(simcse[5:])}")
    code, printed, _ = run(capsys, *arms, "--out", tmp_path)
    assert code == 0 and f"b against a: {NONE}" in printed and "Welch's t" in printed
    found = [row for row in rows(tmp_path) if row["arm"] == "b"]
    assert [row["task"] for row in found] == [*SEVEN, "Avg"] and {row["verdict"] for row in found} == {NONE}


@pytest.mark.parametrize("seed", range(3))
def test_nor_do_other_halves_of_its_seeds(trained, tmp_path, capsys, seed):
    import random

    simcse = random.Random(seed).sample(trained[0], 10)
    arms = ("--arm", f"a={comma(simcse[:5])}", "--arm", f"b={comma(simcse[5:])}")
    code, printed, _ = run(capsys, *arms, "--out", tmp_path, "--bootstrap-seed", seed)
    assert code == 0 and f"b against a: {NONE}\n" in printed


def test_simcse_is_told_from_the_untrained_encoder(trained, tmp_path, capsys):
    simcse, untrained = trained
    code, printed, _ = run(capsys, *simcse[:5], *untrained, "--out", tmp_path)
    assert code == 0 and "paired t over 5 seeds" in printed and "one checkpoint" not in printed
    assert re.search(r"simcse against untrained: higher on .*Avg", printed)
    average = next(row for row in rows(tmp_path) if row["arm"] == "simcse" and row["task"] == "Avg")
    assert average["verdict"] == "higher" and average["baseline"] == "untrained"
    assert 0 < float(average["bootstrap_low"]) < float(average["difference"]) < float(average["bootstrap_high"])
    assert float(average["t_low"]) > 0 and float(average["t_p_holm"]) < 0.05


def test_an_encoder_that_is_the_same_under_all_seeds_is_a_baseline(trained, tmp_path, capsys):
    """As where the encoder is loaded and not drawn: seeds of SimCSE against the one checkpoint they start from."""
    simcse, untrained = trained
    same = [copied(untrained[0], tmp_path / f"untrained-{seed}", seed=seed) for seed in range(5)]
    code, printed, _ = run(capsys, *simcse[:5], *same, "--out", tmp_path / "out")
    assert code == 0 and re.search(r"\nsimcse against untrained: higher on .*Avg", printed)
    assert "all 5 runs of untrained score the same: they are one checkpoint" in printed and "Welch's t" in printed


# ------------------------------------------------------------ one seed, or one checkpoint, as several


def test_seeds_of_unlike_recipes_are_not_paired_and_no_claim_is_made(tmp_path, capsys):
    arms = {"new": ("mcse", "mcseo", "dalr"), "old": ("simcse", "diffcse", "untrained")}
    lifts = {"new": 0.6, "old": 0.0}
    named = []
    for arm, recipes in arms.items():
        runs = [drawn(tmp_path / "runs", recipe, range(1), lift=lifts[arm])[0] for recipe in recipes]
        named += ["--arm", f"{arm}={comma(runs)}"]
    code, printed, _ = run(capsys, *named, "--baseline", "old", "--out", tmp_path / "out")
    assert code == 0 and "paired t" not in printed and "over seeds and pairs" not in printed
    for arm, recipes in arms.items():
        assert f"{arm} is runs of several recipes ({', '.join(recipes)}): no claim about the recipe\n" in printed
    assert "these checkpoints (new against old): higher" in printed and "\nnew against old" not in printed
    assert {row["claim_about"] for row in rows(tmp_path / "out") if row["arm"] == "new"} == {"these checkpoints"}


def test_copies_among_seeds_are_refused(trained, tmp_path, capsys):
    simcse, untrained = trained
    copies = [copied(simcse[0], tmp_path / f"simcse-{seed}", seed=seed) for seed in (10, 11, 12)]
    code, printed, told = run(capsys, *simcse[:2], *copies, *untrained, "--out", tmp_path / "out")
    assert code == 3 and not printed and not (tmp_path / "out").exists() and told.count("\n") == 1
    assert all(str(path) in told for path in (simcse[0], *copies)) and "no 4 seeds of simcse" in told


def test_one_checkpoint_copied_for_every_seed_is_one(trained, tmp_path, capsys):
    copies = [copied(trained[0][0], tmp_path / f"mcse-{seed}", recipe="mcse", seed=seed) for seed in range(5)]
    code, printed, _ = run(capsys, *copies, *trained[1], "--out", tmp_path / "out")
    assert code == 0 and "one checkpoint against five: no claim about the recipe" in printed
    assert "all 5 runs of mcse score the same" in printed and "\nmcse against untrained" not in printed
    assert {row["claim_about"] for row in rows(tmp_path / "out") if row["arm"] == "mcse"} == {"these checkpoints"}
    assert "all 5 runs of mcse score the same" in run(capsys, *copies, "--out", tmp_path / "out")[1]


def test_what_is_told_of_the_runs_is_in_print_and_markdown(tmp_path, capsys):
    runs = [*drawn(tmp_path / "runs", "simcse", range(3)), *drawn(tmp_path / "runs", "mcse", range(3))]
    told(runs[4], pooling="cls")
    printed = run(capsys, *runs, "--out", tmp_path / "out")[1]
    line = "pooling is not the same (mean in simcse, mcse; cls in mcse): a difference may be due to it"
    assert line in printed and line in (tmp_path / "out/compare.md").read_text()
    told(runs[4], pooling="mean", dtype="bf16")
    code, _, said = run(capsys, *runs, "--out", tmp_path / "out")
    assert code == 3 and "dtype bf16, but" in said


def test_the_kept_scores_are_small():
    assert sum(file.stat().st_size for file in RUNS.iterdir()) < 400_000


# ------------------------------------------------------------ the command


def test_two_checkpoints_say_nothing_of_their_recipes(trained, tmp_path, capsys):
    simcse, untrained = trained
    code, printed, _ = run(capsys, simcse[0], untrained[0], "--out", tmp_path)
    assert code == 0 and "one checkpoint each: no claim about the recipe" in printed
    assert "these two checkpoints (simcse against untrained): higher on" in printed
    assert "simcse against untrained: higher" not in printed.replace("(simcse against untrained)", "")
    found = [row for row in rows(tmp_path) if row["arm"] == "simcse"]
    assert {row["claim_about"] for row in found} == {"these checkpoints"} and {row["t_p"] for row in found} == {""}
    assert "these two checkpoints" in (tmp_path / "compare.md").read_text()


def test_the_same_call_gives_the_same_files_and_another_seed_others(tmp_path, capsys):
    runs = [*drawn(tmp_path / "runs", "simcse", range(3), lift=0.1), *drawn(tmp_path / "runs", "mcse", range(3))]
    for out, seed in (("one", 0), ("two", 0), ("three", 1)):
        assert run(capsys, *runs, "--out", tmp_path / out, "--bootstrap-seed", seed)[0] == 0
    assert digests(tmp_path / "one") == digests(tmp_path / "two") != digests(tmp_path / "three")
    assert set(digests(tmp_path / "one")) == {"compare.md", "compare.csv", "compare.svg"}


def test_baseline_and_tasks_are_chosen(tmp_path, capsys):
    runs = [p for name in ("simcse", "mcse", "mcseo") for p in drawn(tmp_path / "runs", name, range(3))]
    options = ("--baseline", "mcse", "--task", "STS-B", "--out", tmp_path)
    code, printed, _ = run(capsys, *runs[:2], *options, *runs[2:])
    assert (
        code == 0
        and "simcse - mcse" in printed
        and "mcseo - mcse" in printed
        and "STS12" not in printed.split("wit")[0]
    )
    assert {(row["arm"], row["baseline"]) for row in rows(tmp_path)} == {
        ("simcse", "mcse"),
        ("mcse", ""),
        ("mcseo", "mcse"),
    }
    code, _, told = run(capsys, *runs, "--baseline", "kdmcse", "--out", tmp_path)
    assert code == 2 and told == "compare: --baseline kdmcse: no such arm; there are simcse, mcse, mcseo\n"


def test_untrained_is_the_baseline_if_it_is_there(tmp_path, capsys):
    runs = [*drawn(tmp_path / "runs", "simcse", range(3)), *drawn(tmp_path / "runs", "untrained", range(3))]
    assert "simcse - untrained" in run(capsys, *runs, "--out", tmp_path)[1]


def test_one_arm_is_its_means_alone(tmp_path, capsys):
    code, printed, _ = run(capsys, *drawn(tmp_path / "runs", "simcse", range(3)), "--out", tmp_path)
    assert code == 0 and "nothing to compare" in printed and "±" in printed
    assert set(digests(tmp_path)) >= {"compare.md", "compare.csv"} and not (tmp_path / "compare.svg").exists()


def test_markdown_csv_and_picture_hold_the_same(tmp_path, capsys):
    runs = [*drawn(tmp_path / "runs", "a|b", range(3), lift=0.4), *drawn(tmp_path / "runs", "$x$ <i>", range(3))]
    code, *_ = run(capsys, *runs, "--out", tmp_path)
    assert code == 0
    page, picture = (tmp_path / "compare.md").read_text(), (tmp_path / "compare.svg").read_text()
    assert "<i>" not in page and r"a\|b" in page and "compare.svg" in page and "2,000 draws, bootstrap seed 0" in page
    for row in rows(tmp_path):
        assert f"{float(row['mean']):.2f} ± {float(row['sd']):.2f}" in page
        if row["difference"]:
            assert f"{float(row['difference']):+.2f}" in page
            assert f"{float(row['t_low']):+.2f} to {float(row['t_high']):+.2f}" in page
    assert ET.fromstring(picture).tag.endswith("svg")
    for line in (line for line in page.splitlines() if line.startswith("| ")):
        assert len(re.findall(r"(?<!\\)\|", line)) in (5, 10), line


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ((), 2, "no run given"),
        (("nowhere",), 3, "nowhere: no such run"),
        (("--resamples", "0"), 2, "whole number from 1 on"),
        (("--arm", "name"), 2, "is not NAME=RUN,RUN"),
        (("--arm", "x=nowhere"), 3, "nowhere: no such run"),
    ],
)
def test_mistakes_are_a_line_and_a_code(tmp_path, monkeypatch, capsys, arguments, code, says):
    monkeypatch.chdir(tmp_path)
    ended, printed, told = run(capsys, *arguments)
    assert ended == code and says in told and not printed and not list(tmp_path.iterdir())


def test_too_few_draws_for_any_claim_are_refused(tmp_path, capsys):
    runs = [*drawn(tmp_path / "runs", "simcse", range(3)), *drawn(tmp_path / "runs", "mcse", range(3))]
    code, _, told = run(capsys, *runs, "--out", tmp_path / "out", "--resamples", 50)
    assert code == 2 and "160 or more" in told and not (tmp_path / "out").exists()
    assert run(capsys, *runs, "--out", tmp_path / "out", "--resamples", 160)[0] == 0


def test_more_draws_are_taken_where_many_tests_need_them():
    assert _resamples(None, 7) == 2000
    for tests in (30, 126, 1000):
        assert 2 * tests / (_resamples(None, tests) + 1) < 0.05


def test_it_is_a_command_of_the_stage(tmp_path):
    runs = [*drawn(tmp_path / "runs", "simcse", range(3)), *drawn(tmp_path / "runs", "mcse", range(3))]
    command = [sys.executable, "-m", "stages.evaluate", "compare", *map(str, runs)]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and f"mcse against simcse: {NONE}" in done.stdout, done.stderr
    assert sorted(file.name for file in (tmp_path / "compare").iterdir()) == [
        "compare.csv",
        "compare.md",
        "compare.svg",
    ]
    assert done.stderr == "compare: 6 runs in 2 arms -> compare\n"
