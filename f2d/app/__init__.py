"""A browser page that restores photographs and short videos: upload, restore, compare, download (`f2d app`).

`limits` checks inputs, `work` and `clips` process requests and `shown` draws previews; none of them uses gradio.
`page`, `parts`, `clip_parts` and `theme` are the interface, and `serve` is the server. Gradio is optional: f2d[app].
"""
