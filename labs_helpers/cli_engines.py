"""`labs engines`: one engine by hand."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from labs_helpers.cli_options import Json, pairs

app = typer.Typer(
    no_args_is_help=False,
    invoke_without_command=True,
    rich_markup_mode=None,
    help="One engine by hand; without a command, the table of engines.",
)


@app.callback()
def engines(context: typer.Context, as_json: Json = False) -> None:
    """The table of engines: which can run here, which are missing and why."""
    if context.invoked_subcommand:
        return
    from labs_helpers.engines import registry

    rows = registry.table()
    if as_json:
        print(json.dumps([row.model_dump() for row in rows], indent=1))
        return
    for row in rows:
        print(f"{row.engine:<14} {row.status:<12} {row.version:<18} {row.reason}")
        if row.remedy:
            print(f"{'':<14} -> {row.remedy}")


@app.command("install")
def install(name: str, force: Annotated[bool, typer.Option("--force", help="Build it anew.")] = False) -> None:
    """Build an engine's own environment from its exact pins."""
    from labs_helpers.bootstrap import progress_line
    from labs_helpers.engines import install

    if force:
        install.uninstall(name)
    install.install(name, progress_line)
    print(f"{name} is installed")


@app.command("start")
def start(
    name: str,
    precision: Annotated[str | None, typer.Option(help="fp32, bf16, q8_0: what the engine can serve here")] = None,
    option: Annotated[list[str] | None, typer.Option("-o", help="NAME=VALUE, an option of the engine")] = None,
    model: Annotated[str | None, typer.Option(help="a model folder or GGUF file instead of the course model")] = None,
) -> None:
    """Start one engine on 127.0.0.1 and keep it until Ctrl-C or `labs engines stop`."""
    from labs_helpers.engines import foreground

    foreground.run(name, precision=precision, model=model, options=pairs(option or []))


@app.command("stop")
def stop(name: Annotated[str | None, typer.Argument(help="any engine when not named")] = None) -> None:
    """Stop the engine that runs now."""
    from labs_helpers.engines import foreground

    print(foreground.stop(name))


@app.command("logs")
def logs(name: str, lines: Annotated[int, typer.Option("-n", min=1, help="how many lines")] = 40) -> None:
    """The last lines of an engine's newest log."""
    from labs_helpers.engines import foreground

    print(foreground.logs(name, lines))
