"""Registration and matching: known transforms are found again, and every disguise of a copy is seen through."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from medphantom.quality.networks.fingerprints import Fingerprints
from medphantom.quality.privacy.alterations import ALTERATIONS, altered
from medphantom.quality.privacy.contrast import find_copies
from medphantom.quality.privacy.dcr_share import Subsets
from medphantom.quality.privacy.matching import Matcher
from medphantom.quality.privacy.neighbours import NeighbourSimilarity
from medphantom.quality.privacy.registration import detail, register, similarity, warp
from tests.quality.privacy.textures import textures

SIDE = 64


def test_a_known_similarity_is_found_again_in_2d_and_3d() -> None:
    for spatial in ((SIDE, SIDE), (24, 24, 24)):
        dims = len(spatial)
        images = torch.from_numpy(textures(6, spatial, 0))
        generator = torch.Generator().manual_seed(1)
        true = similarity(
            spatial,
            shift=0.03 * spatial[0] * torch.randn(6, dims, generator=generator),
            turn=0.05 * torch.randn(6, generator=generator),
            scale=torch.exp(0.04 * torch.randn(6, generator=generator)),
        )
        moved = warp(images, true)
        start = torch.eye(dims + 1).repeat(6, 1, 1)
        found = register(detail(moved), detail(images), start)
        # the moved image is the image after `true`: undone by what was found
        off = (true @ found.matrix - torch.eye(dims + 1))[:, :dims].abs()
        assert float(off[:, :, :dims].max()) < 0.03
        assert float(off[:, :, dims].max()) < 0.02 * spatial[0]
        assert float(found.score.min()) > 1.2


def test_transforms_mean_what_they_say() -> None:
    """A bright dot moves right and down by the shift, grows away from the middle, and turns."""
    image = torch.full((1, 1, 17, 17), -1.0)
    image[0, 0, 8, 12] = 1.0  # four to the right of the middle

    def brightest(matrix: torch.Tensor) -> tuple[int, int]:
        place = int(warp(image, matrix)[0, 0].argmax())
        return place // 17, place % 17

    assert brightest(similarity((17, 17), shift=torch.tensor([[2.0, 3.0]]))) == (11, 14)
    assert brightest(similarity((17, 17), scale=torch.tensor([1.5]))) == (8, 14)
    assert brightest(similarity((17, 17), turn=torch.tensor([np.pi / 2]), shift=torch.zeros(1, 2))) in {(4, 8), (12, 8)}
    assert brightest(similarity((17, 17), shift=torch.zeros(1, 2), mirror=True)) == (8, 4)


def sides(train: int, holdout: int) -> Subsets:
    """The first training images stand for their side."""
    groups = np.arange(train).reshape(-1, 10)
    stand_in = (np.arange(2), np.arange(2, 4)[None])
    return Subsets(np.arange(holdout), groups, np.arange(holdout // 10)[None], (stand_in,))


@pytest.fixture(scope="module")
def matcher() -> Matcher:
    images = textures(260, (SIDE, SIDE), 2)
    train = images[:180]
    holdout = images[180:240]
    return Matcher(train, holdout, Fingerprints.fit(images[:240], 32), sides(180, 60))


@pytest.fixture(scope="module")
def unrelated(matcher: Matcher) -> NeighbourSimilarity:
    return matcher.find(textures(60, (SIDE, SIDE), 7))


@pytest.mark.parametrize("name", [*ALTERATIONS, "negative"])
def test_every_disguise_is_seen_through(matcher: Matcher, unrelated: NeighbourSimilarity, name: str) -> None:
    """Twelve copies among sixty new images: each is traced to its source, flagged, and nothing else is."""
    rng = np.random.default_rng(5)
    sources = rng.permutation(len(matcher.train))[:12]
    copied = matcher.train[sources]
    copies = -copied if name == "negative" else altered(name, copied, rng)
    assert copies.shape == copied.shape
    found = NeighbourSimilarity.joined([matcher.find(copies), unrelated])
    assert (found.train[:12] == sources).mean() >= 11 / 12
    tested = find_copies(found.train_score, found.block_score, found.holdout_score, blocks=3)
    flagged = tested.p_values < 0.01
    assert flagged[:12].mean() >= 11 / 12
    assert flagged[12:].mean() <= 3 / 60
    assert tested.p_value < 1e-4


def test_volumes_are_matched_too() -> None:
    spatial = (16, 24, 24)
    images = textures(90, spatial, 3)
    train = images[:50]
    holdout = images[50:80]
    matcher = Matcher(train, holdout, Fingerprints.fit(images[:80], 16), sides(50, 30))
    rng = np.random.default_rng(0)
    found = matcher.find(np.concatenate([altered("shifted", images[:6], rng), images[80:]]))
    assert found.train[:6].tolist() == list(range(6))
    contrast = found.train_score - found.holdout_score
    assert contrast[:6].min() > contrast[6:].max()


def test_blocks_of_queries_change_nothing(matcher: Matcher, monkeypatch: pytest.MonkeyPatch) -> None:
    queries = textures(5, (SIDE, SIDE), 9)
    whole = matcher.find(queries)
    monkeypatch.setattr("medphantom.quality.privacy.matching.QUERIES_PER_BLOCK", 2)
    parts = matcher.find(queries)
    assert (parts.train == whole.train).all()
    np.testing.assert_allclose(parts.train_score, whole.train_score, atol=1e-4)
