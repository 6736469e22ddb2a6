"""Limits on the size of a recipe's YAML, counted while it is parsed and before any alias is expanded."""

from __future__ import annotations

from typing import Any

import yaml

LARGEST_TEXT = 2**20  # characters
MANY_NODES = 20_000  # values and keys, with everything that aliases repeat
MANY_DEPTHS = 40
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml, where it is there: ten times as fast


def why_refused(text: str) -> str:
    """Return which limit a YAML text exceeds; empty if it exceeds none, or if its parser will report the problem.

    An alias counts as everything that it repeats, since code that copies, checks or shows the value visits all of it:
    nine levels of ten aliases each are a thousand million values.
    """
    if len(text) > LARGEST_TEXT:
        return f"more than {LARGEST_TEXT // 2**20} MiB of YAML"
    open_nodes: list[tuple[str | None, int]] = []  # anchor, and how many nodes came before it
    sizes: dict[str, int] = {}
    total = 0
    try:
        for event in yaml.parse(text, Loader=_Loader):
            if isinstance(event, yaml.AliasEvent):
                name = str(event.anchor)
                if name in (anchor for anchor, _ in open_nodes):
                    return "an alias that stands for what it lies in"
                total += sizes.get(name, 1)
            elif isinstance(event, yaml.ScalarEvent):
                total += 1
                _note(sizes, event.anchor, 1)
            elif isinstance(event, yaml.CollectionStartEvent):
                open_nodes.append((event.anchor, total))
                total += 1
            elif isinstance(event, yaml.CollectionEndEvent):
                anchor, before = open_nodes.pop()
                _note(sizes, anchor, total - before)
            if total > MANY_NODES:
                return f"more than {MANY_NODES} values, counting what its aliases repeat"
            if len(open_nodes) > MANY_DEPTHS:
                return f"values nested more than {MANY_DEPTHS} deep"
    except (yaml.YAMLError, RecursionError, ValueError):
        return ""
    return ""


def _note(sizes: dict[str, int], anchor: Any, size: int) -> None:
    if anchor is not None:
        sizes[anchor] = size
