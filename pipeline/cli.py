"""`python -m pipeline`: plan, run, preset, set, weights. A mistake ends in one line and its exit code."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from pipeline import child, params, presets, weights
from pipeline.errors import StageError, tell
from pipeline.process import RUN_DIR, lock

PARAMS = Path("params.yaml")
PAGE = Path("report/index.html")

app = typer.Typer(
    help="Object-phrase pairs from images and captions, and the sentence encoders trained on them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
weights_app = typer.Typer(help="Weights the stages can use: what there is, and getting it.", no_args_is_help=True)
app.add_typer(weights_app, name="weights")

Set = Annotated[list[str] | None, typer.Option("--set", metavar="SECTION.NAME=VALUE", help="a parameter, any number")]


@app.command()
def plan(
    targets: Annotated[list[str] | None, typer.Argument(help="stages (train), cells (train@mcse-0); none: all")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="plain JSON on standard output")] = False,
    shards: Annotated[bool, typer.Option(help="also count the shards that the scratch store already has")] = True,
) -> None:
    """What `dvc repro` would do to every stage, and why."""
    from pipeline import graph

    params.load(PARAMS)
    steps = graph.Graph().plan(targets, shards)
    if as_json:
        typer.echo(json.dumps(graph.as_json(steps), indent=2))
        return
    console = Console(highlight=False)
    console.print(graph.table(steps))
    console.print(f"\n[bold]{graph.summary(steps)}[/bold]")


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
def weights_list() -> None:
    """What can be had, under which licence, from where, and whether it is here."""
    for name, entry in weights.MANIFEST.items():
        state = "is here" if weights.is_here(entry) else "is not here"
        typer.echo(
            f"{name}: {entry.what}\n  licence: {entry.licence}\n  from: {entry.source}\n  {entry.folder} {state}"
        )


@weights_app.command("get")
def weights_get(name: Annotated[str, typer.Argument(help="a name of `weights list`")]) -> None:
    """Puts weights into their folder under weights/."""
    folder = weights.get(name)
    typer.echo(f"{name}: in {folder}")


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
