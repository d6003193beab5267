"""`f2d app`: serve a browser page that restores the photographs and short videos dropped on it."""

from contextlib import ExitStack
from importlib.util import find_spec
from typing import Annotated

import typer

from f2d.cli.console import err, fail, one_line_errors, out, shown, tidy_when_terminated
from f2d.cli.options import Device, MaxMemory, ModelArgument, PrecisionOption
from f2d.cli.quantities import size_in_bytes


@one_line_errors
def app_command(
    model: ModelArgument = "f2d-lite",
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 makes the page accessible from the network.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on; 0 means the first free port from 7860 upwards.")
    ] = 0,
    device: Device = "auto",
    precision: PrecisionOption = "auto",
    max_megapixels: Annotated[
        float, typer.Option(min=0.01, max=178, help="Largest image accepted, in megapixels.")
    ] = 24.0,
    max_upload: Annotated[int, typer.Option(min=1, metavar="MIB", help="Largest file accepted, in MiB.")] = 64,
    threads: Annotated[
        int, typer.Option(min=1, max=64, help="Number of restorations that run at once; further requests wait.")
    ] = 1,
    queue: Annotated[int, typer.Option(min=1, help="Number of requests that may wait; further ones are refused.")] = 20,
    max_memory: MaxMemory = None,
    max_disk: Annotated[
        float, typer.Option(min=0.01, metavar="GIB", help="Disk space for uploads and results, in GiB.")
    ] = 4.0,
    max_seconds: Annotated[float, typer.Option(min=0.1, help="Longest video accepted, in seconds.")] = 10.0,
    max_frame: Annotated[
        float, typer.Option(min=0.01, max=178, help="Largest frame of a video accepted, in megapixels.")
    ] = 2.1,
    open_browser: Annotated[bool, typer.Option("--open", help="Open the page in the browser of this machine.")] = False,
) -> None:
    r"""Serve a browser page that restores photographs and short videos with MODEL: upload, compare, download.

    The server runs until Ctrl-C. Images stay on this machine and are deleted after an hour or when the server ends.
    Needs: pip install "f2d\[app]", and for videos "f2d\[app,video]"
    """
    memory = size_in_bytes(max_memory)
    if find_spec("gradio") is None:
        fail('f2d app needs gradio, which is not installed: pip install "f2d[app]"')

    from f2d.app.limits import Limits
    from f2d.app.serve import check_free, licence_of, serving, wait
    from f2d.engine.restorer import Restorer

    check_free(host, port)
    limits = Limits(
        *(max_megapixels, max_upload * 2**20, memory, threads, queue),
        disk=int(max_disk * 2**30),
        clip_seconds=max_seconds,
        clip_megapixels=max_frame,
    )
    restorer = Restorer.load(model, device=device, precision=precision)
    out.print(f"{shown(model)} on {restorer.execution}")
    with tidy_when_terminated(), ExitStack() as server:
        with err.status("starting"):
            page = serving(restorer, model, limits, host=host, port=port, licence=licence_of(model))
            address = server.enter_context(page)
        out.print(f"{address}  (press Ctrl-C to stop)")
        if open_browser:
            typer.launch(address)
        wait()
