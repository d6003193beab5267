"""The interface: the elements of the page, and the functions that its buttons call."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr
from gradio import routes

from f2d.app import parts
from f2d.app.clip_parts import clips
from f2d.app.clips import Clips
from f2d.app.limits import MAX_STEPS, MAX_STRENGTH
from f2d.app.work import Done, Options, Work

LARGEST_SEED = 2**32 - 1  # a number field of a browser holds 2^53
OTHER_NUMBERS_OF_STEPS = ("EM", "mean")  # samplers for as many as the schedule has, 100, and for one alone
GONE = "The picture is not on the server any more; upload it again."
_TO_RESULT = "() => document.getElementById('f2d-compare').scrollIntoView({ block: 'nearest' })"  # on a phone


class Preview(NamedTuple):
    """A file that browsers cannot show (original), and the picture that the page shows in its place (shown)."""

    shown: str
    original: str


class _Page(gr.Blocks):
    """Blocks whose requests contain only numbers, texts, and paths of files below the server's folder.

    gradio's own Blocks copy whatever a request names into their folder, fetch it, or pass its path on unchecked.
    """

    def __init__(self, work: Work, **options: Any):
        super().__init__(**options)
        self._work = work

    async def preprocess_data(self, block_fn: Any, inputs: list, *rest: Any, **named: Any) -> Any:
        return await super().preprocess_data(block_fn, [self._checked(value) for value in inputs], *rest, **named)

    def _checked(self, value: Any) -> Any:
        if not isinstance(value, (dict, list)):
            return value
        path = value.get("path") if isinstance(value, dict) else None
        try:
            self._work.inside(Path(path if isinstance(path, str) else ""))
        except FileNotFoundError:
            raise gr.Error(GONE, title="Not restored", print_exception=False) from None
        return {"path": path, "meta": {"_type": "gradio.FileData"}}


def build(work: Work, title: str, licence: str, examples: list[Path]) -> gr.Blocks:
    """Build the page. title: the model's name. licence: that of its weights, "" for none. examples: files to try."""
    limits, names = work.limits, work.restorer.config.factors
    steps = work.restorer.transport.default_steps
    samplers = [name for name in work.restorer.transport.samplers if name not in OTHER_NUMBERS_OF_STEPS]
    with _Page(work, title=f"Restore a photograph: {title}", analytics_enabled=False) as page:
        gr.HTML(_head(title, limits.keep))
        with gr.Row():
            with gr.Column(scale=4, min_width=280):
                upload = gr.Image(
                    label=f"Your photograph, up to {limits.megapixels:g} megapixels",
                    sources=["upload", "clipboard"],
                    type="filepath",
                    image_mode=None,
                    height=280,
                    buttons=["fullscreen"],
                    elem_id="f2d-upload",
                )
                # gradio's own opens the file, and has no words for one that is broken
                upload.preprocess = lambda payload: payload and payload.path
                button = gr.Button("Restore", variant="primary", elem_id="f2d-restore")
                if examples:
                    tried = parts.examples(examples)
                strengths = _strengths(names)
                with gr.Accordion("Advanced", open=False):
                    number = gr.Slider(
                        1,
                        MAX_STEPS,
                        value=steps,
                        step=1,
                        label="Steps",
                        info="Calls of the network; the time grows with their number.",
                    )
                    sampler = gr.Radio(samplers, value=samplers[0], label="Sampler", visible=len(samplers) > 1)
                    seed = gr.Number(
                        0, precision=0, minimum=0, maximum=LARGEST_SEED, label="Seed", info="Random seed of the noise."
                    )
                    new_seed = gr.Button("New seed", size="sm")
            with gr.Column(scale=7, min_width=280):
                compare = parts.compare()
                line = gr.HTML(parts.line(), elem_id="f2d-line")
                download = gr.DownloadButton("Download the restored picture", interactive=False, elem_id="f2d-download")
                factors = parts.factors() if names else None
        original = gr.State(None)

        def options(steps: int, sampler: str, seed: float | None, *amounts: float) -> Options:
            strength = {name: float(amount) for name, amount in zip(names, amounts) if amount != 1}
            return Options(steps, sampler, int(seed or 0), strength)

        def restore(path: str | None, preview: Preview | None, *values: Any) -> list:
            if path is None:
                raise ValueError("Choose a photograph first.")
            path = preview.original if preview and preview.shown == path else path
            done = work.restore(Path(path), options(*values))
            results = [parts.compared(done), parts.line(done.line), _download(done)]
            return [*results, parts.explained(done)] if names else results

        def look(path: str) -> tuple:
            shown = work.preview(Path(path))
            return (gr.skip(), None) if shown is None else (str(shown), Preview(str(shown), path))

        def pick(event: gr.EventData) -> str:
            return str(examples[event.index])

        hidden, chosen = {"api_visibility": "private"}, [number, sampler, seed, *strengths]
        upload.upload(_told(look, [None, None]), [upload], [upload, original], concurrency_limit=2, **hidden)
        button.click(None, js=_TO_RESULT, **hidden)
        button.click(
            _told(restore),
            [upload, original, *chosen],
            [compare, line, download, *([factors] if names else [])],
            concurrency_limit=limits.together,
            show_progress_on=compare,
            **hidden,
        )
        new_seed.click(None, None, seed, js=f"() => Math.floor(Math.random() * {LARGEST_SEED + 1})", **hidden)
        if examples:
            tried.click(pick, None, upload, queue=False, show_progress="hidden", **hidden)
        clips(Clips(work), _told, options, chosen, hidden)
        gr.HTML(_foot(licence))
    return page.queue(max_size=limits.waiting, api_open=False)


@contextmanager
def making_folders_in(folder: Path) -> Iterator[None]:
    """Make gradio create its folders below `folder` inside the block.

    Otherwise it uses the folder that was set when it was imported, which may belong to a server that has ended.
    """
    before, routes.DEFAULT_TEMP_DIR = routes.DEFAULT_TEMP_DIR, str(folder)
    try:
        yield
    finally:
        routes.DEFAULT_TEMP_DIR = before


def _download(done: Done) -> gr.DownloadButton:
    size = done.download.stat().st_size / 1e6
    label = f"Download the restored picture ({done.format}, {max(0.01, size):.2f} MB)"
    return gr.DownloadButton(label, value=str(done.download), interactive=True)


def _strengths(names: tuple[str, ...]) -> list[gr.Slider]:
    if not names:
        return []
    with gr.Accordion("Strength of each factor", open=False):
        gr.HTML("<p>0 switches a factor's expert off, 1 is as trained. Press Restore after a change.</p>")
        sliders = [gr.Slider(0, MAX_STRENGTH, value=1, step=0.05, label=parts.named(name)) for name in names]
        with gr.Row():
            _sets("All", sliders, [1] * len(names))
            for k, name in enumerate(names):
                _sets(f"Only {parts.named(name)}", sliders, [int(i == k) for i in range(len(names))])
    return sliders


def _sets(label: str, sliders: list[gr.Slider], values: list[int]) -> None:
    """Add a button that moves the sliders, which happens in the browser only."""
    button = gr.Button(label, size="sm", min_width=100)
    button.click(None, None, sliders, js=f"() => {values if len(values) > 1 else values[0]}", api_visibility="private")


def _told(function: Callable, instead: list | None = None) -> Callable:
    """Return `function` with its ValueErrors shown on the page, and other errors reported there as the server's fault.

    instead: what is returned after an error, which is then shown as a warning. None: the error ends the request, and
    the page stays as it is.
    """

    def run(*values: Any) -> Any:
        try:
            return function(*values)
        except FileNotFoundError:
            message = GONE
        except ValueError as error:
            message = str(error)
        except Exception:
            logging.getLogger(__name__).exception("a request failed")
            message = "This did not work, and it is the server's fault. The reason is in its log."
        if instead is None:
            raise gr.Error(escape(message), title="Not restored", print_exception=False)
        gr.Warning(escape(message), title="This file cannot be restored")
        return instead

    return run


def _head(title: str, keep: int) -> str:
    return (
        f"<h1>Restore a photograph</h1><p>The model <b>{escape(title)}</b> removes rain, haze, low light and snow from "
        "a photograph. It invents what it cannot see, so do not use it where that matters. Pictures stay on this "
        f"server and are deleted after {_duration(keep)}.</p>"
    )


def _foot(licence: str) -> str:
    if not licence:
        return ""
    text = escape(licence.strip())
    return f'<details><summary>Licence of the weights</summary><p style="white-space: pre-line">{text}</p></details>'


def _duration(seconds: int) -> str:
    hours, minutes = seconds // 3600, seconds // 60
    number, unit = (hours, "hour") if hours else (minutes, "minute") if minutes else (seconds, "second")
    return f"{number} {unit}{'s' * (number != 1)}"
