"""From a folder of real images to a cohort: every file is ingested or rejected with a reason; none stops the run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from medphantom.cohorts.identity import IdentityKey
from medphantom.cohorts.ingestion.grouping import Planned
from medphantom.cohorts.ingestion.plan import Plan
from medphantom.cohorts.ingestion.planning import make_plan
from medphantom.cohorts.ingestion.scanning import lay_out_source, make_workers, scan_heads, source_root
from medphantom.cohorts.ingestion.sink import Sink
from medphantom.cohorts.ingestion.understood import understood
from medphantom.cohorts.options import IngestOptions
from medphantom.cohorts.overview import cohort_warnings
from medphantom.cohorts.private import PrivateFolder, private_path
from medphantom.cohorts.readers import npz
from medphantom.cohorts.readers.tasks import FileHead, ReadJob, ReadResult, Refusal, finish, read
from medphantom.cohorts.store import Cohort
from medphantom.cohorts.writer import CohortWriter
from medphantom.core.errors import InputError, Reason, UnreadableImage
from medphantom.core.folders import file_state
from medphantom.core.progress import Progress
from medphantom.core.workers import Batch, Crashed, Workers

FILES_PER_READ = 16
BYTES_PER_READ = 2**20
READ_BYTES = 512 * 2**20  # memory that libraries and small images may use
MOST_COPIES = 32  # a byte may become a float, several times


@dataclass(frozen=True)
class IngestResult:
    """Result of an ingestion; ``total_files == accepted_files + sum(rejected.values()) + used_files``.

    Attributes:
        cohort: Cohort that was published.
        total_files: Number of files found in the source.
        accepted_files: Number of files that gave at least one image.
        rejected: Number of files that gave none, by reason.
        used_files: Number of tables and masks.
        rejected_frames: Number of frames rejected in files that gave other images.
        exact_duplicates: Number of images (or frames) dropped because their pixels were already in the cohort.
        near_duplicates: Number of near duplicates of earlier images; they are kept and marked.
        understood: Lines on how the source was read: table and join, patients, labels, splits, what was left out.
        warnings: Warnings for the user, without any content of an image or header.
        private_folder: Folder with rejections and links; it must not be shared.
    """

    cohort: Cohort
    total_files: int
    accepted_files: int
    rejected: dict[Reason, int]
    used_files: int
    rejected_frames: int
    exact_duplicates: int
    near_duplicates: int
    understood: tuple[str, ...]
    warnings: tuple[str, ...]
    private_folder: Path

    @property
    def accepted(self) -> int:
        """Number of images in the cohort."""
        return len(self.cohort)


def ingest(
    source: str | Path,
    out: str | Path,
    options: IngestOptions | None = None,
    key: IdentityKey | None = None,
    progress: Progress | None = None,
) -> IngestResult:
    """Read a source into a cohort.

    The result does not depend on the number of workers, nor on the order in which the file system lists files. Memory
    grows by some hundred bytes per file; pixels of a limited number of files are in memory.

    Args:
        source: Folder of images, or one file.
        out: Cohort to create; ``<out>.private`` is created beside it.
        options: Ingestion options; by default everything possible is detected.
        key: Identity key; by default the user's own.
        progress: Callback that receives the number of files scanned, then of images read.

    Raises:
        InputError: If nothing can be ingested, options do not fit the source, or a file was rejected with ``strict``.
        ResourceError: If the disk is full or cannot be written.
    """
    options = options or IngestOptions()
    key = key or IdentityKey.load_or_create()
    root, only = source_root(Path(source))
    _refuse_inside(Path(source), root, Path(out), only)
    layout = lay_out_source(Path(source), root, only, options)
    with make_workers(options) as pool:
        plan = make_plan(layout, scan_heads(pool, layout, options, progress), options)
        with ExitStack() as stack:
            private = stack.enter_context(PrivateFolder(private_path(Path(out))))
            sink = Sink(plan, options, key, stack.enter_context(CohortWriter(out, plan.schema)), private)
            _fill(sink, plan, pool, progress)
            sink.close(Path(source))
    return _result(Path(out), plan, sink)


def _refuse_inside(source: Path, root: Path, out: Path, only: str | None) -> None:
    for path in () if only else (out.resolve(), private_path(out.resolve())):
        if path.is_relative_to(root):
            raise InputError(f"{out} lies inside the source {source}", "choose an --out outside of it")


def _fill(sink: Sink, plan: Plan, pool: Workers, progress: Progress | None) -> None:
    for path, refusal in plan.refused:
        sink.refuse([path], refusal)
    for path, role in plan.used:
        sink.private.link(path, role)
    for done, (planned, result) in enumerate(_results(plan, pool), 1):
        sink.take(planned, result)
        if progress is not None:
            progress(done, sink.total, "reading images")


def _result(out: Path, plan: Plan, sink: Sink) -> IngestResult:
    cohort = Cohort.open(out)
    return IngestResult(
        cohort=cohort,
        total_files=plan.total_files,
        accepted_files=len(sink.accepted),
        rejected=dict(sorted(sink.rejected_files().items())),
        used_files=len(plan.used),
        rejected_frames=sink.rejected_frames(),
        exact_duplicates=sink.exact_duplicates,
        near_duplicates=sink.near_duplicates,
        understood=understood(plan, sink),
        warnings=(*sink.warnings, *cohort_warnings(cohort)),
        private_folder=private_path(out),
    )


def _results(plan: Plan, pool: Workers) -> Iterator[tuple[Planned, ReadResult]]:
    """Yield decoded images in the order of the plan; an archive is read here, row by row."""
    if plan.archive is not None:
        path, head = plan.archive
        planned = Planned((path,), FileHead(path, "npz", npz=head))
        try:
            before = plan.states[path]
            for image in npz.read_rows(plan.root / path, head, plan.read_options):
                try:
                    yield planned, ReadResult([finish(image, plan.read_options)])
                except UnreadableImage as error:
                    yield planned, ReadResult(refusals=[Refusal(error.reason, error.detail, image.frame)])
        except UnreadableImage as error:
            raise InputError(f"{plan.root / path} cannot be read: {error.detail}", "obtain the archive again") from None
        if file_state(plan.root / path) != before:
            raise InputError(
                f"{plan.root / path} changed while it was read", "ingest it when no other process writes to it"
            )
        return
    upcoming = iter(plan.images)
    for _, results in pool.map(read, _read_batches(plan)):
        for result in results:
            crashed = ReadResult(refusals=[Refusal(Reason.CRASHED, "its decoder crashed or timed out")])
            yield next(upcoming), crashed if isinstance(result, Crashed) else result


def _read_batches(plan: Plan) -> Iterator[Batch[ReadJob]]:
    jobs: list[ReadJob] = []
    weight = 0
    for planned in plan.images:
        jobs.append(planned.job(plan.root, plan.mask_root, plan.read_options, plan.states))
        weight += min(planned.weight_bytes, plan.read_options.max_bytes)  # what declares more is not decoded
        if len(jobs) == FILES_PER_READ or weight >= BYTES_PER_READ:
            yield _batch(jobs, weight)
            jobs, weight = [], 0
    if jobs:
        yield _batch(jobs, weight)


def _batch(jobs: list[ReadJob], weight: int) -> Batch[ReadJob]:
    return Batch(tuple(jobs), weight, READ_BYTES + MOST_COPIES * weight)
