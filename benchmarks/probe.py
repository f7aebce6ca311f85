"""The bare-socket probe: what this machine can do, measured beside whatever is benchmarked.

A number without its machine says nothing, so each benchmark prints its result as a ratio to
this. The probe is two blocking loopback sockets with TCP_NODELAY, in two threads of one
process: `round_trip` is one small message there and back; `relay` goes through a third
socket, like a broker without any work. Run alone: `python -m benchmarks.probe`.
"""

from __future__ import annotations

import socket
import threading
import time
from dataclasses import dataclass

PAYLOAD = b"x" * 64
"""Bytes; a full heartbeat with its MQTT header and topic."""
ROUNDS = 2_000


@dataclass(frozen=True, slots=True)
class Spread:
    """Times of one measurement in microseconds."""

    p50_us: float
    p99_us: float

    def __str__(self) -> str:
        return f"p50 {self.p50_us:8.1f} us   p99 {self.p99_us:8.1f} us"


def spread(times_ns: list[int]) -> Spread:
    """The two percentiles of what was measured; at least one value."""
    ordered = sorted(times_ns)
    last = len(ordered) - 1
    return Spread(ordered[last // 2] / 1_000, ordered[last * 99 // 100] / 1_000)


def round_trip(rounds: int = ROUNDS, hops: int = 1) -> Spread:
    """One small message there and back, over `hops` sockets each way; 2 is the shape of a broker."""
    ends: list[socket.socket] = []
    threads: list[threading.Thread] = []
    front, back = _pair()
    ends += [front, back]
    for _ in range(hops - 1):
        onward, next_back = _pair()
        ends += [onward, next_back]
        threads += [_pump(back, onward), _pump(onward, back)]
        back = next_back
    threads.append(_pump(back, back))
    times = [_once(front) for _ in range(rounds + 100)][100:]
    front.shutdown(socket.SHUT_RDWR)
    for thread in threads:
        thread.join(5)
    for end in ends:
        end.close()
    return spread(times)


def _once(front: socket.socket) -> int:
    begin = time.perf_counter_ns()
    front.sendall(PAYLOAD)
    received = 0
    while received < len(PAYLOAD):
        received += len(front.recv(4_096))
    return time.perf_counter_ns() - begin


def _pump(source: socket.socket, sink: socket.socket) -> threading.Thread:
    """Copies until either end is closed, then closes the other way too."""

    def copy() -> None:
        try:
            while data := source.recv(4_096):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_RDWR)
            source.shutdown(socket.SHUT_RDWR)
        except OSError:  # the other pump was first
            return

    thread = threading.Thread(target=copy, daemon=True)
    thread.start()
    return thread


def _pair() -> tuple[socket.socket, socket.socket]:
    """Both ends of one loopback TCP connection, without Nagle's delay."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        front = socket.create_connection(server.getsockname())
        back, _ = server.accept()
    for end in (front, back):
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return front, back


if __name__ == "__main__":
    print(f"bare socket there and back      {round_trip()}")
    print(f"bare sockets, one relay between {round_trip(hops=2)}")
