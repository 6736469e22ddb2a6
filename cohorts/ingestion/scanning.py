"""The first scan of a source: its files are classified, and their headers are read by worker processes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from medphantom.cohorts.ingestion.layout import Layout, lay_out
from medphantom.cohorts.ingestion.source import batches_of, walk
from medphantom.cohorts.options import IngestOptions
from medphantom.cohorts.readers.common import Kind
from medphantom.cohorts.readers.tasks import FileHead, Refusal, ScanJob, scan
from medphantom.core.errors import InputError, Reason
from medphantom.core.guard import user_path
from medphantom.core.machine import decoding_bytes, usable_cores
from medphantom.core.progress import Progress
from medphantom.core.workers import MEMORY_PER_BYTE, Batch, Crashed, Workers

FILES_PER_SCAN = 32
SCAN_BYTES = 256 * 2**20  # memory that a file's headers may use, in addition to a few times its size on disk
SCAN_BYTES_PER_BYTE = 4
ALL_KINDS: tuple[Kind, ...] = ("dicom", "nifti", "picture", "npz")


def source_root(source: Path) -> tuple[Path, str | None]:
    """Return the source folder, and the one file to read if the source is a file.

    Raises:
        InputError: If the path does not exist.
    """
    if not user_path(source).exists():
        raise InputError(f"{source} does not exist", "check the path of the source")
    root = source.resolve()
    return (root.parent, root.name) if root.is_file() else (root, None)


def lay_out_source(source: Path, root: Path, only: str | None, options: IngestOptions) -> Layout:
    """List the files of a source and classify them.

    Raises:
        InputError: If it contains no files, or a mask folder that was named does not exist.
    """
    files, refused = ([only], []) if only else walk(root, options.exclude, follow_links=options.follow_links)
    if not files and not refused:
        raise InputError(
            f"{source} holds no files", "give a folder of DICOM, NIfTI, PNG, JPEG or TIFF files, or a .npz"
        )
    return lay_out(root, files, refused, options)


def make_workers(options: IngestOptions) -> Workers:
    """Return the decoding processes, each with limits of memory and time."""
    workers = usable_cores() if options.workers is None else options.workers
    return Workers(
        workers,
        seconds_per_job=options.seconds_per_file,
        memory_bytes=memory_for_decoding(options),
        preload=["medphantom.cohorts.readers.tasks"],
    )


def memory_for_decoding(options: IngestOptions) -> int:
    """Return the memory that all decoding processes together may use, in bytes."""
    return decoding_bytes() if options.memory_mib is None else options.memory_mib * 2**20


def largest_image_bytes(options: IngestOptions) -> int:
    """Return the largest decoded size of a file: as the options allow, within the memory for decoding."""
    return min(options.max_image_mib * 2**20, memory_for_decoding(options) // MEMORY_PER_BYTE)


def scan_heads(pool: Workers, layout: Layout, options: IngestOptions, progress: Progress | None) -> list[FileHead]:
    """Return the header of each possible image, in the order of the layout."""
    root, paths = layout.root, layout.images
    kinds = ALL_KINDS if options.format == "auto" else (options.format,)
    batches = (
        Batch(tuple(ScanJob(str(root), path, kinds) for path in part), limit_bytes=_scan_limit(root, part))
        for part in batches_of(paths, FILES_PER_SCAN)
    )
    heads: list[FileHead] = []
    for batch, results in pool.map(scan, batches):
        for job, result in zip(batch.jobs, results, strict=True):
            heads.append(_crash_head(job.path) if isinstance(result, Crashed) else result)
        if progress is not None:
            progress(len(heads), len(paths), "scanning files")
    return heads


def _scan_limit(root: Path, paths: Sequence[str]) -> int:
    largest = max((_size(root / path) for path in paths), default=0)
    return SCAN_BYTES + SCAN_BYTES_PER_BYTE * largest


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # reported by the reader
        return 0


def _crash_head(path: str) -> FileHead:
    return FileHead(path, refusal=Refusal(Reason.CRASHED, "its scan crashed"))
