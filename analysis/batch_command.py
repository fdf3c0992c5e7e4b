"""The command `batch`: any number of adapters on any file system, read into Parquet."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, cast

import typer

from soft_prompt_explorer.analysis.command_line import DeviceOption, DtypeOption, ModelOption, new_app, progress_bar
from soft_prompt_explorer.analysis.core.engines import Engine
from soft_prompt_explorer.analysis.models.computing import compute_in

app = new_app("Thousands of adapters at once.")


@app.command()
def batch(
    pattern: Annotated[
        str, typer.Argument(help="A folder, a glob or a URL of fsspec, in quotes: 'adapters/*', 's3://bucket/**'.", metavar="GLOB-OR-URL")
    ],
    out: Annotated[
        Path, typer.Option(help="The folder that the tables are kept in. The same command goes on with it after a stop.", file_okay=False)
    ],
    engine: Annotated[str, typer.Option(help="loky (processes of this machine), dask or ray.")] = "loky",
    workers: Annotated[int, typer.Option(help="How many at once.", min=1)] = 1,
    scheduler: Annotated[str | None, typer.Option(help="The address of a Dask or Ray cluster. [default: one made here]")] = None,
    lens: Annotated[
        bool,
        typer.Option(
            "--lens", help="What each pushes the model towards, too: minutes an adapter on a processor, seconds on a graphics card."
        ),
    ] = False,
    model: ModelOption = None,
    dtype: DtypeOption = None,
    device: DeviceOption = None,
) -> None:
    """Read any number of adapters into a folder of Parquet: a manifest, the refused ones, and a row for each virtual token and each module."""
    compute_in(dtype, device)
    from soft_prompt_explorer.analysis.core.provenance import typed_command
    from soft_prompt_explorer.analysis.report.batches import batch as read_all

    with progress_bar() as report:
        manifest = read_all(
            pattern, out, model=model, lens=lens, engine=cast("Engine", engine), workers=workers, scheduler=scheduler, command=typed_command(),
            report=report,
        )  # fmt: skip
    import pandas as pd

    refused, copies = len(pd.read_parquet(out / "refused.parquet")), int(manifest["copy_of"].notna().sum())
    print(f"{len(manifest):,} read ({copies:,} of them copies) and {refused:,} refused; the tables are in {out}.", file=sys.stderr)
