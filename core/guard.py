"""The one guard at the boundary: whatever a parser of a file raises becomes the typed error of that file, in one line.

Parsers are other people's, and raise what they like: ``RecursionError``, ``OverflowError``, an ``OSError`` for a name
that is too long, a panic of a library in Rust. :func:`reading` stands around each of them, and around every use of a
string from data as a path. What a file says is checked by :func:`plain` before it goes anywhere else.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel, ValidationError

from medphantom.core.errors import ArtifactError, InputError, MedphantomError
from medphantom.core.limits import LARGEST_JSON, require_modest_json

DEBUG_VARIABLE = "MEDPHANTOM_DEBUG"  # set: errors keep their causes, which may quote source files
DEEPEST = 100
LARGEST_WHOLE_NUMBER = 2**64

Model = TypeVar("Model", bound=BaseModel)


@contextmanager
def reading(
    what: object,
    error: type[MedphantomError] = ArtifactError,
    problem: str = "cannot be read",
    remedy: str = "make it again",
) -> Iterator[None]:
    """Turn whatever goes wrong in the block into ``error``: ``<what> <problem>; <remedy>``, and nothing of the content.

    Errors of ours pass as they are, as does what ends the process (an interrupt, a signal of Prefect's). Put nothing
    but the reading of one file into the block: a fault of ours in it would be blamed on the file.

    Args:
        what: the file or folder as the user named it; never a name that was found in data.
        error: type of the error.
        problem: what is wrong, after ``what``.
        remedy: what to do about it.

    Raises:
        MedphantomError: of type ``error``.

    Example:
        >>> with reading("scan.json", problem="is no JSON", remedy="write it again"):
        ...     json.loads("[" * 100_000)
        Traceback (most recent call last):
        medphantom.core.errors.ArtifactError: scan.json is no JSON; write it again
    """
    try:
        yield
    except MedphantomError:
        raise
    except BaseException as cause:
        if not isinstance(cause, Exception) and type(cause).__name__ != "PanicException":
            raise
        said = f"{what} {problem}"
        if isinstance(cause, FileNotFoundError):
            said = f"{what} is missing"
        elif isinstance(cause, MemoryError):
            said = f"{what} needs more memory than there is"
        raise error(said, remedy) from (cause if os.environ.get(DEBUG_VARIABLE) else None)


def plain(value: Any) -> Any:
    """A value out of JSON or YAML as it is, if it is one that everything behind the boundary can take.

    Raises:
        ValueError: it holds itself, or is nested more than :data:`DEEPEST` deep; or a text in it has a null character
            or half of a surrogate pair, which no path and no UTF-8 file can hold; or a whole number in it has more
            than 64 bits.
    """
    finished: set[int] = set()
    path: list[int] = []
    waiting: list[tuple[Any, bool]] = [(value, False)]
    while waiting:
        item, left = waiting.pop()
        if left:
            finished.add(path.pop())
        elif isinstance(item, dict | list | tuple | set | frozenset):
            if id(item) in finished:
                continue
            if id(item) in path or len(path) >= DEEPEST:
                raise ValueError("holds itself, or is nested too deep")
            path.append(id(item))
            waiting.append((item, True))
            if isinstance(item, dict):
                waiting += ((key, False) for key in item)
                waiting += ((inner, False) for inner in item.values())
            else:
                waiting += ((inner, False) for inner in item)
        elif isinstance(item, str):
            storable_text(item)
        elif isinstance(item, int) and abs(item) >= LARGEST_WHOLE_NUMBER:
            raise ValueError("holds a whole number of more than 64 bits")
    return value


def storable_text(text: str) -> str:
    """A text without a null character or half of a surrogate pair.

    Raises:
        ValueError: it has one.
    """
    if text.isascii() and "\0" not in text:
        return text
    text.encode()  # a lone surrogate raises UnicodeEncodeError, which is a ValueError
    if "\0" in text:
        raise ValueError("holds a null character")
    return text


def parse_json(text: str | bytes) -> Any:
    """JSON of finite numbers, of modest size, as :func:`plain` allows it.

    Raises:
        ValueError: it is none, is longer than 64 MiB, holds more than 4 million values, or is nested too deep.
    """
    require_modest_json(text)
    try:
        return plain(json.loads(text, parse_constant=_refuse_constant))
    except RecursionError:
        raise ValueError("JSON that is nested too deep") from None


def read_json_file(path: Path) -> Any:
    """The value of a JSON file in UTF-8, as :func:`parse_json` allows it.

    Raises:
        ValueError: as :func:`parse_json`.
        OSError: it cannot be read.
    """
    if path.stat().st_size > LARGEST_JSON:
        raise ValueError("more JSON than is read")
    return parse_json(path.read_bytes().decode("utf-8"))


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def parse_model(kind: type[Model], content: Any, what: object, error: type[MedphantomError], wrong: str) -> Model:
    """A typed value out of JSON content.

    Args:
        kind: a pydantic model.
        content: from :func:`parse_json`.
        what: the file, for the message.
        error: type of the error.
        wrong: what is wrong where it is none, and what to do: ``is not a report of this version; assess again``.

    Raises:
        MedphantomError: of type ``error``.
    """
    problem, _, remedy = wrong.partition("; ")
    with reading(what, error, problem, remedy):
        try:
            return kind.model_validate(content)
        except ValidationError:
            raise error(f"{what} {problem}", remedy) from None


def user_path(path: Path | str, error: type[MedphantomError] = InputError, *, base: Path = Path()) -> Path:
    """A path that somebody wrote, ``~`` expanded, from ``base`` where it is relative; it need not exist.

    Raises:
        MedphantomError: of type ``error``: no such path can be, as with a name of 300 characters, a null character, or
            the home of a user whom this machine does not know.
    """
    shown = "".join(sign if sign.isprintable() else "?" for sign in str(path))
    shown = shown if len(shown) <= 80 else f"{shown[:80]}…"
    with reading(shown, error, "cannot be a path", "check the path"):
        expanded = base / Path(path).expanduser()
        with suppress(FileNotFoundError, NotADirectoryError, PermissionError):
            expanded.stat()
    return expanded


def folder_path(path: Path, error: type[MedphantomError] = InputError) -> Path:
    """A folder of ours, to be read or made: as :func:`user_path`, and its name is UTF-8, as Parquet and Zarr need it.

    Raises:
        MedphantomError: of type ``error``.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError:
        shown = str(path).encode("utf-8", "backslashreplace").decode()[:80]
        raise error(f"{shown} has a name that is not UTF-8", "choose another name for the folder") from None
    return user_path(path, error)
