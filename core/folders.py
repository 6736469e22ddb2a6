"""Folders that are published atomically, canonical digests, and paths that stay inside their folder."""

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
MADE_BY_RUNS = ("cohort", "bundle", "synthetic")  # folders of a run, whose work lies in its folder work


def canonical_json(value: Any) -> str:
    """Return JSON with sorted keys and no spaces, identical for equal values; NaN is refused."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)


def json_digest(value: Any) -> str:
    """Return the SHA-256 digest of the canonical JSON of a value."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def pixel_digest(pixels: Array) -> str:
    """Return the SHA-256 digest of the dtype, shape and little-endian C-order bytes of an array."""
    little = np.ascontiguousarray(pixels, dtype=pixels.dtype.newbyteorder("<"))
    head = f"{little.dtype.str}{tuple(little.shape)}".encode()
    digest = hashlib.sha256(head)
    digest.update(little.tobytes())
    return digest.hexdigest()


def file_digest(path: Path) -> str:
    """Return the SHA-256 digest of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def file_state(path: Path) -> tuple[int, int]:
    """Return the size in bytes and the modification time in nanoseconds, which change when a file is written to.

    Raises:
        OSError: If the file cannot be accessed.
    """
    facts = path.stat()
    return facts.st_size, facts.st_mtime_ns


@contextmanager
def unchanged(path: Path) -> Iterator[None]:
    """Refuse what the block reads from a file if the file is modified meanwhile, since the content may be inconsistent.

    Raises:
        ArtifactError: If the file changed or was removed.
    """
    try:
        before = file_state(path)
        yield
        same = file_state(path) == before
    except FileNotFoundError:
        same = False
    if not same:
        raise ArtifactError(f"{path} changed while it was read", "read it again when no other process writes to it")


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
    """Yield a partial folder beside ``path`` that becomes ``path`` if the block succeeds and is removed if it fails.

    Args:
        path: Folder to create; only its owner can read it, whatever the umask.
        shared: Whether the folder is made to be passed on and contains nothing private. Once complete, it gets the
            permissions that the umask allows.

    Raises:
        InputError: If ``path`` exists and is not an empty folder.
        ResourceError: If the disk is full or cannot be written.
    """
    if folder_path(path).exists() and (not path.is_dir() or any(path.iterdir())):
        raise InputError(f"{path} exists already", "choose another --out, or remove it first")
    with no_space_becomes_one_line(path), private_files():
        try:
            shared_folder(path.parent) if shared else path.parent.mkdir(parents=True, exist_ok=True)
        except (FileNotFoundError, NotADirectoryError, FileExistsError):
            raise ResourceError(f"{path.parent} cannot be created", "choose another folder with --out") from None
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
    """Create a private folder for checkpoints and the like; restrict an existing one that others can read.

    Raises:
        ResourceError: If the disk is full or cannot be written.
    """
    with no_space_becomes_one_line(path):
        return private_folder(path)


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON atomically: a temporary file beside it is renamed."""
    text = json.dumps(value, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False)
    with no_space_becomes_one_line(path), replacing(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path, *, error: type[ArtifactError] = ArtifactError) -> Any:
    """Read JSON written by this project, within the limits of :func:`medphantom.core.guard.plain`; else raise
    ``error``.
    """
    with reading(path, error, "cannot be read as JSON", "the folder is incomplete or damaged; create it again"):
        return read_json_file(path)


def kept(kind: type[Model], path: Path) -> Model | None:
    """Read what earlier work saved in a file; ``None`` if it is missing, damaged or of another version, to be made
    again.

    Args:
        kind: Pydantic model of the content.
        path: JSON file of that model.
    """
    if not path.is_file():
        return None
    with suppress(ArtifactError):
        return parse_model(kind, read_json(path), path, ArtifactError, "is damaged; delete it")
    return None


def write_digest(folder: Path, digest: str, **facts: Any) -> None:
    """Write the digest file, which must be written last: it marks the folder as *published*."""
    write_json(folder / DIGEST_FILE, {"format_version": FORMAT_VERSION, "digest": digest, **facts})


def _work_of(folder: Path) -> Path | None:
    """Return the folder in which work on a folder that does not exist yet is kept, if it was begun."""
    beside, of_run = folder.with_name(f"{folder.name}.work"), folder.parent / "work"
    if beside.is_dir():
        return beside
    return of_run if of_run.is_dir() and folder.name in MADE_BY_RUNS else None


def _reached(work: Path) -> str:
    """Say how far the work in a folder has come."""
    checkpoints = [place for place in work.rglob("checkpoints/step-*") if place.name[5:].isdecimal()]
    if not checkpoints:
        return f"work on it lies in {work}"
    last = max(checkpoints, key=lambda place: place.stat().st_mtime_ns)
    fitted = last.parents[1].name.rsplit("-", 1)[0]
    return f"its training stands at step {int(last.name[5:])} of the {fitted} ({work})"


def read_digest(folder: Path, *, error: type[ArtifactError] = ArtifactError) -> dict[str, Any]:
    """Read the digest file of a published folder.

    Raises:
        error: If the folder is missing, incomplete or of another format version.
    """
    if not folder_path(folder, error).is_dir():
        begun = _work_of(folder)
        if begun is not None:
            raise error(f"{folder} is not finished: {_reached(begun)}", "run the command that makes it; it continues")
        raise error(f"{folder} is not a folder", "check the path")
    if not (folder / DIGEST_FILE).is_file():
        raise error(f"{folder} has no {DIGEST_FILE}: it was never published", "create it again")
    facts = read_json(folder / DIGEST_FILE, error=error)
    if not isinstance(facts, dict) or not isinstance(facts.get("digest"), str):
        raise error(f"{folder / DIGEST_FILE} contains no digest", "the folder is damaged; create it again")
    version = facts.get("format_version")
    if not isinstance(version, int) or version != FORMAT_VERSION:
        shown = version if isinstance(version, int) else "of another kind"
        raise error(f"{folder} has format version {shown}, expected {FORMAT_VERSION}", "create it again")
    return facts


def inside(root: Path, relative: str | Path) -> Path:
    """Return ``root/relative``, refusing paths that leave ``root`` through ``..``, an absolute path or a link.

    Raises:
        InputError: If the path leaves the folder or is not a valid path (the message does not repeat the path itself).
    """
    with reading(f"a path in the data of {root}", InputError, "is not a valid path", "use paths inside that folder"):
        base = root.resolve()
        path = (base / storable_text(str(relative))).resolve()
        path.exists()  # a name that is too long raises here, and not where it is used
    if not path.is_relative_to(base):
        raise InputError(f"a path in the data leaves {root}", "keep all files inside the source folder")
    return path
