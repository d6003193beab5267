"""An upload that is sent by hand, byte by byte."""

import select
import socket
from collections.abc import Callable
from http.client import HTTPResponse

FORM = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'


class Sender:
    """An upload that is sent by hand: whatever header, then as much of a body as the server takes."""

    def __init__(self, server, *headers: str):
        host, port = server[0].split(":")
        self.socket = socket.create_connection((host, int(port)), timeout=60)
        lines = ["POST /gradio_api/upload HTTP/1.1", f"Host: {host}", "Content-Type: multipart/form-data; boundary=x"]
        self.socket.sendall("\r\n".join([*lines, *headers, "", ""]).encode())

    def chunk(self, content: bytes) -> None:
        self.socket.sendall(b"%x\r\n%b\r\n" % (len(content), content))

    def send_until_refused(self, chunk: Callable[[], None], most: int) -> int:
        """How many chunks were sent, `most` at the most, until there was an answer or the connection was closed."""
        for sent in range(most):
            if select.select([self.socket], [], [], 0)[0]:
                return sent
            try:
                chunk()
            except (BrokenPipeError, ConnectionResetError):
                return sent
        return most

    def answer(self) -> tuple[int, str]:
        answer = HTTPResponse(self.socket)
        answer.begin()
        found = answer.status, answer.read().decode()
        assert answer.getheader("Connection") == "close"
        return found

    def is_closed(self) -> bool:
        try:
            return self.socket.recv(1) == b""
        except ConnectionResetError:
            return True
