"""What the arms of the utility study learn from, and the trainings: equal steps for all, one folder per training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import nn

from cohorts.progress import Progress
from cohorts.records import Array
from learning.randomness import derive_seed
from quality.classifier import predict
from quality.config import StudyConfig
from quality.stages import stage
from quality.utility.judging import Guesses
from quality.utility.pupil import fit_pupil, new_pupil
from quality.utility.study_report import MIXING, Taught

MOST_COPIES = 20  # of one image, when rare labels are oversampled
CLASSICAL = ("classical", "classical_and_synthetic")


@dataclass(frozen=True)
class Examples:
    """Images and their labels.

    Attributes:
        images_NC: float32 ``(n, C, *spatial)`` in -1…1.
        values_NT: int8, 1 present, 0 absent, -1 not stated.
    """

    images_NC: Array
    values_NT: Array

    def __len__(self) -> int:
        return len(self.images_NC)

    def some(self, rows: Array) -> Examples:
        """Only these rows, with repeats."""
        return Examples(self.images_NC[rows], self.values_NT[rows])

    def with_more(self, other: Examples) -> Examples:
        """These, then the others."""
        return Examples(
            np.concatenate([self.images_NC, other.images_NC]), np.concatenate([self.values_NT, other.values_NT])
        )


def lessons_of(config: StudyConfig, real: int, synthetic: Sequence[int]) -> tuple[Taught, ...]:
    """The arms, and those that mix at every ratio that the synthetic images suffice for.

    Args:
        config: how the study is done.
        real: number of real examples.
        synthetic: number of synthetic ones of each generator.
    """
    found: list[Taught] = []
    fewest = min(synthetic, default=0)
    fits = [ratio for ratio in config.ratios if round(ratio * real) <= fewest]
    for arm in config.arms:
        if arm in MIXING:
            found += [Taught(arm=arm, ratio=ratio) for ratio in fits]
        elif arm != "synthetic" or fewest:
            found.append(Taught(arm=arm))
    return tuple(found)


def takes_synthetic(taught: Taught) -> bool:
    """Whether an arm takes synthetic images."""
    return taught.arm == "synthetic" or taught.arm in MIXING


@dataclass(frozen=True)
class School:
    """All that trainings need.

    Attributes:
        real: real training examples.
        synthetic: synthetic ones, one set per generator seed.
        names: of the labels.
        exclusive: labels exclude each other.
        config: how the study is done.
        work: folder for checkpoints.
        progress: told how far a training is.
    """

    real: Examples
    synthetic: tuple[Examples, ...]
    names: tuple[str, ...]
    exclusive: bool
    config: StudyConfig
    work: Path
    progress: Progress | None = None

    def lessons(self) -> tuple[Taught, ...]:
        """The arms, and those that mix at every ratio that the synthetic images suffice for."""
        return lessons_of(self.config, len(self.real), [len(part) for part in self.synthetic])

    def left_out(self) -> tuple[float, ...]:
        """Ratios that there are too few synthetic images for."""
        tried = {taught.ratio for taught in self.lessons()}
        return tuple(ratio for ratio in self.config.ratios if ratio not in tried)

    def trainings(self) -> int:
        """How many classifiers are trained."""
        return sum(len(self._sets(taught)) for taught in self.lessons()) * self.config.classifier_seeds

    def teach(self, taught: Taught, looked_at: Sequence[Array], done: int = 0) -> list[Guesses]:
        """Train the classifiers of one arm, and let them look at images.

        Args:
            taught: the arm.
            looked_at: sets of images.
            done: trainings that were done before, for the progress.

        Returns:
            Their guesses, one entry per set of images.
        """
        config = self.config
        seen: list[list[list[Array]]] = [[] for _ in looked_at]
        total = self.trainings()
        for synthetic in self._sets(taught):
            rows: list[list[Array]] = [[] for _ in looked_at]
            for number in range(config.classifier_seeds):
                seed = derive_seed(config.seed, "utility", number)
                network = self._trained(taught, synthetic, seed, stage(self.progress, done, total))
                done += 1
                for place, images in enumerate(looked_at):
                    device = config.classifier.device
                    rows[place].append(predict(network, images, exclusive=self.exclusive, device=device))
            for place, made in enumerate(rows):
                seen[place].append(made)
        return [Guesses(np.array(made)) for made in seen]

    def _sets(self, taught: Taught) -> tuple[Examples | None, ...]:
        """Synthetic examples of an arm by generator; one ``None`` for an arm that takes none."""
        return self.synthetic if takes_synthetic(taught) else (None,)

    def _trained(self, taught: Taught, synthetic: Examples | None, seed: int, progress: Progress | None) -> nn.Module:
        """One training; equal seeds start from equal weights in every arm."""
        config, real = self.config, self.real
        network = new_pupil(config.network, real.images_NC, real.values_NT.shape[1], seed)
        courses = list(self._courses(taught, synthetic, seed))
        for number, (examples, steps) in enumerate(courses):
            fit_pupil(
                network,
                examples.images_NC,
                examples.values_NT,
                exclusive=self.exclusive,
                config=config.classifier.model_copy(update={"steps": steps}),
                seed=seed,
                work=self.work,
                name=f"classifier on {taught.words}",
                classical=config.classical if taught.arm in CLASSICAL else None,
                progress=stage(progress, number, len(courses)),
            )
        return network

    def _courses(self, taught: Taught, synthetic: Examples | None, seed: int) -> Iterator[tuple[Examples, int]]:
        """What is learned from one after the other, and for how many steps; their sum is the same for every arm."""
        steps, real = self.config.classifier.steps, self.real
        if synthetic is None:
            yield (self._oversampled() if taught.arm == "oversampled" else real), steps
            return
        wanted = len(real) if taught.ratio is None else round(taught.ratio * len(real))
        rng = np.random.default_rng(derive_seed(seed, "synthetic rows"))
        chosen = synthetic.some(np.sort(rng.permutation(len(synthetic))[:wanted]))
        if taught.arm == "synthetic":
            yield chosen, steps
        elif taught.arm == "pretrained":
            yield chosen, steps - steps // 2
            yield real, steps // 2
        else:
            yield real.with_more(chosen), steps

    def _oversampled(self) -> Examples:
        """Every image as often as its rarest label asks for: the most frequent label stays as it is.

        Where a number is asked for, only primary labels are repeated, until there are as many.
        """
        present = self.real.values_NT == 1
        counts = present.sum(axis=0)
        most = self.config.oversample_to or counts.max(initial=0)
        wanted = np.where(counts > 0, most / np.maximum(counts, 1), 1.0)
        if self.config.oversample_to is not None:
            wanted[[name not in self.config.primary for name in self.names]] = 1.0
        copies = np.where(present, wanted[None, :], 1.0).max(axis=1).round().clip(1, MOST_COPIES).astype(int)
        return self.real.some(np.repeat(np.arange(len(self.real)), copies))
