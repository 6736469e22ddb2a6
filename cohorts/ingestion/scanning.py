"""The first look at a source: its files, laid out, and the head of each, read by worker processes."""

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
SCAN_BYTES = 256 * 2**20  # that the headers of a file may take, beside a few times what lies on disk
SCAN_BYTES_PER_BYTE = 4
ALL_KINDS: tuple[Kind, ...] = ("dicom", "nifti", "picture", "npz")


def source_root(source: Path) -> tuple[Path, str | None]:
    """Source folder, and the one file to read when the source is a file.

    Raises:
        InputError: there is nothing of that name.
    """
    if not user_path(source).exists():
        raise InputError(f"{source} does not exist", "check the path of the source")
    root = source.resolve()
    return (root.parent, root.name) if root.is_file() else (root, None)


def lay_out_source(source: Path, root: Path, only: str | None, options: IngestOptions) -> Layout:
    """Walk a source and lay it out.

    Raises:
        InputError: it holds no files, or a folder of masks that was named does not exist.
    """
    files, refused = ([only], []) if only else walk(root, options.exclude, follow_links=options.follow_links)
    if not files and not refused:
        raise InputError(
            f"{source} holds no files", "give a folder of DICOM, NIfTI, PNG, JPEG or TIFF files, or a .npz"
        )
    return lay_out(root, files, refused, options)


def make_workers(options: IngestOptions) -> Workers:
    """The processes that decode, each with a bound on memory and time."""
    workers = usable_cores() if options.workers is None else options.workers
    return Workers(
        workers,
        seconds_per_job=options.seconds_per_file,
        memory_bytes=memory_for_decoding(options),
        preload=["medphantom.cohorts.readers.tasks"],
    )


def memory_for_decoding(options: IngestOptions) -> int:
    """Memory that the processes that decode may take together, in bytes."""
    return decoding_bytes() if options.memory_mib is None else options.memory_mib * 2**20


def largest_image_bytes(options: IngestOptions) -> int:
    """How much a file may decode to: as the options say, and as far as the memory for decoding goes."""
    return min(options.max_image_mib * 2**20, memory_for_decoding(options) // MEMORY_PER_BYTE)


def scan_heads(pool: Workers, layout: Layout, options: IngestOptions, progress: Progress | None) -> list[FileHead]:
    """The head of each file that may be an image, in the order of the layout."""
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
            progress(len(heads), len(paths), "looking at files")
    return heads


def _scan_limit(root: Path, paths: Sequence[str]) -> int:
    largest = max((_size(root / path) for path in paths), default=0)
    return SCAN_BYTES + SCAN_BYTES_PER_BYTE * largest


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # told by the reader
        return 0


def _crash_head(path: str) -> FileHead:
    return FileHead(path, refusal=Refusal(Reason.CRASHED, "looking at it ended the process"))
