"""The search for copies of training images among synthetic ones, with holdout patients as yardstick and planted copies.

Images are compared in two ways, by registered detail and by the features of a network, and asked two questions each: is
a single image more alike to a training patient than chance makes it, and does the crowd lie nearer to those patients?
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
from medphantom.quality.privacy.gate import Evidence, Judgement, judge
from medphantom.quality.privacy.matching import Matcher
from medphantom.quality.privacy.neighbours import FeatureMatcher, NeighbourSimilarity

FINGERPRINT_IMAGES = 3000
DETAIL = "registered detail"


@dataclass(frozen=True)
class RealImages:
    """The real images of a copy search, float32 ``(N, C, *spatial)`` in -1…1, with their patients.

    Attributes:
        train: all training images.
        holdout: all holdout images.
        more: further real images for the fingerprint (``val``).
        train_patients: patient of each training image.
        holdout_patients: patient of each holdout image.
    """

    train: Array
    holdout: Array
    more: Array
    train_patients: Sequence[str]
    holdout_patients: Sequence[str]


class CopySearch:
    """NeighbourSimilarity of any images to the training and holdout images of one cohort.

    Args:
        real: what is searched.
        config: how.
        network: a feature network that was fitted on neither side.
        rng: source of all draws.
    """

    def __init__(self, real: RealImages, config: CopyConfig, network: FeatureNetwork, rng: np.random.Generator) -> None:
        self.config, self.network, self.real, self.rng = config, network, real, rng
        side = config.side or DEFAULT_SIDE[real.train.ndim - 2]
        drawn = draw_subsets(real.train_patients, real.holdout_patients, config.repeats, rng)
        self.subsets, holdout = drawn, real.holdout[drawn.holdout]
        pool = np.concatenate([real.train, real.holdout, real.more])
        # Every training and holdout image has the same chance to shape the fingerprint. Were all of holdout in it but
        # not all of train, whitening would push holdout away from honest images, and they would seem to lean to
        # train.
        fingerprints = Fingerprints.fit(pool[rng.permutation(len(pool))[:FINGERPRINT_IMAGES]], side)
        self.matcher = Matcher(real.train, holdout, fingerprints, self.subsets, mirror=config.mirror)
        self.features = FeatureMatcher(network.features(real.train), network.features(holdout), self.subsets)

    def find(
        self, images_NC: Array, features_ND: Array, what: str, progress: Progress | None = None
    ) -> dict[str, NeighbourSimilarity]:
        """NeighbourSimilarity of images, by every way of comparing.

        Args:
            images_NC: the images.
            features_ND: their features, put where :meth:`shift` says.
            what: they are, for the progress.
            progress: told the number of images.
        """
        return {
            DETAIL: self.matcher.find(images_NC, what, progress),
            self.network.name: self.features.find(features_ND),
        }

    def shift(self, features_ND: Array) -> Array:
        """What puts the features of a set where those of real images are on average, ``(D,)``.

        A set that is blurred or noisy lies beside the real images as a whole; the same few of those are then nearest to
        all of it, and their luck would be taken for hundreds of copies.
        """
        found: Array = self.features.center - features_ND.mean(axis=0)
        return found

    def test(self, similarity: NeighbourSimilarity) -> CopyTest:
        """The test of single images.

        Raises:
            UnsupportedClaim: too few images.
        """
        blocks = len(self.real.train) / self.subsets.size
        return find_copies(similarity.train_score, similarity.block_score, similarity.holdout_score, blocks=blocks)

    def holdout_row(self, place: int) -> int:
        """Position among all holdout images of one that is compared with."""
        return int(self.subsets.holdout[place])


@dataclass(frozen=True)
class Screened:
    """What a search found, by detail, and its judgement."""

    similarity: NeighbourSimilarity
    judgement: Judgement


def screen(
    search: CopySearch, synthetic: Array, makers: Mapping[str, Maker], progress: Progress | None = None
) -> Screened:
    """Search synthetic images for copies, plant some, and weigh what was found.

    Args:
        search: of the real images.
        synthetic: ``(N, C, *)`` float32 in -1…1.
        makers: what makes copies through the generator, by kind.
        progress: told the number of images.
    """
    steps = 1 + len(search.config.kinds)

    def part(number: int) -> Progress | None:
        return None if progress is None else stage(progress, number, steps)

    features = search.network.features(synthetic)
    shift = search.shift(features)
    found = search.find(synthetic, features + shift, "synthetic images", part(0))
    planted: dict[str, dict[str, NeighbourSimilarity]] = {by: {} for by in found}
    for number, copies in enumerate(plant(search.real.train, search.config, makers, search.rng), start=1):
        vectors = search.network.features(copies.images) + shift  # as a copy would be moved that is in the set
        for by, similarity in search.find(
            copies.images, vectors, f"planted copies, {copies.kind}", part(number)
        ).items():
            planted[by][copies.kind] = similarity
    return Screened(found[DETAIL], weigh(search, found, planted))


def weigh(
    search: CopySearch,
    synthetic: Mapping[str, NeighbourSimilarity],
    planted: Mapping[str, Mapping[str, NeighbourSimilarity]],
) -> Judgement:
    """Weigh similarity that was found, of the synthetic images and of planted ones by kind, each by way of
    comparing.
    """
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
    return judge(evidence, len(search.real.holdout), search.config, search.rng, too_few=too_few)
