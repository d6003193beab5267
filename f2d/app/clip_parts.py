"""The part of the page for short videos: upload, players of before and after, download."""

from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from f2d.app import parts
from f2d.app.clips import SUFFIXES, Clip, Clips
from f2d.app.work import Options
from f2d.video import missing_extra

_PLAYERS = """
{{#if value}}
<div class="players">
  <figure><video controls playsinline preload="metadata" src="{{value.before.url}}"
    aria-label="Video before the restoration"></video><figcaption>Before</figcaption></figure>
  <figure><video controls playsinline preload="metadata" src="{{value.after.url}}"
    aria-label="Restored video"></video><figcaption>Restored</figcaption></figure>
</div>
{{/if}}
"""

_PLAYERS_CSS = """
.players { display: grid; grid-template-columns: repeat(auto-fit, minmax(240px, 1fr)); gap: 12px; }
figure { margin: 0; min-width: 0; }
video { display: block; width: 100%; max-height: 60vh; border-radius: 8px; background: #000; }
video.silent { display: none; }
figcaption { padding-top: 4px; font-size: 14px; }
"""

# errors of media do not bubble, so they are caught on the way down
_PLAYERS_JS = """
element.addEventListener("error", (event) => {
  if (event.target.tagName !== "VIDEO") return;
  event.target.classList.add("silent");
  const caption = event.target.parentElement.querySelector("figcaption");
  caption.textContent += ": this browser does not play the file";
}, true);
"""


def clips(
    work: Clips,
    told: Callable[[Callable], Callable],
    options: Callable[..., Options],
    chosen: list[gr.components.Component],
    hidden: dict[str, Any],
) -> None:
    """Add the part to the page that is being built. told: shows a function's errors. options, chosen: the options of a
    request, made of the values of these elements. hidden: how its events are kept out of the page's description."""
    limits = work.work.limits
    with gr.Accordion("Restore a short video", open=False, elem_id="f2d-clips"):
        missing = missing_extra()
        if missing is not None:
            gr.HTML(f"<p>{escape(missing[0].upper() + missing[1:])}</p>")
            return
        upload = gr.File(
            label=f"Your video, up to {limits.clip_seconds:g} seconds ({work.frames} frames) of "
            f"{limits.clip_megapixels:g} megapixels and {limits.upload / 2**20:.4g} MiB: {', '.join(SUFFIXES)}",
            file_types=list(SUFFIXES),
            height=140,
            elem_id="f2d-clip",
        )
        upload.preprocess = lambda payload: getattr(payload, "path", None)  # gradio's own makes a file at each request
        button = gr.Button("Restore the video", variant="primary", elem_id="f2d-restore-clip")
        players = gr.HTML(
            None, html_template=_PLAYERS, css_template=_PLAYERS_CSS, js_on_load=_PLAYERS_JS, elem_id="f2d-players"
        )
        line = gr.HTML(parts.line(), elem_id="f2d-clip-line")
        download = gr.DownloadButton("Download the restored video", interactive=False, elem_id="f2d-download-clip")

    def restore(path: str | None, *values: Any, progress: gr.Progress = gr.Progress()) -> list:  # noqa: B008
        def counted(done: int, total: int | None) -> None:
            progress((done, total), unit="frames")

        def restored() -> Clip:
            if path is None:
                raise ValueError("Choose a video first.")
            return work.restore(Path(path), options(*values), counted)

        clip = told(restored)()
        size = clip.after.stat().st_size / 1e6
        label = f"Download the restored video ({clip.after.suffix[1:].upper()}, {max(0.01, size):.2f} MB)"
        files = {"before": parts.file(clip.before), "after": parts.file(clip.after)}
        return [files, parts.line(clip.line), gr.DownloadButton(label, value=str(clip.after), interactive=True)]

    button.click(
        restore, [upload, *chosen], [players, line, download], concurrency_limit=1, show_progress_on=players, **hidden
    )
