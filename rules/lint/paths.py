"""Templates of paths in a tree, so that those around one and those that meet it are found without
looking at all the others.

Segments are compared as the widest reading does; what comes out is looked at once more.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from rules.paths import Template


@dataclass(slots=True)
class _Node[T]:
    children: dict[str | None, _Node[T]] = field(default_factory=dict)
    ending: list[T] = field(default_factory=list)
    """Whose template ends here."""
    open: list[T] = field(default_factory=list)
    """Whose template goes on from here with any rest."""


class PathIndex[T]:
    """Items under templates."""

    def __init__(self) -> None:
        self._root: _Node[T] = _Node()

    def add(self, path: Template, item: T) -> None:
        """Puts the item under the template."""
        for segments in dict.fromkeys((path.wide_segments, path.without_format)):
            node = self._root
            for segment in segments:
                node = node.children.setdefault(segment, _Node())
            (node.open if path.rest else node.ending).append(item)

    def around(self, path: Template) -> Iterator[T]:
        """The items whose template takes in all that this one does."""
        return self._along(path.wide_segments, path.rest)

    def leading_to(self, segments: Sequence[str]) -> Iterator[T]:
        """The items whose template may take the path with these segments, read widely."""
        return self._along(segments, rest=False)

    def _along(self, segments: Sequence[str | None], rest: bool) -> Iterator[T]:
        nodes = [self._root]
        for segment in segments:
            following: list[_Node[T]] = []
            for node in nodes:
                yield from node.open
                following += self._steps(node, segment)
            nodes = following
        for node in nodes:
            yield from node.open
            if not rest:
                yield from node.ending

    def meeting(self, path: Template) -> Iterator[T]:
        """The items whose template may have a path in common with this one."""
        nodes = [self._root]
        for segment in path.wide_segments:
            following: list[_Node[T]] = []
            for node in nodes:
                yield from node.open
                if segment is None:
                    following += node.children.values()
                else:
                    following += self._steps(node, segment)
            nodes = following
        for node in nodes:
            if path.rest:
                yield from self._below(node)
            else:
                yield from node.open
                yield from node.ending

    def _steps(self, node: _Node[T], segment: str | None) -> list[_Node[T]]:
        keys = dict.fromkeys((segment, None))
        return [node.children[key] for key in keys if key in node.children]

    def _below(self, node: _Node[T]) -> Iterator[T]:
        pending = [node]
        while pending:
            one = pending.pop()
            yield from one.open
            yield from one.ending
            pending += one.children.values()
