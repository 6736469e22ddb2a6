"""Estimates of the costs of a run before it starts: time from a few real training steps, memory and disk from sizes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

from medphantom.cohorts.preprocess import Preprocess
from medphantom.core.errors import ResourceError
from medphantom.core.records import Frozen
from medphantom.flows.process.facts import memory_bytes, usable_cores
from medphantom.flows.process.progress import Silent, clock, watcher
from medphantom.flows.runs.artifact import Stage
from medphantom.flows.runs.job import Job, Refs
from medphantom.generators.config import GeneratorConfig, SamplerConfig
from medphantom.quality.config import AssessConfig

BYTES_PER_GB = 1e9
FILES_PER_SECOND_AND_CORE = 200.0  # radiographs of some 100 kB, decoded and checked
PHANTOMS_PER_SECOND_AND_CORE = 60.0  # at 128 px; grows with the area
IMAGES_PER_PATIENT = 1.6  # simulated
REPORT_BYTES = 20e6
REPORT_S = 3.0
START_S = 5.0  # loading torch and MONAI
EXTRA_TIME = 1.15  # validations, latents, checkpoints
TELLING_S = 10.0  # below that, no line is worth it, and no time is a measure of others
CAREFREE_IMAGES = 1024  # of a batch that passes through the network together
CHECKPOINTS = 3  # the last two and the best
TENSORS_PER_WEIGHT = 4  # weight, average, two moments
TORCH_BYTES = 0.6e9  # what Python and the libraries occupy before any network


@dataclass(frozen=True)
class Estimate:
    """The estimated costs of a run.

    Attributes:
        seconds: The time in seconds of each stage, or other part of the work, that has to be done.
        memory_bytes: The peak memory of the process.
        disk_bytes: The size of the files that will be written.
        assumption: The origin of the numbers, in words.
    """

    seconds: Mapping[str, float]
    memory_bytes: float
    disk_bytes: float
    assumption: str

    def line(self) -> str:
        """Format the estimate as one line for the console."""
        parts = ", ".join(f"{stage} {clock(seconds)}" for stage, seconds in self.seconds.items() if seconds >= 1)
        return (
            f"estimate: about {clock(sum(self.seconds.values()))}{f' ({parts})' if parts else ''}, "
            f"{_gb(self.memory_bytes)} of memory, {_gb(self.disk_bytes)} of disk; {self.assumption}"
        )


class Forecast:
    """An estimate that is corrected by what the finished stages took.

    Args:
        seconds: The estimated time in seconds of each stage that has to be made.
    """

    def __init__(self, seconds: Mapping[str, float]) -> None:
        self._ahead = dict(seconds)
        self._expected = self._spent = 0.0

    def after(self, stage: str, seconds: float) -> str | None:
        """Take note of a finished stage, and return a line on what is left; ``None`` if that is next to nothing.

        Args:
            stage: The stage.
            seconds: The time in seconds that it took.
        """
        expected = self._ahead.pop(stage, None)
        if expected is not None:
            self._expected, self._spent = self._expected + expected, self._spent + seconds
        left = sum(self._ahead.values())
        if self._expected >= TELLING_S:
            left *= self._spent / self._expected
        return f"about {clock(left)} left ({', '.join(self._ahead)})" if left >= TELLING_S else None


_forecast: ContextVar[Forecast | None] = ContextVar("medphantom_forecast", default=None)


@contextmanager
def forecast(needed: Estimate) -> Iterator[None]:
    """Let :func:`tell_left` correct an estimate in the block."""
    token = _forecast.set(Forecast(needed.seconds))
    try:
        yield
    finally:
        _forecast.reset(token)


def tell_left(stage: Stage, seconds: float) -> None:
    """Show what is left of a run after one of its stages, where its costs were estimated."""
    known = _forecast.get()
    line = None if known is None else known.after(stage, seconds)
    if line is not None:
        watcher().note(line)


def estimate(job: Job, refs: Refs, to_do: tuple[Stage, ...]) -> Estimate:
    """Estimate the costs of the stages that have to be made.

    Networks are built at the recipe's sizes and take a few real training steps on random pixels; the rest is counted.

    Args:
        job: The job of the run.
        refs: The artifacts that are current.
        to_do: The stages that have to be made.
    """
    images, source_bytes = _source_size(job, refs)
    seconds: dict[Stage, float] = {}
    disk, memory, assumption = REPORT_BYTES, TORCH_BYTES, "from file counts"
    cores = usable_cores()
    if "phantom" in to_do and job.recipe.cohort.simulate is not None:
        area = (job.recipe.cohort.simulate.size / 128) ** job.recipe.cohort.simulate.spatial_dims
        seconds["phantom"] = images * area / PHANTOMS_PER_SECOND_AND_CORE / cores
        disk += source_bytes
    if "ingest" in to_do:
        seconds["ingest"] = images / FILES_PER_SECOND_AND_CORE / cores + 2
        disk += source_bytes
    if "report" in to_do:
        seconds["report"] = REPORT_S
    if {"train", "generate", "assess"} & set(to_do):
        from medphantom.flows.runs.calibration import calibrate

        measured = calibrate(job.recipe, images)
        if "train" in to_do:
            seconds["train"] = measured.train_s * EXTRA_TIME
            disk += measured.weight_bytes * (1 + CHECKPOINTS * TENSORS_PER_WEIGHT) + measured.cache_bytes
        if "generate" in to_do:
            total = planned_images(job, images)
            seconds["generate"] = total * measured.sample_s
            disk += total * measured.image_bytes
        if "assess" in to_do:
            seconds["assess"] = measured.assess_s
        memory = measured.memory_bytes + measured.cache_bytes
        assumption = measured.assumption
        first = next(stage for stage in to_do if stage in {"train", "generate", "assess"})
        seconds[first] += START_S
    ordered: dict[str, float] = {stage: seconds[stage] for stage in to_do if stage in seconds}
    return Estimate(ordered, memory, disk, assumption)


class Sections(Frozen):
    """The sections that decide what a verb costs, where it reads no whole recipe.

    Attributes:
        preprocess: What the networks see of an image.
        generator: The generator and how it is fitted.
        sampler: How images are sampled.
        assess: How images are scored.
    """

    preprocess: Preprocess
    generator: GeneratorConfig
    sampler: SamplerConfig = SamplerConfig()
    assess: AssessConfig = AssessConfig()


def tell_costs(
    sections: Sections, images: int, place: Path, *, trainings: int = 1, drawn: int = 0, classifier_steps: int = 0
) -> None:
    """Estimate what a verb costs and show it before it begins, where someone watches; see :func:`watching`.

    Where nobody does, an estimate takes some seconds for nothing, unless a batch is so large that memory may fail.

    Args:
        sections: The sections of its settings.
        images: The number of training images.
        place: The result of the verb.
        trainings: The number of generators that are trained.
        drawn: The number of images that are generated.
        classifier_steps: The number of steps of all downstream models together.

    Raises:
        ResourceError: The disk or the memory is too small.
    """
    fits = (sections.generator.autoencoder_fit, sections.generator.denoiser_fit)
    largest = max(fit.batch_size // fit.accumulate for fit in fits)
    if isinstance(watcher(), Silent) and largest <= CAREFREE_IMAGES:
        return
    from medphantom.flows.runs.calibration import calibrate

    measured = calibrate(sections, images)
    seconds = {
        "train": trainings * measured.train_s * EXTRA_TIME + START_S,
        "generate": drawn * measured.sample_s,
        "downstream models": classifier_steps * measured.classifier_step_s,
    }
    disk = trainings * measured.weight_bytes * (1 + CHECKPOINTS * TENSORS_PER_WEIGHT)
    needed = Estimate(
        seconds,
        measured.memory_bytes + measured.cache_bytes,
        disk + measured.cache_bytes + drawn * measured.image_bytes,
        measured.assumption,
    )
    watcher().note(needed.line())
    require_room(place, needed)


def require_room(place: Path, needed: Estimate) -> None:
    """Stop before any work if disk or memory cannot suffice.

    Args:
        place: The folder that will be made.
        needed: The estimated costs.

    Raises:
        ResourceError: The disk or the memory is too small.
    """
    folder = place.resolve()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if needed.disk_bytes > free:
        raise ResourceError(
            f"the run needs about {_gb(needed.disk_bytes)} of disk, {_gb(free)} are free under {folder}",
            "free some space, or choose another --out",
        )
    total, _ = memory_bytes()
    if total and needed.memory_bytes > total:
        raise ResourceError(
            f"the run needs about {_gb(needed.memory_bytes)} of memory, the machine has {_gb(total)}",
            "lower preprocess.size or a batch_size, or raise its accumulate",
        )


def planned_images(job: Job, images: int) -> int:
    """Return the number of planned images, as far as it is known before the cohort is."""
    plan = job.recipe.plan
    if plan.kind == "match":
        return plan.total
    if plan.kind == "counts":
        return sum(plan.counts.values())
    return images  # topping up depends on the labels: at most about as many again


def _source_size(job: Job, refs: Refs) -> tuple[int, float]:
    """Return the number and the total size in bytes of the source's images, without reading any."""
    if "ingest" in refs:
        record = job.base.records()["ingest"]
        return int(record.facts.get("images", 0)), float(_tree_size(Path(refs["ingest"].path))[1])
    simulate = job.recipe.cohort.simulate
    if simulate is not None:
        images = round(simulate.patients * IMAGES_PER_PATIENT)
        return images, images * float(simulate.size**simulate.spatial_dims) * 2
    assert job.recipe.cohort.source is not None  # noqa: S101 - the recipe has one or the other
    return _tree_size(job.recipe.cohort.source)


def _tree_size(path: Path) -> tuple[int, float]:
    if path.is_file():
        return 1, float(path.stat().st_size)
    count, size = 0, 0.0
    for folder, _, names in os.walk(path):
        for name in names:
            count += 1
            try:
                size += os.stat(os.path.join(folder, name)).st_size  # noqa: PTH116, PTH118 - a Path per file is slow
            except OSError:
                continue
    return count, size


def _gb(size: float) -> str:
    return f"{max(size / BYTES_PER_GB, 0.1):.1f} GB"
