"""No privacy is promised on top of a fit that was not private, however the cohort or the base is renamed."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from medphantom.cohorts.export import export_cohort
from medphantom.cohorts.identity import IdentityKey
from medphantom.cohorts.ingest import ingest
from medphantom.cohorts.options import IngestOptions
from medphantom.cohorts.preprocess import Preprocess
from medphantom.cohorts.store import Cohort
from medphantom.core.errors import BundleError, InputError
from medphantom.core.folders import file_digest, read_json, write_json
from medphantom.generators.bundle import GeneratorBundle
from medphantom.generators.facts import read_facts
from medphantom.learning.accounting import epsilon_of
from tests.generators.stable_tiny import make_pipeline
from tests.generators.test_private import private, trained
from tests.generators.tiny import KEY, make_cohort, quick_generator, tiny_config

OTHER_KEY = IdentityKey(hashlib.sha256(b"another hospital").digest())
FEW_STEPS = {name: {**fit, "steps": 4} for name, fit in quick_generator().items() if name.endswith("_fit")}


def refused(base: Path, cohort: Cohort, preprocess: Preprocess, folder: Path, message: str, **changes: Any) -> None:
    with pytest.raises(InputError, match=message):
        trained(cohort, preprocess, private(base, **changes), folder)
    assert not (folder / "bundle").exists()


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_base_of_the_same_cohort(
    cohort: Cohort, preprocess: Preprocess, bundle_folder: Path, tmp_path: Path, method: str
) -> None:
    message = "was trained on this cohort without privacy; start from a base"
    refused(bundle_folder, cohort, preprocess, tmp_path, message, tuning={"method": method, "rank": 2})


def test_a_base_of_some_of_the_same_patients(preprocess: Preprocess, other_base: Path, tmp_path: Path) -> None:
    """Eight images more change the digest of the rows, and leave the patients."""
    more = make_cohort(tmp_path / "cohort", seed=7, patients="q", total=104)
    refused(other_base, more, preprocess, tmp_path, r"was trained on \d+ patients of this cohort without privacy")


def test_the_base_of_a_base(cohort: Cohort, preprocess: Preprocess, bundle_folder: Path, tmp_path: Path) -> None:
    others = make_cohort(tmp_path / "others", seed=7, patients="q")
    config = tiny_config(init_from=str(bundle_folder), **FEW_STEPS)
    trained(others, preprocess, config, tmp_path / "between")
    between = tmp_path / "between" / "bundle"
    refused(between, cohort, preprocess, tmp_path / "private", "was trained on this cohort without privacy")


def test_the_same_images_under_other_names(preprocess: Preprocess, other_base: Path, tmp_path: Path) -> None:
    renamed = make_cohort(tmp_path / "cohort", seed=7, patients="renamed")
    refused(other_base, renamed, preprocess, tmp_path, r"was trained on \d+ (images|patients) of this cohort")


def test_an_export_that_is_read_again(preprocess: Preprocess, other_base: Path, tmp_path: Path) -> None:
    source = make_cohort(tmp_path / "source", seed=7, patients="q")
    export_cohort(source, tmp_path / "export", values="source")
    again = ingest(tmp_path / "export", tmp_path / "again", IngestOptions(workers=0), KEY).cohort
    refused(other_base, again, preprocess, tmp_path, r"was trained on \d+ images of this cohort without privacy")


def test_another_identity_key_cannot_be_compared(preprocess: Preprocess, other_base: Path, tmp_path: Path) -> None:
    rekeyed = make_cohort(tmp_path / "cohort", seed=7, patients="r", key=OTHER_KEY)
    message = "on patients under another identity key, so it cannot be determined .*; ingest both cohorts under one"
    refused(other_base, rekeyed, preprocess, tmp_path, message)


def test_a_cohort_without_origin_cannot_be_compared(preprocess: Preprocess, other_base: Path, tmp_path: Path) -> None:
    unrecorded = make_cohort(tmp_path / "cohort", seed=3, key=None)
    refused(other_base, unrecorded, preprocess, tmp_path, "this cohort does not record its identity key")


def test_a_base_of_public_images_is_compared_by_image(cohort: Cohort, preprocess: Preprocess, tmp_path: Path) -> None:
    """Images that were called public are found again, whatever the key of the private cohort."""
    public = make_cohort(tmp_path / "public", patients="s", key=IdentityKey.from_phrase("public images"))
    trained(public, preprocess, tiny_config(**FEW_STEPS), tmp_path / "base")
    base = tmp_path / "base" / "bundle"
    refused(base, cohort, preprocess, tmp_path, r"was trained on \d+ images of this cohort without privacy")
    others = make_cohort(tmp_path / "others", seed=5)
    promised = trained(others, preprocess, private(base), tmp_path / "private").facts.privacy
    assert promised.formal.endswith(
        "per patient, provided that its base was not trained on any of them under other names"
    )
    assert promised.conditions == ("its base was not trained on any of them under other names",)


def test_a_bundle_that_does_not_say(cohort: Cohort, preprocess: Preprocess, other_base: Path, tmp_path: Path) -> None:
    """As bundles of older versions."""
    found = GeneratorBundle.load(other_base)
    silent = found.facts.model_copy(update={"lineage": None})
    GeneratorBundle(silent, found.autoencoder, found.denoiser, found.training).save(tmp_path / "old")
    message = "does not declare the patients on whom it was trained, .*; train it again with this version"
    refused(tmp_path / "old", cohort, preprocess, tmp_path, message)


def test_a_bundle_that_was_silenced_by_hand_is_damaged(other_base: Path, tmp_path: Path) -> None:
    shutil.copytree(other_base, tmp_path / "base")
    facts = read_json(tmp_path / "base" / "bundle.json")
    facts["lineage"]["learned"] = []
    write_json(tmp_path / "base" / "bundle.json", facts)
    digests = read_json(tmp_path / "base" / "digest.json")
    digests["files"]["bundle.json"] = file_digest(tmp_path / "base" / "bundle.json")
    write_json(tmp_path / "base" / "digest.json", digests)
    for read in (read_facts, GeneratorBundle.load):
        with pytest.raises(BundleError, match="does not have the digest that it was published under"):
            read(tmp_path / "base")


def test_a_stronger_promise_of_the_same_length_is_not_read_from_the_description_alone(
    other_base: Path, tmp_path: Path
) -> None:
    """What the report, ``lineage`` and ``compare`` read, without the weights."""
    shutil.copytree(other_base, tmp_path / "base")
    file = tmp_path / "base" / "bundle.json"
    text = file.read_text()
    forged = text.replace('"no formal guarantee"', '"(1, 0)-differential"')
    assert forged != text
    assert len(forged) == len(text)
    file.write_text(forged)
    with pytest.raises(BundleError, match=r"bundle\.json does not describe a generator"):
        read_facts(tmp_path / "base")
    file.write_text(text.replace('"intended_use": "', '"intended_use": "x', 1))
    with pytest.raises(BundleError, match=r"bundle\.json or training\.json is truncated or was altered"):
        read_facts(tmp_path / "base")


def test_budgets_of_private_bases_add_up_and_no_patient_of_theirs_is_named(
    cohort: Cohort, preprocess: Preprocess, other_base: Path, tmp_path: Path
) -> None:
    first = trained(cohort, preprocess, private(other_base), tmp_path / "first").facts
    second = trained(cohort, preprocess, private(tmp_path / "first" / "bundle"), tmp_path / "second").facts
    one, both = first.privacy.guarantee, second.privacy.guarantee
    assert one is not None
    assert both is not None
    assert both.parts[0] == one.parts[0]
    assert both.epsilon == pytest.approx(epsilon_of(one.parts * 2, both.delta), rel=0.01)
    assert read_facts(tmp_path / "second" / "bundle")[0] == second
    assert both.own_epsilon == pytest.approx(one.epsilon, rel=0.01)
    assert one.own_epsilon is None
    assert 1.2 * one.epsilon < both.epsilon < 2 * one.epsilon
    assert both.attack_auroc > one.attack_auroc
    base, _ = read_facts(other_base)
    for facts, private_fits in ((first, 1), (second, 2)):
        assert base.lineage is not None
        assert facts.lineage is not None
        assert facts.lineage.learned == base.lineage.learned  # who were promised nothing; these patients are not named
        assert len(facts.lineage.private) == private_fits


def test_marks_tell_nothing_without_the_secret(cohort: Cohort, bundle_folder: Path) -> None:
    text = (bundle_folder / "bundle.json").read_text()
    assert cohort.schema.origin is not None
    assert cohort.schema.origin.secret not in text
    for column in ("patient", "digest"):
        assert not [value for value in cohort.manifest[column].to_list() if value in text]
    (learned,) = json.loads(text)["lineage"]["learned"]
    assert len(learned["images"]) == len(cohort.rows("train")) + len(cohort.rows("val"))


def test_foreign_weights_put_their_condition_into_the_claim(
    tmp_path: Path, cohort: Cohort, preprocess: Preprocess
) -> None:
    conditioning = {"labels": False, "text": {"written_by": "templates", "paraphrases": 2}}
    config = private(make_pipeline(tmp_path / "base"), tuning={"method": "lora", "rank": 2}, conditioning=conditioning)
    promised = trained(cohort, preprocess, config, tmp_path).facts.privacy
    assert promised.formal.endswith(
        "-differential privacy per patient, provided that its Stable Diffusion base was not trained on any of "
        "these patients, which it does not declare"
    )


def test_the_arm_without_noise_is_promised_nothing_and_is_no_way_around(
    cohort: Cohort, preprocess: Preprocess, bundle_folder: Path, tmp_path: Path
) -> None:
    bundle = trained(cohort, preprocess, private(bundle_folder, privacy={"epsilon": None}), tmp_path)
    assert bundle.facts.privacy.formal == "no formal guarantee"
    refused(tmp_path / "bundle", cohort, preprocess, tmp_path / "on", "was trained on this cohort without privacy")
