"""Parts that gradio lacks: a divider that also moves by keyboard, factors with their maps, and examples.

gradio's own ImageSlider is moved by mouse and finger alone, and its examples are buttons without names.
"""

from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from f2d.app.work import Done

_COMPARE = """
{{#if value}}
<div class="stage" style="--wide: {{value.width}}; --high: {{value.height}}">
  <img src="{{value.after.url}}" alt="Restored picture" draggable="false">
  <img class="before" src="{{value.before.url}}" alt="Picture before the restoration" draggable="false">
  <span class="name left" aria-hidden="true">Before</span><span class="name right" aria-hidden="true">Restored</span>
  <span class="line" aria-hidden="true"><span>&#8596;</span></span>
  <input type="range" min="0" max="100" step="any" value="50" aria-label="Divider: how much is shown as it was before"
    aria-valuetext="50 % before">
</div>
{{else}}
<p class="empty">The restored picture will appear here, with a divider to compare it with yours.</p>
{{/if}}
"""

_COMPARE_CSS = """
.stage { position: relative; overflow: hidden; margin: 0 auto; border-radius: 8px; cursor: ew-resize; --at: 50%;
  aspect-ratio: var(--wide) / var(--high); width: min(100%, max(160px, 72vh * var(--wide) / var(--high)));
  touch-action: pan-y; user-select: none;
  background: repeating-conic-gradient(#8883 0 25%, #fff3 0 50%) 0 0 / 20px 20px; }
.stage:focus-within { outline: 3px solid var(--color-accent); outline-offset: 2px; }
.stage img { position: absolute; inset: 0; width: 100%; height: 100%; margin: 0; object-fit: fill; max-width: none; }
.stage .before { clip-path: inset(0 calc(100% - var(--at)) 0 0); }
.stage .line { position: absolute; top: 0; bottom: 0; left: var(--at); width: 2px; margin-left: -1px; background: #fff;
  box-shadow: 0 0 3px #000a; }
.stage .line span { position: absolute; top: 50%; left: 1px; width: 34px; height: 34px; margin: -17px;
  border-radius: 50%; background: #fff; color: #0f172a; font: 18px/34px system-ui, sans-serif; text-align: center;
  box-shadow: 0 1px 4px #000a; }
.stage .name { position: absolute; top: 10px; padding: 2px 9px; border-radius: 5px; background: #0f172ae0; color: #fff;
  font-size: 13px; pointer-events: none; }
.stage .left { left: 10px; } .stage .right { right: 10px; }
.stage input { position: absolute; bottom: 0; left: 0; width: 100%; height: 1px; margin: 0; opacity: 0;
  pointer-events: none; }
.empty { display: grid; place-items: center; min-height: 260px; margin: 0; padding: 24px; text-align: center;
  border: 1px dashed var(--border-color-primary); border-radius: 8px; color: var(--body-text-color-subdued); }
"""

# keys: the report's divider has the same
_COMPARE_JS = """
const show = (stage, at) => {
  const input = stage.querySelector("input"), part = Math.min(100, Math.max(0, at));
  input.value = part;
  input.setAttribute("aria-valuetext", `${Math.round(part)} % before`);
  stage.style.setProperty("--at", `${part}%`);
};
const follow = (stage, event) => {
  const box = stage.getBoundingClientRect();
  show(stage, (100 * (event.clientX - box.left)) / box.width);
};
const stageOf = (event) => event.target.closest(".stage");
element.addEventListener("input", (event) => stageOf(event) && show(stageOf(event), +event.target.value));
element.addEventListener("keydown", (event) => {
  const by = { ArrowLeft: -1, ArrowRight: 1, ArrowDown: -1, ArrowUp: 1, PageDown: -10, PageUp: 10 }[event.key];
  if (!stageOf(event) || !by || event.altKey || event.ctrlKey || event.metaKey) return;
  event.preventDefault();
  show(stageOf(event), Math.round(+event.target.value) + by * (event.shiftKey ? 10 : 1));
});
element.addEventListener("pointerdown", (event) => {
  const stage = stageOf(event);
  if (!stage || event.button) return;
  event.preventDefault();
  stage.querySelector("input").focus({ preventScroll: true });
  stage.setPointerCapture(event.pointerId);
  follow(stage, event);
});
element.addEventListener("pointermove", (event) => {
  const stage = stageOf(event);
  if (stage && stage.hasPointerCapture(event.pointerId)) follow(stage, event);
});
"""

_FACTORS = """
{{#if value}}
<h2>Where each factor acts</h2>
<p class="note">The model's maps over your picture
  <span class="scale" role="img" aria-label="from dark, 0, to pale yellow, 1">0<i></i>1</span></p>
<div class="figures">
{{#each value.factors}}
  <figure>
    <img src="{{this.overlay.url}}" alt="Map of {{this.name}} over the picture: {{this.mean}} on average"
      style="aspect-ratio: {{../value.width}} / {{../value.height}}">
    <figcaption><b>{{this.name}}</b>
      <dl>
        <dt>present</dt><dd><i style="--part: {{this.presence}}"></i>{{this.presence}}</dd>
        <dt>share</dt><dd><i style="--part: {{this.gate}}"></i>{{this.gate}}</dd>
        <dt>map, mean</dt><dd><i style="--part: {{this.mean}}"></i>{{this.mean}}</dd>
      </dl>
    </figcaption>
  </figure>
{{/each}}
</div>
<p class="note">Present: how sure the model is that the factor is there. Share: its gate, its part in the correction;
  all shares together are 1.</p>
{{/if}}
"""

_FACTORS_CSS = """
h2 { margin: 4px 0 0; font-size: 1.05rem; font-weight: 600; }
.note { margin: 2px 0 10px; font-size: 13px; color: var(--body-text-color-subdued); }
.scale { display: inline-flex; align-items: center; gap: 5px; margin-left: 8px; }
.scale i { width: 90px; height: 10px; border-radius: 3px;
  background: linear-gradient(90deg, #000004, #3a0963, #8c2068, #d44242, #f88e09, #fcffa4); }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(130px, 1fr)); gap: 12px; }
figure { margin: 0; min-width: 0; }
figure img { display: block; width: 100%; margin: 0; border-radius: 6px; object-fit: cover; max-height: 220px; }
figcaption { padding-top: 6px; font-size: 14px; }
dl { display: grid; grid-template-columns: auto 1fr; gap: 2px 8px; margin: 3px 0 0; font-size: 13px; }
dt { color: var(--body-text-color-subdued); }
dd { display: flex; align-items: center; justify-content: flex-end; gap: 6px; margin: 0;
  font-variant-numeric: tabular-nums; }
dd i { flex: 1; height: 6px; border-radius: 3px;
  background: linear-gradient(90deg, var(--color-accent) calc(100% * var(--part)), var(--border-color-primary) 0); }
"""

_EXAMPLES = """
<p>Or try one of these</p>
<div class="row" role="group" aria-label="Examples">
{{#each value}}
  <button type="button" data-index="{{@index}}" aria-label="{{this.name}}" title="{{this.name}}">
    <img src="{{this.file.url}}" alt=""></button>
{{/each}}
</div>
"""

_EXAMPLES_CSS = """
p { margin: 0 0 6px; font-size: 14px; }
.row { display: grid; grid-template-columns: repeat(4, 1fr); gap: 8px; }
button { margin: 0 !important; padding: 0; border: 0; border-radius: 6px; overflow: hidden;
  cursor: pointer; background: none; }
button:hover { filter: brightness(1.15); }
img { display: block; width: 100%; aspect-ratio: 1; margin: 0; object-fit: cover; }
"""

_EXAMPLES_JS = """
element.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button) trigger("click", { index: +button.dataset.index });
});
"""


def compare() -> gr.HTML:
    """Return the divider; its value is `compared(done)`, or None before the first restoration."""
    return gr.HTML(
        None, html_template=_COMPARE, css_template=_COMPARE_CSS, js_on_load=_COMPARE_JS, elem_id="f2d-compare"
    )


def factors() -> gr.HTML:
    """Return maps and numbers of the factors; the value is `explained(done)`."""
    return gr.HTML(None, html_template=_FACTORS, css_template=_FACTORS_CSS, js_on_load=None, elem_id="f2d-factors")


def examples(paths: list[Path]) -> gr.HTML:
    """Return buttons with the pictures in `paths`, named after the files; the click event carries the index."""
    value = [{"file": file(path), "name": path.stem.replace("_", " ")} for path in paths]
    return gr.HTML(
        value, html_template=_EXAMPLES, css_template=_EXAMPLES_CSS, js_on_load=_EXAMPLES_JS, elem_id="f2d-examples"
    )


def line(text: str = "") -> str:
    """Return HTML that screen readers announce when it changes."""
    return f'<p role="status" style="margin: 0; white-space: pre-line">{escape(text)}</p>'


def compared(done: Done) -> dict[str, Any]:
    """The value of `compare`."""
    width, height = done.size
    return {"before": file(done.before), "after": file(done.after), "width": width, "height": height}


def explained(done: Done) -> dict[str, Any]:
    """The value of `factors`."""
    found = []
    for factor in done.factors:
        numbers = {name: f"{getattr(factor, name):.2f}" for name in ("mean", "gate", "presence")}
        found.append({"name": named(factor.name), "overlay": file(factor.overlay), **numbers})
    return {"factors": found, "width": done.size[0], "height": done.size[1]}


def named(factor: str) -> str:
    """Return the display name of a factor."""
    return "low light" if factor == "low" else factor


def file(path: Path) -> dict[str, Any]:
    """Return a file as gradio's data: it gets an address, and is deleted with the other old files."""
    return gr.FileData(path=str(path), orig_name=path.name).model_dump()
