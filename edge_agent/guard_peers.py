"""The guard's side of its socket: connections, who is the agent, frames in and out.

A connection is an agent once it has said HELLO; the newest agent is obeyed, the older one
is told so and closed. Bytes that are no frames, or words that aren't an agent's, close their
connection and nothing else. What an agent doesn't read is kept up to a bound, then it is
dropped: whatever it misses is in its next list.
It knows nothing of runs: frames go to a `Hearer`.
"""

from __future__ import annotations

import os
import select
import socket
import struct

from edge_agent import guard_frames as frames

SOCKET_NAME = "guard.sock"
PEERS_MAX = 8
OUTPUT_BYTES_MAX = 4_194_304
"""An agent that doesn't read this much is as good as gone."""
LAST_WORDS_S = 1.0


class Hearer:
    """Who acts on an agent's words."""

    __slots__ = ()

    def hear(self, kind: int, ints: tuple[int, ...], blobs: tuple[bytes, ...]) -> bool:
        """False when this is no word of an agent."""
        raise NotImplementedError


class Peer:
    """One connection."""

    __slots__ = ("reader", "sock", "unsent")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.reader = frames.FrameReader()
        self.unsent = bytearray()


class Peers:
    """All connections. `facts` is what WELCOME tells: containment, limits, controllers."""

    def __init__(self, poll: select.poll, facts: tuple[bytes, ...], hearer: Hearer) -> None:
        self.poll = poll
        self.facts = facts
        self.hearer = hearer
        self.agent: Peer | None = None
        self._peers: dict[int, Peer] = {}
        self._listener = listen()
        poll.register(self._listener.fileno(), select.POLLIN)

    @property
    def empty(self) -> bool:
        """Whether nobody is connected."""
        return not self._peers

    def handle(self, fd: int, event: int) -> None:
        """What poll said about one of our descriptors."""
        if fd == self._listener.fileno():
            self._accept()
        elif fd in self._peers:
            self._serve(self._peers[fd], event)

    def send(self, kind: int, ints: tuple[int, ...] = (), blobs: tuple[bytes, ...] = ()) -> None:
        """To the agent, if there is one."""
        if self.agent is not None:
            self.agent.unsent += frames.pack(kind, ints, blobs)
            self._flush(self.agent)

    def flush_last(self) -> None:
        """The last exits reach an agent that reads; one that doesn't isn't waited for."""
        if self.agent is None or not self.agent.unsent:
            return
        self.agent.sock.settimeout(LAST_WORDS_S)
        try:
            self.agent.sock.sendall(self.agent.unsent)
        except OSError:
            return

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError:
            return
        credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        uid = struct.unpack("3i", credentials)[1]
        waiting = len(self._peers) - (self.agent is not None)
        if uid not in (0, os.geteuid()) or waiting >= PEERS_MAX:
            sock.close()
            return
        sock.setblocking(False)
        self._peers[sock.fileno()] = Peer(sock)
        self.poll.register(sock.fileno(), select.POLLIN)

    def _serve(self, peer: Peer, event: int) -> None:
        if event & select.POLLOUT:
            self._flush(peer)
        if not event & ~select.POLLOUT or peer.sock.fileno() < 0:
            return
        try:
            data = peer.sock.recv(65_536)
            for body in peer.reader.feed(data):
                self._hear(peer, *frames.unpack(body))
                if peer.sock.fileno() < 0:
                    return
        except BlockingIOError:
            return
        except (OSError, frames.FrameError):
            data = b""
        if not data:
            self._drop(peer)

    def _hear(self, peer: Peer, kind: int, ints: tuple[int, ...], blobs: tuple[bytes, ...]) -> None:
        if kind == frames.HELLO:
            return self._welcome(peer)
        if peer is not self.agent or not self.hearer.hear(kind, ints, blobs):
            raise frames.FrameError("not an agent's word")

    def _welcome(self, peer: Peer) -> None:
        if self.agent is not None and self.agent is not peer:
            older = self.agent
            self.send(frames.SUPERSEDED)
            self._drop(older)
        self.agent = peer
        self.send(frames.WELCOME, (frames.FRAMES_VERSION, os.getpid()), self.facts)

    def _flush(self, peer: Peer) -> None:
        try:
            while peer.unsent:
                del peer.unsent[: peer.sock.send(peer.unsent)]
        except BlockingIOError:
            if len(peer.unsent) > OUTPUT_BYTES_MAX:
                return self._drop(peer)
        except OSError:
            return self._drop(peer)
        wanted = select.POLLIN | (select.POLLOUT if peer.unsent else 0)
        self.poll.modify(peer.sock.fileno(), wanted)

    def _drop(self, peer: Peer) -> None:
        if peer is self.agent:
            self.agent = None
        if self._peers.pop(peer.sock.fileno(), None) is not None:
            self.poll.unregister(peer.sock.fileno())
            peer.sock.close()


def listen() -> socket.socket:
    """The socket in our working directory, the data directory: its full path may be too long."""
    try:
        os.unlink(SOCKET_NAME)
    except FileNotFoundError:
        pass
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    sock.bind(SOCKET_NAME)
    sock.listen(PEERS_MAX)
    sock.setblocking(False)
    return sock
