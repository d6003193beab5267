"""Shared memory of the blocks that run together, and the races between their threads.

Two accesses to a byte by different threads, at least one of them a write, race unless a barrier of the block lies
between them, or a barrier of their warp where both belong to one. Each byte remembers its last writer and its readers,
and at which barrier of their warp.
"""

import numpy as np

from bench.ptx.faults import MISALIGNED, NEVER_WRITTEN, OUT_OF_BOUNDS, RACE, Violation

_NOBODY, _SEVERAL_WARPS = -1, -2  # readers; -3 - warp: several threads of that warp


class SharedMemory:
    def __init__(self, blocks: int, size: int, threads: int):
        """`threads` of each of `blocks` blocks; size in bytes."""
        self.size, self.stride, self.threads = size, -(-size // 16) * 16, threads
        total = blocks * self.stride
        self.data = np.zeros(total, np.uint8)
        self.written = np.zeros(total, bool)
        self.writer, self.reader = np.full(total, _NOBODY, np.int32), np.full(total, _NOBODY, np.int32)
        self.writer_time, self.reader_time = np.zeros(total, np.int32), np.zeros(total, np.int32)
        self.time = np.zeros(blocks * threads // 32, np.int32)  # barriers of each warp alone

    def block_barrier(self, blocks: np.ndarray) -> None:
        for array in (self.writer, self.reader):
            array.reshape(-1, self.stride)[blocks] = _NOBODY

    def warp_barrier(self, warps: np.ndarray) -> None:
        self.time[warps] += 1

    def load(self, addresses: np.ndarray, lanes: np.ndarray, width: int, count: int = 1) -> list[np.ndarray]:
        """Elements at each lane's address, as raw bits; a lane is a thread's number among all blocks."""
        bytes_of = self._bytes_of(addresses, lanes, width * count)
        missing = ~self.written[bytes_of].all(1)
        if missing.any():
            raise _violation(NEVER_WRITTEN, missing, addresses, lanes)
        self._check(self.writer, self.writer_time, bytes_of, lanes, True)
        self._note_readers(bytes_of, lanes)
        first = bytes_of[:, 0] // width
        return [self.data.view(f"u{width}")[first + i] for i in range(count)]

    def store(self, addresses: np.ndarray, lanes: np.ndarray, values: list[np.ndarray], width: int) -> None:
        """Several threads may write one value to one place, as Triton's reductions do."""
        bytes_of = self._bytes_of(addresses, lanes, width * len(values))
        new = np.stack([np.broadcast_to(value, lanes.shape) for value in values], -1).view(np.uint8)
        self._check(self.writer, self.writer_time, bytes_of, lanes, self.data[bytes_of] != new)
        self._check(self.reader, self.reader_time, bytes_of, lanes, True)
        self.data[bytes_of] = new
        self.written[bytes_of] = True
        self.writer[bytes_of] = lanes[:, None]
        self.writer_time[bytes_of] = self.time[lanes // 32][:, None]
        self._check(self.writer, self.writer_time, bytes_of, lanes, self.data[bytes_of] != new)

    def _bytes_of(self, addresses: np.ndarray, lanes: np.ndarray, size: int) -> np.ndarray:
        """[lanes, size]: where the bytes of an access lie in `data`."""
        addresses = addresses.astype(np.int64)
        outside = addresses + size > self.size
        if outside.any():
            raise _violation(OUT_OF_BOUNDS, outside, addresses, lanes)
        askew = addresses % size != 0
        if askew.any():
            raise _violation(MISALIGNED, askew, addresses, lanes)
        return (addresses + lanes // self.threads * self.stride)[:, None] + np.arange(size)

    def _check(
        self, others: np.ndarray, times: np.ndarray, bytes_of: np.ndarray, lanes: np.ndarray, matters: np.ndarray | bool
    ) -> None:
        """Raise a violation if another thread has touched bytes that matter since the last barrier between the two."""
        other, warp = others[bytes_of], (lanes // 32)[:, None]
        other_warp = np.where(other <= -3, -3 - other, np.where(other >= 0, other // 32, -1))
        ordered = (other_warp == warp) & (times[bytes_of] < self.time[warp])
        racing = ((other != _NOBODY) & (other != lanes[:, None]) & ~ordered & matters).any(1)
        if racing.any():
            at = int(np.flatnonzero(racing)[0])
            who = other[at][other[at] != _NOBODY].max()
            with_whom = f"thread {who % self.threads}" if who >= 0 else "several threads"
            raise Violation(RACE, f"with {with_whom} at byte {int(bytes_of[at, 0]) % self.stride}", at)

    def _note_readers(self, bytes_of: np.ndarray, lanes: np.ndarray) -> None:
        old, warp = self.reader[bytes_of], np.broadcast_to((lanes // 32)[:, None], bytes_of.shape)
        me = np.broadcast_to(lanes[:, None], bytes_of.shape)
        old_warp = np.where(old <= -3, -3 - old, np.where(old >= 0, old // 32, -1))
        late = (old_warp == warp) & (self.reader_time[bytes_of] < self.time[warp])
        free = (old == _NOBODY) | (old == me) | late
        new = np.where(free, me, np.where(old_warp == warp, -3 - warp, _SEVERAL_WARPS))
        self.reader[bytes_of] = new
        # lanes that read one byte together: whoever was not noted counts as well
        lost = free & (self.reader[bytes_of] != me)
        if lost.any():
            kept = self.reader[bytes_of][lost]
            same = (kept >= 0) & (kept // 32 == warp[lost])
            self.reader[bytes_of[lost]] = np.where(same | (kept == -3 - warp[lost]), -3 - warp[lost], _SEVERAL_WARPS)
        self.reader_time[bytes_of] = self.time[warp]


def _violation(kind: str, where: np.ndarray, addresses: np.ndarray, lanes: np.ndarray) -> Violation:
    at = int(np.flatnonzero(where)[0])
    return Violation(kind, f"shared memory at byte {int(addresses[at])}", at)
