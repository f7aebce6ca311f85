"""Two indexes: who subscribes to a topic, and which retained topics a filter selects.

Rule of this file: it knows clients only as names and messages not at all. Literal filters
are one dictionary look-up; wildcard filters, of which a fleet has a handful, are a tree,
and its answers are remembered per topic until a wildcard filter changes. Answers come in
order of subscription, so equal histories give equal answers.
Rejected: one tree for all filters (five dictionary steps for each message to a device);
remembering answers for literal filters (every connecting device would forget them all).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from broker.filters import is_wild

REMEMBERED_TOPICS_MAX = 1_000_000
"""About 200 MB at worst: a fleet of 100,000 devices has 700,000 topics that go up."""

_NOBODY: dict[str, int] = {}


class _Node:
    __slots__ = ("below", "children", "here")

    def __init__(self) -> None:
        self.children: dict[str, _Node] = {}
        self.here: dict[str, int] = {}
        """Clients whose filter ends here."""
        self.below: dict[str, int] = {}
        """Clients whose filter ends here with `#`."""

    def empty(self) -> bool:
        return not (self.children or self.here or self.below)


class Subscriptions:
    """Who receives a topic, at which QoS."""

    __slots__ = ("_literal", "_remembered", "_root")

    def __init__(self) -> None:
        self._literal: dict[str, dict[str, int]] = {}
        self._root = _Node()
        self._remembered: dict[str, tuple[tuple[str, int], ...]] = {}

    def add(self, topic_filter: str, client: str, qos: int) -> None:
        """Subscribe, or replace the QoS of the same filter (3.8.4-3). The filter is valid."""
        if not is_wild(topic_filter):
            self._literal.setdefault(topic_filter, {})[client] = qos
            return
        self._remembered.clear()
        node, levels = self._root, topic_filter.split("/")
        below = levels[-1] == "#"
        for level in levels[:-1] if below else levels:
            node = node.children.setdefault(level, _Node())
        (node.below if below else node.here)[client] = qos

    def remove(self, topic_filter: str, client: str) -> None:
        """Unsubscribe; nothing happens where there was no such subscription."""
        if not is_wild(topic_filter):
            clients = self._literal.get(topic_filter, _NOBODY)
            if clients.pop(client, None) is not None and not clients:
                del self._literal[topic_filter]
            return
        self._remembered.clear()
        self._prune(topic_filter.split("/"), client)

    def _prune(self, levels: list[str], client: str) -> None:
        below = levels[-1] == "#"
        path = levels[:-1] if below else levels
        nodes = [self._root]
        for level in path:
            child = nodes[-1].children.get(level)
            if child is None:
                return
            nodes.append(child)
        (nodes[-1].below if below else nodes[-1].here).pop(client, None)
        for parent, level in zip(reversed(nodes[:-1]), reversed(path), strict=True):
            if parent.children[level].empty():
                del parent.children[level]

    def receivers(self, topic: str) -> Mapping[str, int]:
        """Client -> QoS, each client once at its highest QoS (3.3.5-1). Not to be changed."""
        literal = self._literal.get(topic)
        wild = self._wild(topic)
        if not wild:
            return literal if literal is not None else _NOBODY
        merged: dict[str, int] = dict(literal) if literal is not None else {}
        for client, qos in wild:
            if merged.get(client, -1) < qos:
                merged[client] = qos
        return merged

    def copies(self, topic: str) -> list[tuple[str, int]]:
        """As `receivers`, but one entry for each matching subscription (allowed by 3.3.5)."""
        return [*self._literal.get(topic, _NOBODY).items(), *self._wild(topic)]

    def _wild(self, topic: str) -> tuple[tuple[str, int], ...]:
        found = self._remembered.get(topic)
        if found is None:
            if len(self._remembered) >= REMEMBERED_TOPICS_MAX:
                self._remembered.clear()
            found = self._remembered[topic] = tuple(self._walk(topic))
        return found

    def _walk(self, topic: str) -> Iterator[tuple[str, int]]:
        levels = topic.split("/")
        front = [self._root]
        for depth, level in enumerate(levels):
            hidden = depth == 0 and level[:1] == "$"  # 4.7.2-1
            following: list[_Node] = []
            for node in front:
                if not hidden:
                    yield from node.below.items()
                for name in (level,) if hidden else (level, "+"):
                    child = node.children.get(name)
                    if child is not None:
                        following.append(child)
            front = following
        for node in front:
            yield from node.below.items()
            yield from node.here.items()


class _Branch:
    __slots__ = ("children", "topic")

    def __init__(self) -> None:
        self.children: dict[str, _Branch] = {}
        self.topic: str | None = None


class TopicIndex:
    """A set of topics that answers which of them a filter selects."""

    __slots__ = ("_root",)

    def __init__(self) -> None:
        self._root = _Branch()

    def add(self, topic: str) -> None:
        branch = self._root
        for level in topic.split("/"):
            branch = branch.children.setdefault(level, _Branch())
        branch.topic = topic

    def remove(self, topic: str) -> None:
        """Forget a topic that was added."""
        levels = topic.split("/")
        path = [self._root]
        for level in levels:
            path.append(path[-1].children[level])
        path[-1].topic = None
        for parent, level in zip(reversed(path[:-1]), reversed(levels), strict=True):
            child = parent.children[level]
            if child.children or child.topic is not None:
                return
            del parent.children[level]

    def select(self, topic_filter: str) -> Iterator[str]:
        """Every topic that the filter matches, in order of the tree's growth."""
        levels = topic_filter.split("/")
        below = levels[-1] == "#"
        front = [self._root]
        for depth, level in enumerate(levels[:-1] if below else levels):
            front = list(self._step(front, level, depth))
        for branch in front:
            if below:
                yield from self._all(branch, topic_filter == "#")
            elif branch.topic is not None:
                yield branch.topic

    @staticmethod
    def _step(front: list[_Branch], level: str, depth: int) -> Iterator[_Branch]:
        for branch in front:
            if level != "+":
                child = branch.children.get(level)
                if child is not None:
                    yield child
                continue
            for name, child in branch.children.items():
                if depth or name[:1] != "$":
                    yield child

    def _all(self, top: _Branch, at_root: bool) -> Iterator[str]:
        """Every topic at and below a branch; a loop, since depth is the sender's choice."""
        waiting = [top]
        while waiting:
            branch = waiting.pop()
            if branch.topic is not None:
                yield branch.topic
            names = reversed(branch.children)
            hide = at_root and branch is self._root
            waiting += [branch.children[name] for name in names if not (hide and name[:1] == "$")]
