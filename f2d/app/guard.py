"""Let only the page's own requests reach gradio: bounded in size and duration, without access to other hosts."""

import asyncio
import re
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from starlette.formparsers import MultiPartException

from f2d.app.disk import used
from f2d.app.limits import Limits

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

OVERHEAD = 64 * 2**10  # bytes of a form around its file: boundaries, headers, the name
LARGEST_CALL = 2**20  # bytes of other requests: numbers and file names
PATIENCE, SLOWEST = 60.0, 32 * 2**10  # seconds for any body, and bytes per second beyond them
LINGER = 4 * 2**20, 5.0  # bytes and seconds to keep reading a refused request, so that its sender gets the answer
UPLOAD = re.compile(r"/gradio_api/upload/?$")
CALLS = re.compile(r"/gradio_api/(queue/join|run/[^/]+|cancel|reset)/?$")  # the other requests that the page posts
ELSEWHERE = re.compile(r"/gradio_api/(proxy=|file=https?:)", re.IGNORECASE)  # gradio would fetch these for the visitor
CLOSE = b"connection", b"close"
FULL = "The server has no space for another image just now. Try again later."
SLOW = "The upload took too long; try again with a faster connection or a smaller file."


class Guard:
    """ASGI middleware before `app`, whose uploads lie in `folder`.

    The body of an upload has at most `limits.upload` bytes and a form's overhead, other bodies 1 MiB. A larger
    Content-Length is refused before the body is read, and a chunked body when it exceeds the limit (413). A body that
    takes longer than a minute plus its size at 32 KiB per second is cut off (408). An upload is refused if the
    folder with all uploads in progress would exceed `limits.disk` (507). gradio's other addresses that accept data or
    fetch from other hosts are not found (404). After a refusal the connection is closed.
    """

    def __init__(self, app: Callable, limits: Limits, folder: Path):
        self.app, self.limits, self.folder = app, limits, folder
        self._coming = 0  # bytes of uploads in progress; used only by the thread that runs the server

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        upload = UPLOAD.search(scope["path"])
        headers = dict(scope["headers"])
        most = self.limits.upload + OVERHEAD if upload else LARGEST_CALL
        if ELSEWHERE.search(scope["path"]) or (
            scope["method"] not in ("GET", "HEAD", "OPTIONS") and not upload and not CALLS.search(scope["path"])
        ):
            return await _refuse(receive, send, 404, "Not found.")
        # a number, as the server has checked; a body in chunks may have any length
        length = most if b"transfer-encoding" in headers else int(headers.get(b"content-length", b"0"))
        if length > most:
            return await _refuse(receive, send, 413, _too_large(most))
        body = Body(receive, send, most, PATIENCE + length / SLOWEST)
        if not upload:
            return await body.through(self.app, scope)
        self._coming += length
        try:
            if await asyncio.to_thread(used, self.folder) + self._coming > self.limits.disk:
                return await _refuse(receive, send, 507, FULL)
            await body.through(self.app, scope)
        finally:
            self._coming -= length


class _CutOffError(MultiPartException):
    """The rest of a body is not read. This base class is the only error after which gradio removes a partial file."""


class Body:
    """The body of one request, which is cut off after `most` bytes or `seconds`, or when the sender leaves."""

    def __init__(self, receive: Receive, send: Send, most: int, seconds: float):
        self._receive, self._send, self._most, self._seconds = receive, send, most, seconds
        self._read, self._complete, self._answered = 0, False, False
        self._refusal: tuple[int, str] | None = None  # status and message

    async def through(self, app: Callable, scope: Message) -> None:
        """Let `app` answer; if the body is cut off, send the refusal in place of its answer or error."""
        self._end = asyncio.get_running_loop().time() + self._seconds
        try:
            await app(scope, self._next, self._pass)
        except Exception:
            if self._refusal is None:
                raise
        if self._refusal is not None and not self._answered:
            await _refuse(self._receive, self._send, *self._refusal)

    async def _next(self) -> Message:
        if self._refusal is not None:
            raise _CutOffError("cut off")
        if self._complete:  # a read after the end waits for the visitor to leave
            return await self._receive()
        try:
            left = self._end - asyncio.get_running_loop().time()
            message = await asyncio.wait_for(self._receive(), max(0.0, left))
        except asyncio.TimeoutError:  # differs from TimeoutError before Python 3.11
            self._refusal = 408, SLOW
            raise _CutOffError("cut off") from None
        self._read += len(message.get("body", b""))
        self._complete = not message.get("more_body", False)
        if message["type"] == "http.disconnect":
            self._refusal = 400, "The upload was broken off."  # which nobody reads
        elif self._read > self._most:
            self._refusal = 413, _too_large(self._most)
        if self._refusal is not None:
            raise _CutOffError("cut off")
        return message

    async def _pass(self, message: Message) -> None:
        if self._refusal is not None and not self._answered:
            return
        self._answered = True
        if self._complete:
            return await self._send(message)
        # an answer before the end of the body, as gradio's to a file that is too large
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], CLOSE]}
        elif not message.get("more_body", False):
            return await _end(self._receive, self._send, message)
        await self._send(message)


def _too_large(most: int) -> str:
    return f"The request exceeds the maximum allowed size of {most / 2**20:.4g} MiB; send one file at a time."


async def _refuse(receive: Receive, send: Send, status: int, message: str) -> None:
    """Answer at once, but do not reset the connection: a client that is still sending would lose the answer."""
    body = message.encode()
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
        CLOSE,
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await _end(receive, send, {"type": "http.response.body", "body": body})


async def _end(receive: Receive, send: Send, message: Message) -> None:
    """Send the whole answer, and keep reading for a moment before the server ends it and closes."""
    await send({**message, "more_body": True})
    with suppress(asyncio.TimeoutError):
        await asyncio.wait_for(_discard(receive, LINGER[0]), LINGER[1])
    await send({"type": "http.response.body", "body": b""})


async def _discard(receive: Receive, most: int) -> None:
    while most > 0:
        message = await receive()
        most -= len(message.get("body", b""))
        if not message.get("more_body", False):
            return
