"""Arguments that do not fit their annotations are refused in one line; what fits arrives as it was given."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pytest

from medphantom.core.arguments import Count, Seed, checked
from medphantom.core.errors import InputError
from medphantom.core.progress import Progress

if TYPE_CHECKING:
    from medphantom.generators.bundle import GeneratorBundle


class Thing:
    """A class of somebody."""


@checked
def taken(
    thing: Thing | str | Path = "here",
    *,
    size: int | Sequence[int] | None = None,
    seeds: Sequence[Seed] = (),
    word: Literal["none", "some"] = "none",
    counts: Mapping[str, int] | None = None,
    call: Callable[[int], int] | None = None,
    progress: Progress | None = None,
    bundle: GeneratorBundle | str = "",
    share: float = 1.0,
    ends: tuple[float, float] | None = None,
    n: Count = 1,
    **options: Any,
) -> dict[str, Any]:
    """Return what came in."""
    del progress
    return {"thing": thing, "size": size, "seeds": seeds, "word": word, "counts": counts, "call": call,
            "bundle": bundle, "share": share, "ends": ends, "n": n, **options}  # fmt: skip


@pytest.mark.parametrize(
    ("given", "arrives"),
    [
        ({"thing": Path("a")}, Path("a")),
        ({"size": 4}, 4),
        ({"size": [4, 5]}, [4, 5]),
        ({"size": (4, 5)}, (4, 5)),
        ({"size": np.int64(4)}, 4),
        ({"size": range(2)}, [0, 1]),
        ({"seeds": np.array([1, 2])}, [1, 2]),
        ({"word": "some"}, "some"),
        ({"counts": {"a": np.int32(2)}}, {"a": 2}),
        ({"call": abs}, abs),
        ({"bundle": 5}, 5),  # of a class that only type checkers see
        ({"share": 1}, 1.0),
        ({"ends": (0, 2.5)}, (0.0, 2.5)),
        ({"more": 5}, 5),
    ],
    ids=str,
)
def test_what_fits_arrives(given: dict[str, Any], arrives: Any) -> None:
    (name,) = given
    assert taken(**given)[name] == arrives


def test_an_object_arrives_itself() -> None:
    thing = Thing()
    assert taken(thing)["thing"] is thing


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"thing": None}, "thing must be a Thing or a path, got NoneType"),
        ({"thing": ""}, "thing is empty; give a path"),
        ({"size": 4.0}, "size must be a whole number or a list, got float"),
        ({"size": True}, "size must be a whole number or a list, got bool"),
        ({"size": [4, "a"]}, "size[1] must be a whole number, got str"),
        ({"size": "12"}, "size must be a whole number or a list, got str"),
        ({"seeds": "12"}, "seeds must be a list, got str"),
        ({"seeds": [0, -1]}, "seeds[1] must be ≥ 0, got -1"),
        ({"word": "sone"}, "word must be one of none, some, got 'sone'; did you mean some?"),
        ({"counts": {"a": 2.5}}, "counts['a'] must be a whole number, got float"),
        ({"counts": [1]}, "counts must be a mapping, got list"),
        ({"call": 3}, "call must be a function, got int"),
        ({"share": float("nan")}, "share must be finite, got nan"),
        ({"share": "1"}, "share must be a number, got str"),
        ({"ends": (1,)}, "ends must have 2 values, got 1"),
        ({"ends": (1, 2, 3)}, "ends must have 2 values, got 3"),
        ({"n": 0}, "n must be ≥ 1, got 0"),
        ({"n": 10**25}, "n must be ≤ 10000000, got 10000000000000000000000000"),
        ({"word": "\ud800"}, "word holds characters that are no text; check how it is encoded"),
        ({"thing": "a\0b"}, "thing is no valid path; give a path"),
        ({"progress": 3}, "progress must be a function, got int"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_one_line(given: dict[str, Any], line: str) -> None:
    with pytest.raises(InputError) as refused:
        taken(**given)
    assert str(refused.value) == line


def test_a_text_that_may_be_a_name_is_not_repeated() -> None:
    with pytest.raises(InputError) as refused:
        taken(size="SECRET^NAME")  # type: ignore[arg-type]
    assert "SECRET" not in str(refused.value)


def test_what_is_missing_or_unknown_is_said_by_python() -> None:
    @checked
    def strict(one: int) -> int:
        return one

    with pytest.raises(TypeError, match="missing 1 required positional argument: 'one'"):
        strict()  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="unexpected keyword argument 'two'"):
        strict(1, two=2)  # type: ignore[call-arg]
