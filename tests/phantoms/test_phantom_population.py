"""Patients are independent of how many are requested, and fall ill as often as the risk table says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medphantom.core.errors import InputError
from medphantom.phantoms.factors import FINDINGS, ImageFactors, factor_paths, with_factor
from medphantom.phantoms.population import Population, simulate

POPULATION = Population()


@pytest.fixture(scope="module")
def population():
    return list(simulate(1500, seed=20))


def test_a_patient_is_the_same_however_many_are_requested(population):
    assert list(simulate(3, seed=20)) == population[:3]
    assert list(simulate(2, seed=20, start=1400)) == population[1400:1402]
    assert next(simulate(1, seed=21)) != population[0]


def test_dimensions_do_not_change_who_the_patient_is(population):
    volume = next(simulate(1, seed=20, spatial_dims=3))
    assert volume.images[0].model_copy(update={"spatial_dims": 2}) == population[0].images[0]


def _prevalence(patient, name, image):
    return POPULATION.prevalence(
        name, age=patient.age, sex=patient.sex, site=patient.site, cardiomegaly=image.cardiomegaly.present
    )


def _z(patients, name, which):
    """Deviation of the count of one finding from its sum of Bernoulli chances, in standard deviations."""
    images = [patient.images[which] for patient in patients]
    prevalences = np.array([_prevalence(p, name, i) for p, i in zip(patients, images, strict=True)])
    seen = sum(image.finding(name).present for image in images)
    return (seen - prevalences.sum()) / np.sqrt((prevalences * (1 - prevalences)).sum())


@pytest.mark.parametrize("name", FINDINGS)
@pytest.mark.parametrize("which", [0, -1], ids=["first image", "last image"])
def test_prevalence_lies_within_binomial_bounds(population, name, which):
    assert abs(_z(population, name, which)) < 4


@pytest.mark.parametrize("name", FINDINGS)
def test_prevalence_follows_age_sex_and_site(population, name):
    groups = [
        [p for p in population if p.age < 55], [p for p in population if p.age >= 55],
        [p for p in population if p.sex == "F"], [p for p in population if p.site == "mobile"],
    ]  # fmt: skip
    assert all(abs(_z(group, name, 0)) < 4 for group in groups)


def test_age_raises_cardiomegaly_and_effusion_and_lowers_pneumothorax():
    def at(name, age):
        return POPULATION.prevalence(name, age=age, sex="F", site="north")

    assert at("cardiomegaly", 80) > 2 * at("cardiomegaly", 40)
    assert at("effusion", 80) > 1.5 * at("effusion", 40)
    assert at("pneumothorax", 80) < at("pneumothorax", 40)


def test_site_is_a_shortcut_only_while_requested():
    def gap(shortcut):
        population = Population(shortcut=shortcut)
        prevalences = [population.prevalence("effusion", age=60, sex="M", site=s) for s in ("mobile", "north")]
        return prevalences[0] - prevalences[1]

    assert gap(0) == 0
    assert gap(1) > 0.1
    assert gap(2) > gap(1)


def test_healthy_population_has_no_findings():
    patients = simulate(20, seed=1, population=Population(healthy=True))
    assert not any(any(image.labels.values()) for patient in patients for image in patient.images)


def test_images_of_a_patient_share_anatomy_and_places_but_not_pose(population):
    several = [patient for patient in population if len(patient.images) > 1]
    assert 0.3 < len(several) / len(population) < 0.5
    for patient in several[:50]:
        first, second = patient.images[:2]
        assert first.anatomy == second.anatomy
        assert first.pose != second.pose
        assert first.scanner.noise_seed != second.scanner.noise_seed
        assert first.effusion.side == second.effusion.side
        assert first.cardiomegaly == second.cardiomegaly
        assert patient.days[0] == 0
        assert second.age == pytest.approx(first.age + patient.days[1] / 365.25)


def test_images_of_one_study_show_the_same_findings(population):
    pairs = [
        (a, b) for p in population for a, b in zip(p.images, p.images[1:], strict=False) if a.study == b.study
    ]  # fmt: skip
    assert len(pairs) > 50
    assert all(a.labels == b.labels and a.age == b.age for a, b in pairs)


def test_fewer_than_one_patient_is_refused():
    with pytest.raises(InputError, match="total_patients must be ≥ 1, got 0"):
        next(simulate(0, seed=1))


# ---------------------------------------------------------------------- changing factors


def test_every_factor_can_be_set_to_its_own_value(population):
    image = population[0].images[0]
    for path in factor_paths(image):
        value = image
        for name in path.split("."):
            value = getattr(value, name)
        assert with_factor(image, path, value) == image


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(FINDINGS), st.floats(0, 1))
def test_changing_a_severity_changes_nothing_else(name, severity):
    image = next(simulate(1, seed=4)).images[0]
    changed = with_factor(image, f"{name}.severity", severity)
    assert changed.finding(name).severity == severity
    assert with_factor(changed, f"{name}.severity", image.finding(name).severity) == image


def test_factors_survive_json(population):
    for patient in population[:20]:
        for image in patient.images:
            assert ImageFactors.model_validate_json(image.model_dump_json()) == image


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("effusion.severity", 1.5, r"factor effusion.severity cannot be 1.5; input should be less than or equal to 1"),
        ("effusion.severty", 0.5, r"factor 'effusion.severty' is unknown; did you mean 'effusion.severity'"),
        ("sex", "X", r"factor sex cannot be 'X'"),
        ("effusion", 1, r"factor 'effusion' is unknown"),
    ],
)
def test_a_wrong_factor_is_refused_in_one_line(path, value, message):
    image = next(simulate(1, seed=4)).images[0]
    with pytest.raises(InputError, match=message):
        with_factor(image, path, value)
