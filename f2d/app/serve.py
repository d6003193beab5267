"""Start the server, wait for it, and remove everything that it wrote."""

import os
import shutil
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from f2d import checkpoints
from f2d.app.disk import deleting
from f2d.app.limits import Limits
from f2d.engine.restorer import Restorer

FIRST_PORT = 7860  # gradio's default; gradio tries the next hundred


@contextmanager
def serving(
    restorer: Restorer, title: str, limits: Limits, *, host: str = "127.0.0.1", port: int = 0, licence: str = ""
) -> Iterator[str]:
    """``with serving(restorer, "f2d-lite", Limits()) as address:`` serve the page inside the block.

    port: 0 for the first free port from `FIRST_PORT`. Uploads and results lie in a private folder, which is deleted at
    the end. Nothing is sent to another host. Raises ImportError without gradio, and OSError if the server cannot listen
    on host and port.
    """
    check_free(host, port)
    with ExitStack() as tidy:  # every clean-up runs, even if one is interrupted
        folder = Path(tempfile.mkdtemp(prefix="f2d-app-")).resolve()
        tidy.callback(shutil.rmtree, folder, ignore_errors=True)
        # read by gradio: where it writes, whether it sends statistics, whether the browser keeps what was done
        settings = {"GRADIO_TEMP_DIR": str(folder), "GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_RUN_HISTORY": "False"}
        tidy.enter_context(_environment(settings))

        from starlette.middleware import Middleware

        from f2d.app.examples import make_examples
        from f2d.app.guard import Guard
        from f2d.app.page import build, making_folders_in
        from f2d.app.theme import CSS, theme
        from f2d.app.work import Work

        tidy.enter_context(making_folders_in(folder))
        examples = make_examples(folder)
        page = build(Work(restorer, limits, folder), title, licence, examples)

        def forget(gone: set[Path]) -> None:
            for files in page.temp_file_sets:
                files.difference_update(map(str, gone))

        tidy.enter_context(deleting(folder, limits.keep, set(examples), forget))
        tidy.callback(page.close, verbose=False)
        _, address, _ = page.launch(
            server_name=host,
            server_port=port or None,
            prevent_thread_lock=True,
            quiet=True,
            share=False,
            ssr_mode=False,
            footer_links=[],
            max_file_size=limits.upload,
            enable_monitoring=False,
            app_kwargs={"middleware": [Middleware(Guard, limits=limits, folder=folder)]},
            theme=theme(),
            css=CSS,
        )
        yield address


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def wait() -> None:
    """Wait until the process is interrupted or terminated."""
    threading.Event().wait()


def licence_of(model: str) -> str:
    """Return the text of the LICENSE beside the weights loaded as `model`, or "" if there is none."""
    folder = checkpoints.find(model, local_files_only=True)
    path = (checkpoints.WEIGHTS if folder.parent == checkpoints.WEIGHTS else folder) / "LICENSE"
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def check_free(host: str, port: int) -> None:
    """Raise OSError with a one-line message unless the server can listen on host and port; port 0 is any."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as test:
            test.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            test.bind(address)
    except OSError as error:
        raise OSError(
            f"{host}, port {port}: cannot listen there ({error.strerror}), so choose a different --port"
        ) from None
