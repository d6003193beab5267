"""A page in the browser for people with bad photographs: upload, restore, compare, download (`f2d app`).

`limits` says what is taken in, `work` does what a request asks, `shown` draws what the page shows of it; none of them
knows of gradio. `page`, `parts` and `theme` are the interface, `serve` the server. Gradio is optional: f2d[app].
"""
