"""Only let requests of the page reach gradio: of bounded size, and without access to other hosts."""

import asyncio
import re
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

from f2d.app.disk import used
from f2d.app.limits import Limits

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

OVERHEAD = 64 * 2**10  # of a form around its file: boundaries, headers, the name
LARGEST_CALL = 2**20  # bytes of a request that is no upload: numbers, and names of files
UPLOAD = re.compile(r"/gradio_api/upload/?$")
CALLS = re.compile(r"/gradio_api/(queue/join|run/[^/]+|cancel|reset)/?$")  # all else that the page posts
ELSEWHERE = re.compile(r"/gradio_api/(proxy=|file=https?:)", re.IGNORECASE)  # gradio would fetch it for the visitor
FULL = "The server has no room for another picture just now; try again later."


class Guard:
    """ASGI middleware before `app`, whose uploads lie in `folder`.

    A body needs a Content-Length, to which the server holds it: at most `limits.upload` and a form's overhead for an
    upload, 1 MiB otherwise (411, 413). An upload that `limits.disk` has no room for, with those on their way, is
    refused (507). gradio's other addresses that take something in, or fetch from other hosts, are not there (404).
    """

    def __init__(self, app: Callable, limits: Limits, folder: Path):
        self.app, self.limits, self.folder = app, limits, folder
        self._coming = 0  # bytes of uploads on their way; of the one thread that runs the server

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        upload = UPLOAD.search(scope["path"])
        headers = dict(scope["headers"])
        length = int(headers.get(b"content-length", b"0"))  # the server has checked that it is a number
        most = self.limits.upload + OVERHEAD if upload else LARGEST_CALL
        if ELSEWHERE.search(scope["path"]) or (
            scope["method"] not in ("GET", "HEAD", "OPTIONS") and not upload and not CALLS.search(scope["path"])
        ):
            return await _refuse(receive, send, 404, "Not found.")
        if b"transfer-encoding" in headers:
            return await _refuse(receive, send, 411, "Send the length of the file (Content-Length).")
        if length > most:
            message = (
                f"The request exceeds the maximum allowed size of {most / 2**20:.4g} MiB; send one file at a time."
            )
            return await _refuse(receive, send, 413, message)
        if not upload:
            return await self.app(scope, receive, send)
        self._coming += length
        try:
            if await asyncio.to_thread(used, self.folder) + self._coming > self.limits.disk:
                return await _refuse(receive, send, 507, FULL)
            await self.app(scope, receive, send)
        finally:
            self._coming -= length


async def _refuse(receive: Receive, send: Send, status: int, message: str) -> None:
    while (await receive()).get("more_body"):  # a browser that is still sending sees no answer
        pass
    body = message.encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
