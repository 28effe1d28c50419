"""`python -m pipeline`: every command. A mistake ends in one line and its exit code.

Heavy modules are imported by the command that needs them.
"""

import errno
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from pipeline import child, params, presets
from pipeline.errors import InputError, ParamsError, ResourceError, StageError, tell
from pipeline.process import RUN_DIR, lock

PARAMS = Path("params.yaml")
PAGE = Path("report/index.html")
_SHORT = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)

app = typer.Typer(
    help="Object-phrase pairs from images and captions, and the sentence encoders trained on them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
weights_app = typer.Typer(help="Weights the stages can use: what there is, and getting it.", no_args_is_help=True)
export_app = typer.Typer(help="The pairs in layouts that other tools read.", no_args_is_help=True)
app.add_typer(weights_app, name="weights")
app.add_typer(export_app, name="export")

Set = Annotated[list[str] | None, typer.Option("--set", metavar="SECTION.NAME=VALUE", help="a parameter, any number")]
Dataset = Annotated[str | None, typer.Option(help="a dataset under data/; default: that of params.yaml")]


@app.command()
def plan(
    targets: Annotated[list[str] | None, typer.Argument(help="stages (train), cells (train@mcse-0); none: all")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="plain JSON on standard output")] = False,
    shards: Annotated[bool, typer.Option(help="also count the shards that the scratch store already has")] = True,
) -> None:
    """What `dvc repro` would do to every stage, why, and roughly how long it would take."""
    from pipeline import estimate, graph

    loaded = params.load(PARAMS)
    steps = graph.Graph().plan(targets, shards)
    estimates = estimate.of_plan(loaded, steps)
    if as_json:
        typer.echo(json.dumps(graph.as_json(steps, {name: e.here for name, e in estimates.items()}), indent=2))
        return
    console = Console(highlight=False)
    console.print(graph.table(steps, {name: estimate.told(e.here) for name, e in estimates.items()}))
    console.print(f"\n[bold]{graph.summary(steps)}[/bold]")
    for line in estimate.in_words(loaded, estimates):
        console.print(line, markup=False)


@app.command()
def run(
    targets: Annotated[list[str] | None, typer.Argument(help="stages to bring up to date; none: all")] = None,
    changes: Set = None,
) -> None:
    """Brings the graph up to date (`dvc repro` in this environment), after writing any --set to params.yaml."""
    with lock(RUN_DIR / "flow.lock", "a run in this checkout"):
        if changes:
            params.update(PARAMS, params.parse_overrides(changes))
        else:
            params.load(PARAMS)
        for told in RUN_DIR.glob("*.exit.json"):
            told.unlink(missing_ok=True)
        code = _dvc_repro(targets or [])
    if code == 0:
        typer.echo(f"done; open {PAGE.resolve()}" if PAGE.exists() and not targets else "done")
        return
    stage, told = _failed()
    tell(
        f"stopped at {stage} (exit {told}); see its lines above. What is finished is kept: run again to go on"
        if stage
        else f"stopped: dvc ended with exit {code}; see its lines above"
    )
    raise typer.Exit(told if stage else 1)


def _dvc_repro(targets: list[str]) -> int:
    running = child.start(child.dvc("repro", *targets))
    try:
        return running.wait()
    except KeyboardInterrupt:
        tell("interrupted: ending the running stage")
        child.stop(running)
        raise typer.Exit(130) from None
    finally:
        child.stop(running)


def _failed() -> tuple[str | None, int]:
    """The stage that told a code other than 0, and that code."""
    for file in sorted(RUN_DIR.glob("*.exit.json")):
        told = json.loads(file.read_text(encoding="utf-8"))
        if told.get("code"):
            return file.name.removesuffix(".exit.json"), told["code"]
    return None, 0


@app.command()
def preset(
    name: Annotated[str | None, typer.Argument(help="a file of presets/, without .yaml")] = None,
    data_root: Annotated[Path | None, typer.Option(help="the collection's folder, for presets that need one")] = None,
    changes: Set = None,
    force: Annotated[bool, typer.Option("--force", help="replace an edited params.yaml (a backup is kept)")] = False,
    listed: Annotated[bool, typer.Option("--list", help="show the presets that ship")] = False,
) -> None:
    """Puts a whole, commented parameter file in place of params.yaml."""
    if listed or name is None:
        _print_rows(("preset", "what", "needs"), presets.listing())
        return
    overrides = params.parse_overrides(changes or [])
    backup = presets.use(name, PARAMS, data_root, overrides, force)
    if backup:
        typer.echo(f"{PARAMS} was edited; it is kept as {backup}")
    dataset = params.load(PARAMS).dataset
    typer.echo(f"{PARAMS} is now preset {name}; its artifacts go to data/{dataset}/. Next: python -m pipeline plan")


@app.command(name="set")
def set_(changes: Annotated[list[str], typer.Argument(metavar="SECTION.NAME=VALUE...")]) -> None:
    """Changes parameters in params.yaml: checked all together, comments kept."""
    overrides = params.parse_overrides(changes)
    params.update(PARAMS, overrides)
    for key, value in overrides.items():
        typer.echo(f"{key} = {value!r}")


@weights_app.command("list")
def weights_list(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="say all of these")] = None,
) -> None:
    """What can be had: whether it is here, its size, its licence, and what to set to it."""
    from pipeline.weights import manifest, shown

    if names:
        for name in names:
            typer.echo(shown.details(name, manifest.entry(name)))
        return
    _print_rows(shown.HEAD, shown.rows())
    typer.echo(shown.FOOT)


@weights_app.command("get")
def weights_get(names: Annotated[list[str], typer.Argument(metavar="NAME...", help="names of `weights list`")]) -> None:
    """Puts weights into their folders under weights/: fetched, checked, converted. Goes on where it broke off."""
    from pipeline.weights import get, manifest

    for name in names:
        manifest.entry(name)
    for name in names:
        typer.echo(f"{name}: in {get.get(name)}")


@weights_app.command("verify")
def weights_verify(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="default: all that are here")] = None,
) -> None:
    """Hashes every file of the folders under weights/ and holds it against what it was. Exit 3: one is damaged."""
    from pipeline.weights import check

    findings = check.verify(names or [])
    for line in (line for finding in findings for line in finding.lines()):
        typer.echo(line)
    if not findings:
        typer.echo("no weights are here; `python -m pipeline weights list` shows what can be had")
    if any(finding.damaged for finding in findings):
        raise typer.Exit(InputError.code)


@weights_app.command("convert")
def weights_convert(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="a .pth, .pt, .bin or .safetensors got elsewhere")],
    name: Annotated[str, typer.Option("--as", metavar="NAME", help="the name of `weights list` that it is one of")],
    folder: Annotated[Path | None, typer.Option("--to", metavar="DIR", help="a folder; default: that of NAME")] = None,
) -> None:
    """Makes the folder that a stage reads of a checkpoint file: read without running its code, every tensor checked."""
    from pipeline.weights import get

    made, official = get.convert(file, name, folder)
    typer.echo(f"{name}: in {made}" + ("" if official else f"; {file} is not the official file of that name"))


@app.command()
def doctor() -> None:
    """What this machine and checkout have, and what to do where something is amiss. Exit 5: there is a problem."""
    from pipeline import checkup

    problems = checkup.run(PARAMS, Console(highlight=False, markup=False))
    if problems:
        raise typer.Exit(ResourceError.code)


@app.command()
def show(
    identifier: Annotated[str, typer.Argument(metavar="ID", help="of an image, caption, phrase, box, or pair")],
    dataset: Dataset = None,
    opened: Annotated[bool, typer.Option("--open", help="also draw it and open the picture")] = False,
    picture: Annotated[Path | None, typer.Option(metavar="FILE", help="also draw it into this PNG")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="everything as JSON on standard output")] = False,
) -> None:
    """Everything known of a pair, an image or a caption: where it comes from, who made it, what was lost and why."""
    from pipeline import show as search
    from pipeline.show_text import render

    data, _ = _places(dataset)
    found = search.find(data, identifier)
    if as_json:
        typer.echo(json.dumps(found.as_json(), indent=2, ensure_ascii=False))
    else:
        render(found, Console(highlight=False, markup=False))
    if opened or picture:
        from pipeline import picture as drawing

        target = drawing.save(drawing.draw(found, search.image_bytes(data, found)), picture or RUN_DIR / "show.png")
        if not (opened and drawing.open_viewer(target)):
            typer.echo(f"picture: {target}", err=as_json)


@app.command()
def verify(
    dataset: Dataset = None,
    fast: Annotated[bool, typer.Option("--fast", help="hash no contents: what is there, and do records agree")] = False,
) -> None:
    """Holds every shard, the scratch store and DVC's cache against what is said of them. Exit 3: there is a fault."""
    from pipeline import verify as check

    data, scratch = _places(dataset)
    report = check.everything(data, scratch, fast)
    for line in (*report.remarks, *map(str, report.faults)):
        typer.echo(line)
    looked = ", ".join(f"{number:,} {what}" for what, number in report.looked.items())
    faults = len(report.faults)
    typer.echo(f"{data}: {looked}: {faults or 'no'} fault{'' if faults == 1 else 's'}")
    if faults:
        raise typer.Exit(InputError.code)


@app.command()
def clean(
    dataset: Dataset = None,
    scratch: Annotated[bool, typer.Option("--scratch", help="also finished shards nobody used for a while")] = False,
    keep_days: Annotated[float, typer.Option(help="with --scratch: keep what was used in so many days")] = 30,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only list and sum")] = False,
) -> None:
    """Removes what killed runs left behind, and old shards of the scratch store. Costs time at most, never a result."""
    from pipeline import clean as sweeping
    from pipeline.locks import hold_all

    if not keep_days >= 0:
        raise ParamsError(f"--keep-days {keep_days}: must be a number from 0")
    data, store = _places(dataset)
    with hold_all(store):
        sweep = sweeping.sweep(data, store, keep_days if scratch else None)
        for path in sweep.listed() if dry_run else ():
            typer.echo(str(path))
        if not dry_run:
            sweep.remove()
    typer.echo(sweep.summary("would free" if dry_run else "freed"))


@export_app.command("coco")
def export_coco(
    out: Annotated[Path, typer.Argument(help="a folder that is empty or not there yet")],
    dataset: Dataset = None,
    force: Annotated[bool, typer.Option("--force", help="replace an earlier export")] = False,
) -> None:
    """COCO instances JSON (masks as RLE, with phrase and caption), captions JSON, and the images."""
    from pipeline.export import coco

    _export(coco.write, out, dataset, force)


@export_app.command("hf")
def export_hf(
    out: Annotated[Path, typer.Argument(help="a folder that is empty or not there yet")],
    dataset: Dataset = None,
    force: Annotated[bool, typer.Option("--force", help="replace an earlier export")] = False,
) -> None:
    """Parquet files and a dataset card: datasets.load_dataset(OUT) opens it."""
    from pipeline.export import hf

    _export(hf.write, out, dataset, force)


def _export(write: Callable[[Path, Path], tuple[int, int]], out: Path, dataset: str | None, force: bool) -> None:
    from pipeline.export.folder import fresh

    data, _ = _places(dataset)
    with fresh(out, force) as folder:
        images, pairs = write(data, folder)
    typer.echo(f"{pairs:,} pairs of {images:,} images: in {out}")


def _places(dataset: str | None) -> tuple[Path, Path]:
    """A dataset's folder and its scratch store."""
    loaded = params.load(PARAMS)
    name = dataset or loaded.dataset
    data = Path("data") / name
    if Path(name).name != name or not data.is_dir():
        there = sorted(path.name for path in Path("data").glob("*") if path.is_dir())
        hint = f"there are {', '.join(there)}" if there else "run `python -m pipeline run` first"
        raise InputError(f"{data}: no such dataset; {hint}")
    return data, Path(loaded.runtime.scratch) / name


def _print_rows(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    made = Table(*head, box=None, pad_edge=False, header_style="dim")
    for row in rows:
        made.add_row(*row)
    Console(highlight=False, markup=False).print(made)


def main(arguments: list[str] | None = None) -> None:
    """Runs a command; a StageError ends it with one line on stderr and its own exit code."""
    try:
        app(arguments, prog_name="python -m pipeline")
    except StageError as error:
        tell(str(error))
        sys.exit(error.code)
    except OSError as error:
        if error.errno not in _SHORT:
            raise
        tell(f"{error.filename or 'the disk'}: cannot be written ({error.strerror}); free or open it and run again")
        sys.exit(ResourceError.code)
