"""The whole path in 3-D: volumes in, bundle, volumes out, with a geometry that another program can trust."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medphantom.cohorts.export import export_cohort
from medphantom.cohorts.preprocess import Preprocess
from medphantom.cohorts.records import CohortSchema, ImageRecord
from medphantom.cohorts.store import Cohort
from medphantom.cohorts.writer import CohortWriter
from medphantom.conditioning.plan import plan_counts
from medphantom.conditioning.plan_table import plan_table
from medphantom.conditioning.prompt import Intervention
from medphantom.generators.bundle import GeneratorBundle
from medphantom.generators.config import CounterfactualConfig
from medphantom.generators.counterfactual_cohort import publish_counterfactuals
from medphantom.generators.generate import generate, plan_again, reconstruct
from medphantom.generators.train import train_generator
from medphantom.generators.training_data import learnt_geometry
from tests.generators.tiny import SAMPLER, make_cohort, tiny_config

SIDE = 16


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Cohort, GeneratorBundle]:
    folder = tmp_path_factory.mktemp("volumes")
    cohort = make_cohort(folder / "cohort", total=32, dims=3, side=SIDE, spacings=(0.5, 0.4, 0.5, 0.8))
    steps = {"steps": 12, "batch_size": 4, "validate_every": 6, "checkpoint_every": 6, "tracker": "none"}
    fits = {"autoencoder_fit": steps, "denoiser_fit": {**steps, "grid_every": 12}}
    config = tiny_config(conditioning={"labels": True, "spacing": True}, **fits)
    preprocess = Preprocess.for_cohort(cohort, (SIDE,) * 3)
    train_generator(cohort, preprocess, config, folder / "bundle", work=folder / "work")
    return cohort, GeneratorBundle.load(folder / "bundle")


def test_volumes_are_drawn_stored_and_drawn_again(trained: tuple[Cohort, GeneratorBundle], tmp_path: Path) -> None:
    _, bundle = trained
    assert bundle.facts.latent_shape == (4, 4, 4, 4)
    plan = plan_counts(bundle.facts.conditions, {"bright": 3, "dark": 2}, seed=0)
    cohort = generate(bundle, plan, tmp_path / "out", work=tmp_path / "work", sampler=SAMPLER)
    assert cohort.schema.spatial_dims == 3
    record = next(cohort.records([4]))
    assert record.pixels.shape == (SIDE,) * 3
    assert record.pixels.dtype == np.uint8
    assert record.spacing_mm == (0.5, 0.5, 0.5)
    affine = np.reshape(record.affine, (4, 4))
    assert np.array_equal(affine[:3, :3], np.diag([0.5, 0.5, 0.5]))
    assert np.allclose(affine @ [7.5, 7.5, 7.5, 1], [0, 0, 0, 1])  # centred on the grid
    alone = generate(bundle, plan_again(cohort, [4]), tmp_path / "alone", work=tmp_path / "work", sampler=SAMPLER)
    assert np.array_equal(alone.pixels([0])[0], record.pixels)


def test_volumes_have_the_requested_attributes_and_spacing(
    trained: tuple[Cohort, GeneratorBundle], tmp_path: Path
) -> None:
    _, bundle = trained
    table = tmp_path / "prompts.csv"
    table.write_text("bright,age,sex,spacing,slice_spacing,count\n1,44,F,0.6,0.8,1\n")
    plan = plan_table(table, bundle.facts.conditions, seed=0)
    cohort = generate(bundle, plan, tmp_path / "out", work=tmp_path / "work", sampler=SAMPLER)
    record = next(cohort.records([0]))
    assert record.attributes == {"age": 44.0, "sex": "F", "spacing": 0.6, "slice_spacing": 0.8}
    assert record.spacing_mm == pytest.approx((0.8, 0.6, 0.6))
    export_cohort(cohort, tmp_path / "files", format="nifti")
    (file,) = (tmp_path / "files").rglob("*.nii.gz")
    image = nib.load(file)
    assert image.header.get_zooms() == pytest.approx((0.6, 0.6, 0.8))
    assert image.affine @ [7.5, 7.5, 7.5, 1] == pytest.approx([0, 0, 0, 1], abs=1e-6)


def test_counterfactual_volumes_lie_where_their_source_lies(
    trained: tuple[Cohort, GeneratorBundle], tmp_path: Path
) -> None:
    cohort, bundle = trained
    rows = cohort.rows("test")[1:2]
    action, config = Intervention(attributes={"age": 44.0}), CounterfactualConfig(steps=3, device="cpu")
    pairs = publish_counterfactuals(bundle, cohort, rows, action, config, out=tmp_path / "pairs")
    (source,), (made, *_) = cohort.records(rows), pairs.records()
    assert source.spacing_mm == made.spacing_mm == (0.4, 0.4, 0.4)
    assert made.affine == pytest.approx(source.affine)
    assert made.patient == source.patient


def test_volumes_are_rebuilt(trained: tuple[Cohort, GeneratorBundle]) -> None:
    cohort, bundle = trained
    volumes = np.stack([bundle.facts.preprocess.apply(array) for array in cohort.pixels(cohort.rows("test"))])
    rebuilt = reconstruct(bundle, volumes)
    assert float(np.abs(rebuilt - volumes).mean()) < 0.5 * float(np.abs(volumes - volumes.mean()).mean())


def test_orientation_is_the_commonest_of_the_training_volumes(tmp_path: Path) -> None:
    """Slices that run from foot to head come first on disk: the grid's axes are then (S, P, L)."""
    steps = np.array([[0.02, 0.0, -1.0], [0.0, -0.9, 0.01], [3.0, 0.1, 0.0]])  # columns: world steps per grid axis
    usual, odd = np.eye(4), np.eye(4)
    usual[:3, :3], odd[:3, :3] = steps, np.diag([2.0, 1.0, 1.0])
    with CohortWriter(tmp_path / "c", CohortSchema(spatial_dims=3)) as writer:
        for i in range(5):
            affine = odd if i == 0 else usual
            writer.add(
                ImageRecord(
                    image_id=str(i),
                    patient=str(i),
                    pixels=np.full((8, 16, 16), i, np.uint8),
                    split="train",
                    spacing_mm=(3.0, 0.9, 1.0),
                    affine=tuple(affine.ravel()),
                )
            )
    cohort = Cohort.open(tmp_path / "c")
    geometry = learnt_geometry(cohort, cohort.rows("train"), Preprocess(size=(8, 8, 8), fit="stretch"))
    assert geometry.spacing_mm == (3.0, 1.8, 2.0)
    affine = np.reshape(geometry.affine, (4, 4))
    assert np.allclose(affine[:3, :3], [[0, 0, -2.0], [0, -1.8, 0], [3.0, 0, 0]])
    assert np.allclose(affine @ [3.5, 3.5, 3.5, 1], [0, 0, 0, 1])
