"""Training sets and trainings of the arms of a utility study, with equal steps for all and one folder per training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, Self, TypeVar

import numpy as np
from torch import nn

from medphantom.core.progress import Progress, stage
from medphantom.core.randomness import derive_seed
from medphantom.core.records import Array
from medphantom.quality.config import StudyArm, StudyConfig
from medphantom.quality.networks.classifier import predict
from medphantom.quality.results.model_score import MIXING, TrainingArm
from medphantom.quality.utility.downstream import fit_downstream_model, new_downstream_model
from medphantom.quality.utility.repeated import Predictions

MOST_COPIES = 20  # largest number of copies of one image in oversampling
CLASSICAL = ("classical", "classical_and_synthetic")


@dataclass(frozen=True)
class Examples:
    """Images and their labels.

    Attributes:
        images_NC: float32 ``(n, C, *spatial)`` in -1…1.
        values_NT: int8 labels: 1 present, 0 absent, -1 unknown.
    """

    images_NC: Array
    values_NT: Array

    def __len__(self) -> int:
        return len(self.images_NC)

    def some(self, rows: Array) -> Examples:
        """The examples of the given rows, which may repeat."""
        return Examples(self.images_NC[rows], self.values_NT[rows])

    def with_more(self, other: Examples) -> Examples:
        """These examples followed by the others."""
        return Examples(
            np.concatenate([self.images_NC, other.images_NC]), np.concatenate([self.values_NT, other.values_NT])
        )


class Part(Protocol):
    """Examples that support the selection of rows and concatenation."""

    def __len__(self) -> int:
        """Number of examples."""

    def some(self, rows: Array) -> Self:
        """The examples of the given rows, which may repeat."""

    def with_more(self, other: Self) -> Self:
        """These examples followed by the others."""


P = TypeVar("P", bound=Part)


def planned_trainings(arms: Sequence[StudyArm], ratios: int, generators: int) -> int:
    """Return how many networks a study trains per seed, if there are images enough for every mixing ratio.

    Args:
        arms: Training arms.
        ratios: Number of mixing ratios.
        generators: Number of generators.
    """
    mixing = sum(arm in MIXING for arm in arms)
    alone = sum(arm == "synthetic" for arm in arms)
    return len(arms) - mixing - alone + generators * (alone + mixing * ratios)


@dataclass(frozen=True)
class ArmTrainer(Generic[P]):
    """Training sets and numbers of steps of every arm; subclasses train a kind of network.

    Attributes:
        real: examples of real training images.
        synthetic: synthetic examples, one set per generator seed.
        config: settings of the study.
        work: private folder for checkpoints.
        progress: callback that receives the progress of a training.
    """

    real: P
    synthetic: tuple[P, ...]
    config: StudyConfig
    work: Path
    progress: Progress | None

    def arms(self) -> tuple[TrainingArm, ...]:
        """The training arms, with mixing arms at every ratio for which there are enough synthetic images."""
        found: list[TrainingArm] = []
        fewest = min((len(part) for part in self.synthetic), default=0)
        fits = [ratio for ratio in self.config.ratios if round(ratio * len(self.real)) <= fewest]
        for arm in self.config.arms:
            if arm in MIXING:
                found += [TrainingArm(kind=arm, ratio=ratio) for ratio in fits]
            elif arm != "synthetic" or fewest:
                found.append(TrainingArm(kind=arm))
        return tuple(found)

    def left_out(self) -> tuple[float, ...]:
        """Mixing ratios for which there are too few synthetic images."""
        tried = {arm.ratio for arm in self.arms()}
        return tuple(ratio for ratio in self.config.ratios if ratio not in tried)

    def trainings(self) -> int:
        """Number of networks that are trained."""
        return sum(len(self.sets(arm)) for arm in self.arms()) * self.config.classifier_seeds

    def sets(self, arm: TrainingArm) -> tuple[P | None, ...]:
        """Synthetic examples of an arm by generator; a single ``None`` for an arm without synthetic examples."""
        return self.synthetic if arm.kind == "synthetic" or arm.kind in MIXING else (None,)

    def seed(self, number: int) -> int:
        """Seed of a training; equal numbers start from equal weights in every arm."""
        return derive_seed(self.config.seed, "utility", number)

    def phases(self, arm: TrainingArm, synthetic: P | None, seed: int, steps: int) -> Iterator[tuple[P, int]]:
        """Successive training sets with their numbers of steps, the sum of which is the same for every arm."""
        real = self.real
        if synthetic is None:
            yield (self.oversampled() if arm.kind == "oversampled" else real), steps
            return
        wanted = len(real) if arm.ratio is None else round(arm.ratio * len(real))
        rng = np.random.default_rng(derive_seed(seed, "synthetic rows"))
        chosen = synthetic.some(np.sort(rng.permutation(len(synthetic))[:wanted]))
        if arm.kind == "synthetic":
            yield chosen, steps
        elif arm.kind == "pretrained":
            yield chosen, steps - steps // 2
            yield real, steps // 2
        else:
            yield real.with_more(chosen), steps

    def oversampled(self) -> P:
        """Real examples in which rare labels are oversampled."""
        raise NotImplementedError


@dataclass(frozen=True)
class ClassifierTrainer(ArmTrainer[Examples]):
    """Trainings of classifiers.

    Attributes:
        names: names of the labels.
        exclusive: whether labels are mutually exclusive.
    """

    names: tuple[str, ...]
    exclusive: bool

    def train(self, arm: TrainingArm, test_images: Sequence[Array], done: int = 0) -> list[Predictions]:
        """Train the classifiers of one arm, and predict the labels of test images.

        Args:
            arm: training arm to train.
            test_images: sets of test images.
            done: number of trainings already finished, for the progress.

        Returns:
            Their predictions, one entry per set of images.
        """
        config = self.config
        seen: list[list[list[Array]]] = [[] for _ in test_images]
        total = self.trainings()
        for synthetic in self.sets(arm):
            rows: list[list[Array]] = [[] for _ in test_images]
            for number in range(config.classifier_seeds):
                seed = self.seed(number)
                network = self._trained(arm, synthetic, seed, stage(self.progress, done, total))
                done += 1
                for place, images in enumerate(test_images):
                    device = config.classifier.device
                    rows[place].append(predict(network, images, exclusive=self.exclusive, device=device))
            for place, made in enumerate(rows):
                seen[place].append(made)
        return [Predictions(np.array(made)) for made in seen]

    def _trained(self, arm: TrainingArm, synthetic: Examples | None, seed: int, progress: Progress | None) -> nn.Module:
        """Train one classifier."""
        config, real = self.config, self.real
        network = new_downstream_model(config.network, real.images_NC, real.values_NT.shape[1], seed)
        phases = list(self.phases(arm, synthetic, seed, config.classifier.steps))
        for number, (examples, steps) in enumerate(phases):
            fit_downstream_model(
                network,
                examples.images_NC,
                examples.values_NT,
                exclusive=self.exclusive,
                config=config.classifier.model_copy(update={"steps": steps}),
                seed=seed,
                work=self.work,
                name=f"classifier on {arm.words}",
                classical=config.classical if arm.kind in CLASSICAL else None,
                progress=stage(progress, number, len(phases)),
            )
        return network

    def oversampled(self) -> Examples:
        """Real examples, repeated so that every label is about as frequent as the most frequent one.

        If ``oversample_to`` is set, only images with primary labels are repeated, up to that number.
        """
        present = self.real.values_NT == 1
        counts = present.sum(axis=0)
        most = self.config.oversample_to or counts.max(initial=0)
        wanted = np.where(counts > 0, most / np.maximum(counts, 1), 1.0)
        if self.config.oversample_to is not None:
            wanted[[name not in self.config.primary for name in self.names]] = 1.0
        copies = np.where(present, wanted[None, :], 1.0).max(axis=1).round().clip(1, MOST_COPIES).astype(int)
        return self.real.some(np.repeat(np.arange(len(self.real)), copies))
