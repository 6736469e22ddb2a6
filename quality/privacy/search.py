"""The search for copies of training images among synthetic images, with a holdout reference and planted copies.

Images are compared by registered detail and by network features. Each comparison has two tests: whether single images
are more similar to a training patient than expected by chance, and whether the set has a high DCR share.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from medphantom.core.errors import UnsupportedClaim
from medphantom.core.progress import Progress, stage
from medphantom.core.records import Array
from medphantom.quality.config import CopyConfig
from medphantom.quality.networks.features import FeatureNetwork
from medphantom.quality.networks.fingerprints import DEFAULT_SIDE, Fingerprints
from medphantom.quality.privacy.contrast import CopyTest, find_copies
from medphantom.quality.privacy.controls import Maker, plant
from medphantom.quality.privacy.dcr_share import draw_subsets, share_in_train
from medphantom.quality.privacy.gate import Evidence, GateResult, evaluate_gate
from medphantom.quality.privacy.matching import Matcher
from medphantom.quality.privacy.neighbours import FeatureMatcher, NeighbourSimilarity

FINGERPRINT_IMAGES = 3000
DETAIL = "registered detail"


@dataclass(frozen=True)
class RealImages:
    """The real images of a copy search, float32 ``(N, C, *spatial)`` in -1…1, with their patients.

    Attributes:
        train: images of the training split.
        holdout: images of the holdout split.
        more: further real images to which the fingerprint is fitted (``val``).
        train_patients: patient of each training image.
        holdout_patients: patient of each holdout image.
    """

    train: Array
    holdout: Array
    more: Array
    train_patients: Sequence[str]
    holdout_patients: Sequence[str]


class CopySearch:
    """Computes the similarity of images to the training and holdout images of one cohort.

    Args:
        real: real images to be searched.
        config: settings of the search.
        network: feature network that was fitted on neither training nor holdout images.
        rng: source of all random draws.
    """

    def __init__(self, real: RealImages, config: CopyConfig, network: FeatureNetwork, rng: np.random.Generator) -> None:
        self.config, self.network, self.real, self.rng = config, network, real, rng
        side = config.side or DEFAULT_SIDE[real.train.ndim - 2]
        drawn = draw_subsets(real.train_patients, real.holdout_patients, config.repeats, rng)
        self.subsets, holdout = drawn, real.holdout[drawn.holdout]
        pool = np.concatenate([real.train, real.holdout, real.more])
        # Training and holdout images must have the same probability of being used for the fingerprint: if it were
        # fitted to the whole holdout but not to the whole training set, whitening would bias the DCR share upwards.
        fingerprints = Fingerprints.fit(pool[rng.permutation(len(pool))[:FINGERPRINT_IMAGES]], side)
        self.matcher = Matcher(real.train, holdout, fingerprints, self.subsets, mirror=config.mirror)
        self.features = FeatureMatcher(network.features(real.train), network.features(holdout), self.subsets)

    def find(
        self, images_NC: Array, features_ND: Array, what: str, progress: Progress | None = None
    ) -> dict[str, NeighbourSimilarity]:
        """Nearest-neighbour similarity of images, by every method of comparison.

        Args:
            images_NC: images to be compared.
            features_ND: features of the images, moved by :meth:`shift`.
            what: description of the images for the progress display.
            progress: callback that receives the number of finished images.
        """
        return {
            DETAIL: self.matcher.find(images_NC, what, progress),
            self.network.name: self.features.find(features_ND),
        }

    def shift(self, features_ND: Array) -> Array:
        """Offset ``(D,)`` that moves the mean features of a set to those of the real images.

        A blurred or noisy set is shifted from the real images as a whole. Without this correction, a few real images
        would be the nearest ones of the whole set, and random differences would count as hundreds of copies.
        """
        found: Array = self.features.center - features_ND.mean(axis=0)
        return found

    def test(self, similarity: NeighbourSimilarity) -> CopyTest:
        """Test single images for copies.

        Raises:
            UnsupportedClaim: there are too few images.
        """
        blocks = len(self.real.train) / self.subsets.size
        return find_copies(similarity.train_score, similarity.block_score, similarity.holdout_score, blocks=blocks)

    def holdout_row(self, place: int) -> int:
        """Position among all holdout images of an image of the holdout subset."""
        return int(self.subsets.holdout[place])


@dataclass(frozen=True)
class Screened:
    """Similarity by registered detail, and the result of the privacy gate."""

    similarity: NeighbourSimilarity
    gate: GateResult


def screen(
    search: CopySearch, synthetic: Array, makers: Mapping[str, Maker], progress: Progress | None = None
) -> Screened:
    """Search synthetic images for copies, plant copies as positive controls, and derive the verdict.

    Args:
        search: copy search in the real images.
        synthetic: synthetic images ``(N, C, *)``, float32 in -1…1.
        makers: functions that make copies through the generator, by kind.
        progress: callback that receives the number of finished images.
    """
    steps = 1 + len(search.config.kinds)

    def part(number: int) -> Progress | None:
        return None if progress is None else stage(progress, number, steps)

    features = search.network.features(synthetic)
    shift = search.shift(features)
    found = search.find(synthetic, features + shift, "synthetic images", part(0))
    planted: dict[str, dict[str, NeighbourSimilarity]] = {by: {} for by in found}
    for number, copies in enumerate(plant(search.real.train, search.config, makers, search.rng), start=1):
        vectors = search.network.features(copies.images) + shift  # moved in the same way as the images of the set
        for by, similarity in search.find(
            copies.images, vectors, f"planted copies, {copies.kind}", part(number)
        ).items():
            planted[by][copies.kind] = similarity
    return Screened(found[DETAIL], evaluate_search(search, found, planted))


def evaluate_search(
    search: CopySearch,
    synthetic: Mapping[str, NeighbourSimilarity],
    planted: Mapping[str, Mapping[str, NeighbourSimilarity]],
) -> GateResult:
    """Derive the verdict from the similarities of synthetic images and planted copies, by method of comparison."""
    evidence, too_few = [], None
    for by, similarity in synthetic.items():
        try:
            test = search.test(similarity)
        except UnsupportedClaim as problem:
            test, too_few = None, str(problem)
        network = None if by == DETAIL else by
        dcr_share = share_in_train(
            similarity.wins,
            similarity.pseudo_wins,
            size=search.subsets.size,
            what="by cosine of features" if network else "by whitened thumbnails",
            network=network,
        )
        evidence.append(Evidence(by, similarity, test, dcr_share, planted.get(by, {})))
    return evaluate_gate(evidence, len(search.real.holdout), search.config, search.rng, too_few=too_few)
