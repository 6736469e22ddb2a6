"""Values that must never change: whoever ingests a cohort again, or withdraws a patient, relies on them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from pydantic import ValidationError

from medphantom.cohorts.identity import IdentityKey, SplitFractions
from medphantom.cohorts.manifest import cohort_digest, row_hash
from medphantom.cohorts.records import SPLITS, CohortSchema, Split
from medphantom.core.errors import InputError
from medphantom.core.folders import canonical_json, file_digest, json_digest, pixel_digest
from tests.cohorts.files import take_in, write_png

# printf 'patient\0patient 1' | openssl dgst -sha256 -mac HMAC -macopt hexkey:000102…1f
KEY = IdentityKey(bytes(range(32)))
NAMES = (  # patient id, its pseudonyms as patient, study and image, and its split
    ("patient 1", "4ea3b4dcf43ce828", "3f35b2ddbaa8853f", "9e524f4b03cccbc3", "train"),
    ("patient 2", "1b9b7dfc979d93e2", "540f613fed235592", "fb8185896c79499e", "train"),
    ("patient 3", "a7ee7650fcdcd808", "56a89058e10471ad", "49a60f20ef9f3ba5", "test"),
    ("patient 4", "d580b59d242b5665", "cd7e9e1896e62b37", "5dccefa773705a71", "test"),
    ("patient 5", "ae6ac8b00ffbde61", "b1e1b0fc905433e3", "fba056f19476e10a", "holdout"),
    ("patient 6", "4550224a3fa989a2", "9310a71776765140", "a6dbf201217b813d", "val"),
    ("patient 7", "01a25ca7b0a268de", "09fadc47f0d426d2", "ddbb064cd6ffaeb6", "test"),
    ("patient 9", "27eb8b7b208876db", "6c4c97dbad20ced4", "516690befa6edce6", "val"),
    ("Müller", "e6604c63818d058d", "4c5ff864d8652eb9", "6eaf09291a878e2a", "holdout"),
    ("\udcff", "ff2cbb74cee11958", "778b0d510309cc90", "acad9981a9e52338", "train"),  # of a name that is no UTF-8
    ("", "3e1b6e48c6a36338", "2781ea7ff0694716", "458e2cfea57ee7b5", "train"),
)
POINT_OF_PATIENT_1 = 0.27985011840503504  # its place between 0 and 1, of which the first 60 % are train


@pytest.mark.parametrize(("value", "patient", "study", "image", "split"), NAMES)
def test_a_known_key_gives_known_pseudonyms_and_splits(
    value: str, patient: str, study: str, image: str, split: Split
) -> None:
    assert KEY.pseudonym("patient", value) == patient
    assert KEY.pseudonym("study", value) == study
    assert KEY.pseudonym("image", value) == image
    assert KEY.split(value, SplitFractions()) == split


def test_shares_and_their_order_are_those_that_cohorts_were_divided_by() -> None:
    assert SPLITS == ("train", "val", "holdout", "test")
    assert SplitFractions().model_dump() == {"train": 0.6, "val": 0.1, "holdout": 0.1, "test": 0.2}


def test_a_patient_exactly_on_the_border_lies_behind_it() -> None:
    def split(train: float) -> Split:
        return KEY.split("patient 1", SplitFractions(train=train, val=0.5, holdout=0.0, test=0.5 - train))

    assert split(POINT_OF_PATIENT_1) == "val"
    assert split(np.nextafter(POINT_OF_PATIENT_1, 1)) == "train"


def test_what_rounding_leaves_over_lies_in_a_split_that_has_a_share() -> None:
    short = {"train": 0.1, "val": 0.1, "holdout": 0.0}  # sums to less than the place of the patient
    assert KEY.split("patient 1", SplitFractions.model_construct(**short, test=0.0)) == "train"
    assert KEY.split("patient 1", SplitFractions.model_construct(**short, test=0.01)) == "test"


@pytest.mark.parametrize(("excess", "fits"), [(9.7e-10, True), (-9.7e-10, True), (1.05e-9, False), (-1.05e-9, False)])
def test_shares_sum_to_one_within_a_billionth(excess: float, fits: bool) -> None:
    if fits:
        assert SplitFractions(test=0.2 + excess).test == 0.2 + excess
    else:
        with pytest.raises(ValidationError, match="sum to 1"):
            SplitFractions(test=0.2 + excess)


def test_a_share_may_be_nothing_and_not_less() -> None:
    assert SplitFractions(train=0.7, val=0.1, holdout=0.0, test=0.2).holdout == 0
    with pytest.raises(ValidationError, match="≥ 0"):
        SplitFractions(train=0.7, val=0.1 + 1e-6, holdout=-1e-6, test=0.2)


def test_a_phrase_gives_a_known_key() -> None:
    digits = IdentityKey.from_phrase("tests").secret.hex()
    assert digits == "ac752abcfdd1d77f9fb96d915c0285baf8341e180b1b7b1d4629de4f6e2f97f5"


def test_a_key_is_32_bytes_at_least_and_its_folder_is_made(tmp_path: Path) -> None:
    made = IdentityKey.load_or_create(tmp_path / "several" / "folders" / "identity.key")
    assert len(made.secret) == 32
    for digits, fits in ((62, False), (64, True), (66, True)):
        (tmp_path / "k").write_text("0" * digits)
        if fits:
            assert IdentityKey.load(tmp_path / "k").secret == bytes(digits // 2)
        else:
            with pytest.raises(InputError, match="give a file of 64 hexadecimal digits"):
                IdentityKey.load(tmp_path / "k")


def test_repr_of_a_key_shows_nothing_of_it() -> None:
    assert repr(KEY) == "IdentityKey(…)"


def test_an_ingested_image_has_the_names_that_its_path_and_its_patient_give(tmp_path: Path) -> None:
    """Key of the phrase *tests*: ids of images are of path and frame, pseudonyms of the id in the table."""
    for number in range(3):
        write_png(tmp_path / "s" / f"{number}.png", np.indices((32, 32)).sum(axis=0).astype(np.uint8) * (number + 1))
    (tmp_path / "s" / "t.csv").write_text("image,patient_id,study_id\n0.png,A,S1\n1.png,B,S2\n2.png,B,S2\n")
    result = take_in(tmp_path / "s", tmp_path / "c", near_duplicates="off")
    links = pl.read_parquet(result.private_folder / "links.parquet").filter(pl.col("role") == "image").sort("path")
    assert links.select("path", "image_id", "patient_id", "patient").rows() == [
        ("0.png", "bf3dc008be9e5f58", "A", "3bc1cb90204707ea"),
        ("1.png", "a3ea52b3340d69b9", "B", "ca6c2be7eedf8409"),
        ("2.png", "cb4dfd2ad07dfb58", "B", "ca6c2be7eedf8409"),
    ]
    manifest = result.cohort.manifest
    assert sorted(manifest.select("image_id", "patient", "study", "split").rows()) == [
        ("a3ea52b3340d69b9", "ca6c2be7eedf8409", "e98cb20857e4be7c", "train"),
        ("bf3dc008be9e5f58", "3bc1cb90204707ea", "6a285d00337d88e2", "test"),
        ("cb4dfd2ad07dfb58", "ca6c2be7eedf8409", "e98cb20857e4be7c", "train"),
    ]


# ---- digests ----


def test_digests_of_values_pixels_and_files(tmp_path: Path) -> None:
    assert canonical_json({"b": [1, 2.5, None], "a": "ü"}) == '{"a":"ü","b":[1,2.5,null]}'
    assert (
        json_digest({"b": [1, 2.5, None], "a": "ü"})
        == "91ff63a7ddb19a1b9c7a2e722d40ba9baba03223f291c89743abfd71bb743cb5"
    )
    pixels = np.arange(6, dtype=np.uint16).reshape(2, 3)
    assert pixel_digest(pixels) == pixel_digest(pixels.astype(">u2")) == pixel_digest(np.asfortranarray(pixels))
    assert pixel_digest(pixels) == "38d571a55af8be5fce1924ce7bf3d7b701d907647136993dead56241ff8acfbb"
    (tmp_path / "f").write_bytes(b"abc")
    assert file_digest(tmp_path / "f") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_digests_of_rows_and_cohorts() -> None:
    rows = [row_hash({"image_id": name, "patient": "p", "age": 3.0}) for name in "ab"]
    assert rows[0].hex() == "e00d6e36712807fc811b01297ab7f0484967944c12a307aa35514f7b73ed14c2"
    now = "627dd8274576e4e688eca3e57e62ec00d5808c470b4cfc8b3d8c9c2ff4144070"
    first = "b94be08424adfb18d50e0de86b4d58e50517722985fb7f3cdcf390caf1ae8569"
    for schema, expected in (
        (CohortSchema(labels=("mass",)), now),
        (CohortSchema(labels=("mass",), format_version=1), first),
    ):
        assert cohort_digest(schema, rows) == cohort_digest(schema, rows[::-1]) == expected
