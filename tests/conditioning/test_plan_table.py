from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import polars as pl
import pytest
from PIL import Image

from medphantom.cohorts.records import AttributeSpec
from medphantom.conditioning.plan_table import files_of, plan_table
from medphantom.conditioning.prompt import ConditionSchema, MaskSchema, Prompt, TextSchema
from medphantom.core.errors import InputError, MedphantomError, PromptError

SCHEMA = ConditionSchema(
    labels=("effusion", "mass"),
    attributes=(
        AttributeSpec(name="age", kind="continuous", low=20, high=90),
        AttributeSpec(name="sex", kind="categorical", categories=("F", "M")),
    ),
    reads=("labels", "text", "mask"),
    text=TextSchema(tokens=16),
    mask=MaskSchema(values={0: "background", 1: "fluid"}, size=(8, 8)),
)


def table(folder: Path, text: str) -> Path:
    path = folder / "prompts.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_every_column_is_read_and_empty_cells_state_nothing(tmp_path: Path) -> None:
    mask = np.zeros((8, 8), np.uint8)
    mask[:4] = 1
    Image.fromarray(mask).save(tmp_path / "m.png")
    plan = plan_table(
        table(
            tmp_path,
            "effusion,mass,age,sex,text,mask,count\n1,0,55,F,,,2\n,yes,,,a shadow,m.png,\n,,,,,,1\n",
        ),
        SCHEMA,
        seed=0,
    )
    prompts = [image.prompt for image in plan]
    first = Prompt(labels={"effusion": True, "mass": False}, attributes={"age": 55.0, "sex": "F"})
    assert prompts[:2] == [first, first]
    assert plan.images[0].seed != plan.images[1].seed
    assert prompts[2].labels == {"mass": True}
    assert prompts[2].text == "a shadow"
    assert np.array_equal(plan.masks[str(prompts[2].mask)], mask)
    assert prompts[3] == Prompt()


def test_parquet_and_volumes(tmp_path: Path) -> None:
    mask = np.zeros((4, 6, 8), np.uint8)
    mask[1, 2, 3] = 1
    nib.save(nib.Nifti1Image(mask.transpose(2, 1, 0), np.eye(4)), tmp_path / "m.nii.gz")
    pl.DataFrame({"effusion": [True, None], "age": [30.0, 40.0], "mask": ["m.nii.gz", None]}).write_parquet(
        tmp_path / "prompts.parquet"
    )
    plan = plan_table(tmp_path / "prompts.parquet", SCHEMA, seed=0)
    assert [image.prompt.attributes["age"] for image in plan] == [30.0, 40.0]
    assert np.array_equal(plan.masks[str(plan.images[0].prompt.mask)], mask)
    assert files_of(tmp_path / "prompts.parquet") == [tmp_path / "prompts.parquet", tmp_path / "m.nii.gz"]


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("efusion\n1\n", PromptError, r"prompts.csv: column 'efusion' is unknown .* did you mean 'effusion'"),
        ("effusion\n1\nmaybe\n", PromptError, r"prompts.csv row 2, effusion: 'maybe' is neither present nor absent"),
        ("age\nold\n", PromptError, r"row 1, age: 'old' is not a number"),
        ("age\n120\n", PromptError, r"row 1: age must be within 20…90"),
        ("sex\nD\n", PromptError, r"row 1: sex = 'D' is unknown"),
        ("effusion,count\n1,1.5\n", PromptError, r"row 1, count: '1.5' is not a count"),
        ("effusion,count\n1,0\n", InputError, r"requests no images"),
        ("mask\n../m.png\n", InputError, r"row 1: its mask is outside the folder of the table"),
        ("mask\nnone.png\n", InputError, r"row 1: its mask cannot be read"),
        ("a,b\n1\n1,2,3\n", InputError, r"cannot be read as a table of prompts"),
    ],
)
def test_bad_tables_are_one_line(tmp_path: Path, text: str, error: type[MedphantomError], message: str) -> None:
    with pytest.raises(error, match=message):
        plan_table(table(tmp_path, text), SCHEMA, seed=0)


def test_a_missing_table_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read as a table of prompts"):
        plan_table(tmp_path / "none.csv", SCHEMA, seed=0)


@pytest.mark.parametrize(
    "column",
    [
        pl.Series("age", [2**62], dtype=pl.Datetime("us")),  # beyond the calendar
        pl.Series("count", [2**60], dtype=pl.Duration("us")),
        pl.Series("age", [10**37], dtype=pl.Decimal(38, 0)),
        pl.Series("count", [2**63], dtype=pl.UInt64),
        pl.Series("count", [10**9]),  # a list of so many would take the machine's memory
    ],
)
def test_cells_beyond_what_a_type_holds_are_one_line(tmp_path: Path, column: pl.Series) -> None:
    pl.DataFrame([column]).write_parquet(tmp_path / "p.parquet")
    with pytest.raises(MedphantomError) as raised:
        plan_table(tmp_path / "p.parquet", SCHEMA, seed=0)
    assert "\n" not in str(raised.value)
