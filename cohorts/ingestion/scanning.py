"""The first look at a source: its files, laid out, and the head of each, read by worker processes."""

from __future__ import annotations

from pathlib import Path

from cohorts.errors import InputError, Reason
from cohorts.guard import user_path
from cohorts.ingestion.layout import Layout, lay_out
from cohorts.ingestion.source import batches_of, walk
from cohorts.options import IngestOptions
from cohorts.progress import Progress
from cohorts.readers.common import Kind
from cohorts.readers.tasks import FileHead, Refusal, ScanJob, scan
from cohorts.workers import Batch, Crashed, Workers, usable_cores

FILES_PER_SCAN = 32
MEMORY_PER_IMAGE = 6  # a decoder and a LUT need several copies of an image
MEMORY_BESIDE = 4 * 2**30
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
    memory = MEMORY_BESIDE + MEMORY_PER_IMAGE * options.max_image_mib * 2**20
    return Workers(workers, seconds_per_job=options.seconds_per_file, memory_bytes=memory)


def scan_heads(pool: Workers, layout: Layout, options: IngestOptions, progress: Progress | None) -> list[FileHead]:
    """The head of each file that may be an image, in the order of the layout."""
    root, paths = layout.root, layout.images
    kinds = ALL_KINDS if options.format == "auto" else (options.format,)
    batches = (
        Batch(tuple(ScanJob(str(root), path, kinds) for path in part)) for part in batches_of(paths, FILES_PER_SCAN)
    )
    heads: list[FileHead] = []
    for batch, results in pool.map(scan, batches):
        for job, result in zip(batch.jobs, results, strict=True):
            heads.append(_crash_head(job.path) if isinstance(result, Crashed) else result)
        if progress is not None:
            progress(len(heads), len(paths), "looking at files")
    return heads


def _crash_head(path: str) -> FileHead:
    return FileHead(path, refusal=Refusal(Reason.CRASHED, "looking at it ended the process"))
