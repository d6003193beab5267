"""A browser page that restores photographs: upload, restore, compare, download (`f2d app`).

`limits` checks inputs, `work` processes requests and `shown` draws previews; none of them uses gradio. `page`, `parts`
and `theme` are the interface, and `serve` is the server. Gradio is optional: f2d[app].
"""
