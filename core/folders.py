"""Folders that appear whole or not at all, canonical digests, and paths that stay inside their folder."""

from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from medphantom.core.access import private_files, private_folder, share, shared_folder
from medphantom.core.errors import ArtifactError, InputError, ResourceError
from medphantom.core.guard import Model, folder_path, parse_model, read_json_file, reading, storable_text
from medphantom.core.records import Array
from medphantom.core.staging import replacing, staging

DIGEST_FILE = "digest.json"
FORMAT_VERSION = 1


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces, the same for equal values; NaN is refused."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)


def json_digest(value: Any) -> str:
    """SHA-256 of the canonical JSON of a value."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def pixel_digest(pixels: Array) -> str:
    """SHA-256 of dtype, shape and little-endian C-order bytes of an array."""
    little = np.ascontiguousarray(pixels, dtype=pixels.dtype.newbyteorder("<"))
    head = f"{little.dtype.str}{tuple(little.shape)}".encode()
    digest = hashlib.sha256(head)
    digest.update(little.tobytes())
    return digest.hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def file_state(path: Path) -> tuple[int, int]:
    """Size in bytes and time of the last change in nanoseconds: what differs when somebody wrote to a file.

    Raises:
        OSError: it cannot be looked at.
    """
    facts = path.stat()
    return facts.st_size, facts.st_mtime_ns


@contextmanager
def unchanged(path: Path) -> Iterator[None]:
    """Refuse what was read of a file in the block if somebody wrote to it meanwhile: it may be half of each.

    Raises:
        ArtifactError: the file changed, or went.
    """
    try:
        before = file_state(path)
        yield
        same = file_state(path) == before
    except FileNotFoundError:
        same = False
    if not same:
        raise ArtifactError(f"{path} changed while it was read", "read it again when nothing writes to it")


@contextmanager
def no_space_becomes_one_line(path: Path) -> Iterator[None]:
    """Turn *disk full* and *no permission* under ``path`` into a :class:`ResourceError`."""
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
            raise ResourceError(f"the disk under {path.parent} is full", "free some space and run again") from error
        if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
            raise ResourceError(f"{path.parent} cannot be written", "choose another folder with --out") from error
        raise


@contextmanager
def publishing(path: Path, *, shared: bool = False) -> Iterator[Path]:
    """Yield a partial folder beside ``path`` that becomes ``path`` when the block succeeds, and vanishes when it fails.

    Args:
        path: the folder to make; its owner alone can read it, whatever the umask.
        shared: whether it is made to leave, with nothing private in it: then it is readable as the umask says, once
            it is whole.

    Raises:
        InputError: ``path`` exists and is not an empty folder.
        ResourceError: the disk is full or cannot be written.
    """
    if folder_path(path).exists() and (not path.is_dir() or any(path.iterdir())):
        raise InputError(f"{path} exists already", "choose another --out, or remove it first")
    with no_space_becomes_one_line(path), private_files():
        try:
            shared_folder(path.parent) if shared else path.parent.mkdir(parents=True, exist_ok=True)
        except (FileNotFoundError, NotADirectoryError, FileExistsError):
            raise ResourceError(f"{path.parent} cannot be made a folder", "choose another folder with --out") from None
        with staging(path) as folder:
            partial = folder / path.name
            partial.mkdir()
            yield partial
            if shared:
                share(partial)
            if path.exists():
                path.rmdir()
            partial.rename(path)


def work_folder(path: Path) -> Path:
    """Make a folder of checkpoints and the like, which its owner alone can read; one that exists is tightened.

    Raises:
        ResourceError: the disk is full or cannot be written.
    """
    with no_space_becomes_one_line(path):
        return private_folder(path)


def write_json(path: Path, value: Any) -> None:
    """Write readable JSON, whole or not at all (a temporary file beside it is renamed)."""
    text = json.dumps(value, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False)
    with no_space_becomes_one_line(path), replacing(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path, *, error: type[ArtifactError] = ArtifactError) -> Any:
    """Read JSON of ours, as :func:`medphantom.core.guard.plain` allows it; else ``error`` in one line."""
    with reading(path, error, "cannot be read as JSON", "the folder was never finished or was damaged; make it again"):
        return read_json_file(path)


def kept(kind: type[Model], path: Path) -> Model | None:
    """What earlier work kept in a file; ``None`` where it is missing, damaged or of another version: it is made again.

    Args:
        kind: a pydantic model.
        path: JSON of it.
    """
    if not path.is_file():
        return None
    with suppress(ArtifactError):
        return parse_model(kind, read_json(path), path, ArtifactError, "was damaged; delete it")
    return None


def write_digest(folder: Path, digest: str, **facts: Any) -> None:
    """Write the digest file, last: it is what makes a folder *published*."""
    write_json(folder / DIGEST_FILE, {"format_version": FORMAT_VERSION, "digest": digest, **facts})


def read_digest(folder: Path, *, error: type[ArtifactError] = ArtifactError) -> dict[str, Any]:
    """Read the digest file of a published folder.

    Raises:
        error: the folder is missing, unfinished, or of another format version.
    """
    if not folder_path(folder, error).is_dir():
        raise error(f"{folder} is not a folder", "check the path")
    if not (folder / DIGEST_FILE).is_file():
        raise error(f"{folder} has no {DIGEST_FILE}: it was never published", "make it again")
    facts = read_json(folder / DIGEST_FILE, error=error)
    if not isinstance(facts, dict) or not isinstance(facts.get("digest"), str):
        raise error(f"{folder / DIGEST_FILE} names no digest", "the folder was damaged; make it again")
    version = facts.get("format_version")
    if not isinstance(version, int) or version != FORMAT_VERSION:
        shown = version if isinstance(version, int) else "of another kind"
        raise error(f"{folder} has format version {shown}, expected {FORMAT_VERSION}", "make it again")
    return facts


def inside(root: Path, relative: str | Path) -> Path:
    """The path ``root/relative``, refused when it leaves ``root`` by ``..``, by an absolute path or through a link.

    Raises:
        InputError: the path leaves the folder, or is no path (the message does not repeat what comes from data).
    """
    with reading(f"a path in the data of {root}", InputError, "cannot be a path", "name files of that folder"):
        base = root.resolve()
        path = (base / storable_text(str(relative))).resolve()
        path.exists()  # a name that is too long raises here, and not where it is used
    if not path.is_relative_to(base):
        raise InputError(f"a path in the data leaves {root}", "keep all files inside the source folder")
    return path
