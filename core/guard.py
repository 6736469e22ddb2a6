"""The guard at the boundary: whatever a parser raises on a file becomes the typed error of that file, in one line.

Parsers come from other libraries and raise unexpected exceptions: ``RecursionError``, ``OverflowError``, an ``OSError``
for a name that is too long, or a panic in Rust code. :func:`reading` wraps each of them, and every use of a string from
data as a path. :func:`plain` checks the content of a file before it is used anywhere else.
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

DEBUG_VARIABLE = "MEDPHANTOM_DEBUG"  # if set, errors keep their causes, which may quote source files
DEEPEST = 100
LARGEST_WHOLE_NUMBER = 2**64

Model = TypeVar("Model", bound=BaseModel)


@contextmanager
def reading(
    what: object,
    error: type[MedphantomError] = ArtifactError,
    problem: str = "cannot be read",
    remedy: str = "create it again",
) -> Iterator[None]:
    """Turn any exception in the block into ``error`` with the text ``<what> <problem>; <remedy>``, without file
    content.

    Errors of this project and exceptions that end the process (an interrupt, a signal of Prefect) pass unchanged. The
    block should only read one file: a bug of our own inside it would be reported as a fault of the file.

    Args:
        what: File or folder as the user named it; never a name that was found in data.
        error: Type of the error.
        problem: Predicate that follows ``what`` in the message.
        remedy: What to do about it.

    Raises:
        MedphantomError: Of type ``error``, if the block fails.

    Example:
        >>> with reading("scan.json", problem="is not JSON", remedy="write it again"):
        ...     json.loads("[" * 100_000)
        Traceback (most recent call last):
        medphantom.core.errors.ArtifactError: scan.json is not JSON; write it again
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
    """Return a value from JSON or YAML unchanged if all later code can handle it.

    Raises:
        ValueError: If it contains itself or is nested more than :data:`DEEPEST` levels deep, if a text in it has a null
            character or an unpaired surrogate, which no path and no UTF-8 file can hold, or if an integer in it exceeds
            64 bits.
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
                raise ValueError("contains itself or is nested too deeply")
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
            raise ValueError("contains an integer of more than 64 bits")
    return value


def storable_text(text: str) -> str:
    """Return a text unchanged if it has no null character and no unpaired surrogate.

    Raises:
        ValueError: If it has one.
    """
    if text.isascii() and "\0" not in text:
        return text
    text.encode()  # a lone surrogate raises UnicodeEncodeError, which is a ValueError
    if "\0" in text:
        raise ValueError("contains a null character")
    return text


def parse_json(text: str | bytes) -> Any:
    """Parse JSON with finite numbers and of limited size, within the limits of :func:`plain`.

    Raises:
        ValueError: If it is invalid, longer than 64 MiB, has more than 4 million values or is nested too deeply.
    """
    require_modest_json(text)
    try:
        return plain(json.loads(text, parse_constant=_refuse_constant))
    except RecursionError:
        raise ValueError("JSON that is nested too deeply") from None


def read_json_file(path: Path) -> Any:
    """Read a JSON file in UTF-8, within the limits of :func:`parse_json`.

    Raises:
        ValueError: As for :func:`parse_json`.
        OSError: If the file cannot be read.
    """
    if path.stat().st_size > LARGEST_JSON:
        raise ValueError("more JSON than the size limit allows")
    return parse_json(path.read_bytes().decode("utf-8"))


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def parse_model(kind: type[Model], content: Any, what: object, error: type[MedphantomError], wrong: str) -> Model:
    """Validate JSON content as a typed value.

    Args:
        kind: Pydantic model of the content.
        content: JSON value returned by :func:`parse_json`.
        what: File, for the message.
        error: Type of the error.
        wrong: Message if the content is invalid, e.g. ``is not a report of this version; assess again``.

    Raises:
        MedphantomError: Of type ``error``, if the content is invalid.
    """
    problem, _, remedy = wrong.partition("; ")
    with reading(what, error, problem, remedy):
        try:
            return kind.model_validate(content)
        except ValidationError:
            raise error(f"{what} {problem}", remedy) from None


def user_path(path: Path | str, error: type[MedphantomError] = InputError, *, base: Path = Path()) -> Path:
    """Return a path given by a user with ``~`` expanded and, if relative, based on ``base``; it need not exist.

    Raises:
        MedphantomError: Of type ``error``, if it is not a valid path, such as a name of 300 characters, a null
            character, or the home of a user that does not exist on this machine.
    """
    shown = "".join(sign if sign.isprintable() else "?" for sign in str(path))
    shown = shown if len(shown) <= 80 else f"{shown[:80]}…"
    with reading(shown, error, "is not a valid path", "check the path"):
        expanded = base / Path(path).expanduser()
        with suppress(FileNotFoundError, NotADirectoryError, PermissionError):
            expanded.stat()
    return expanded


def folder_path(path: Path, error: type[MedphantomError] = InputError) -> Path:
    """Return the path of a folder of this project: like :func:`user_path`, but UTF-8, as Parquet and Zarr require.

    Raises:
        MedphantomError: Of type ``error``, if the path or its name is invalid.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError:
        shown = str(path).encode("utf-8", "backslashreplace").decode()[:80]
        raise error(f"{shown} has a name that is not UTF-8", "choose another name for the folder") from None
    return user_path(path, error)
