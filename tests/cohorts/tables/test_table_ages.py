"""Ages are read as people write them, and where they are capped no way of asking tells the oldest apart."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medphantom.cohorts.export import export_cohort
from medphantom.cohorts.options import IngestOptions
from medphantom.cohorts.tables.age_names import UNIT_WORDS, says_age, says_age_group, says_birth, unit_of_name
from medphantom.cohorts.tables.ages import is_range_of_ages, number_and_unit, youngest_of_open_age
from medphantom.cohorts.tables.table import Table
from medphantom.core.errors import InputError
from tests.cohorts.files import structure, take_in, write_png
from tests.cohorts.tables.written import read


def one_column(path: Path, header: str, cells: list[str], **options: object) -> Table:
    rows = "".join(f'{number}.png,"{cell}"\n' for number, cell in enumerate(cells))
    return read(path / "t.csv", f"image,{header}\n{rows}", **options)


def values(table: Table, name: str) -> list[object]:
    return [table.content(row).attributes[name] for row in range(len(table))]


@pytest.mark.parametrize("name", [
    "age", "AGE", "PatientAge", "patient_age", "age_at_scan", "AgeAtScan", "ageatdiagnosis", "age (years)", "Alter",
    "Patientenalter", "Altersgruppe", "Alter_bei_Aufnahme", "edad", "età", "a\u0302ge du patient", "возраст",
    "Возраст пациента", "年龄", "患者年龄", "age_months", "ageMonths", "age_group", "bone_age",
])  # fmt: skip
def test_names_that_say_age(name: str) -> None:
    assert says_age(name)


@pytest.mark.parametrize("name", [
    "image", "stage", "dosage", "percentage", "average", "page", "voltage", "coverage", "hemorrhage", "language",
    "Walter", "schalter", "alternate", "agent", "manager", "eta", "site", "tumour_stage", "ImageAgent",
])  # fmt: skip
def test_names_that_only_hold_the_letters_of_age(name: str) -> None:
    assert not says_age(name)


def test_units_groups_and_births_by_name() -> None:
    assert unit_of_name("age_months") == unit_of_name("AgeInMonths") == unit_of_name("Alter (Monate)") == 1 / 12
    assert unit_of_name("age_days") == pytest.approx(1 / 365.25)
    assert unit_of_name("age") is unit_of_name("age_years") is None
    assert all(map(says_age_group, ("age_group", "AgeGroup", "agegroup", "Altersklasse", "age band")))
    assert not any(map(says_age_group, ("age", "group", "blood group")))
    assert all(map(says_birth, ("dob", "BirthDate", "PatientBirthDate", "Geburtsdatum", "出生日期", "дата рождения")))
    assert not any(map(says_birth, ("adobe", "age", "site")))


@pytest.mark.parametrize("options", [{}, {"max_age": 89}])
def test_ages_with_units_are_ages(tmp_path: Path, options: dict[str, object]) -> None:
    cells = [
        "45 years",
        "45 y",
        "45 yr",
        "45 J.",
        "45 Jahre",
        "45,5 Jahre alt",
        "30 months",
        "45 years old",
        "45岁",
        "45",
    ]
    table = one_column(tmp_path, "age", cells, **options)
    assert [(spec.name, spec.kind, spec.unit) for spec in table.attributes] == [("age", "continuous", "years")]
    assert values(table, "age") == [45.0, 45.0, 45.0, 45.0, 45.0, 45.5, 2.5, 45.0, 45.0, 45.0]
    assert table.remarks() == []


@given(st.integers(0, 119), st.sampled_from([(word, size) for size, words in UNIT_WORDS.items() for word in words]))
def test_every_word_for_a_unit_is_read_with_and_without_space_and_point(number: int, unit: tuple[str, float]) -> None:
    word, size = unit
    for written in (f"{number} {word}", f"{number}{word}", f"{number} {word.upper()}.", f" {number} {word.title()} "):
        assert number_and_unit(written) == (str(number), size)
        assert not is_range_of_ages(written)
        assert youngest_of_open_age(written) is None


def test_the_oldest_are_equal_however_their_age_is_written(tmp_path: Path) -> None:
    cells = ["97 years", "97 J.", "97", "097Y", "90+ years", ">89 J.", "90 or older", "1164 months", "88 years"]
    assert values(one_column(tmp_path, "age", cells, max_age=89), "age") == [90.0] * 8 + [88.0]


def test_ranges_of_ages_are_not_stated_and_counted(tmp_path: Path) -> None:
    cells = ["90-100", "95–99 years", "[90, 100)", "90 bis 99", "61", "62"]
    table = one_column(tmp_path, "age", cells, max_age=89)
    assert values(table, "age") == [None] * 4 + [61.0, 62.0]
    assert table.remarks() == ["column 'age': 4 cells hold a range of ages such as 90-100 and are not stated"]
    assert values(one_column(tmp_path, "age", ["90-100", "abc"], max_age=89), "age") == [None, None]


@pytest.mark.parametrize("name", ["patient_age", "age_at_scan", "Alter", "возраст", "年龄", "PatientAge"])
@pytest.mark.parametrize("kind", ["", ":continuous"])
def test_every_name_of_an_age_is_capped(tmp_path: Path, name: str, kind: str) -> None:
    cells = ["97", "97 J.", "90-100", "x", "y", "1.5", "50"]
    table = one_column(tmp_path, name, cells, max_age=89, attributes=(name + kind,))
    assert [(spec.name, spec.kind, spec.unit) for spec in table.attributes] == [(name, "continuous", "years")]
    assert values(table, name) == [90.0, 90.0, None, None, None, 1.0, 50.0]


@pytest.mark.parametrize(
    "name", ["age", "patient_age", "Alter", "age_group", "Altersgruppe", "PatientBirthDate", "dob"]
)
def test_an_age_is_no_category_where_ages_are_capped(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=f"column '{name}' of .* max_age") as raised:
        one_column(tmp_path, name, ["97", "96", "95-99"], max_age=89, attributes=(f"{name}:categorical",))
    assert "95-99" not in str(raised.value)
    assert "\n" not in str(raised.value)
    kept = one_column(tmp_path, name, ["97", "96", "95-99"], attributes=(f"{name}:categorical",))
    assert values(kept, name) == ["97", "96", "95-99"]  # no cap was requested


def test_groups_of_ages_that_were_not_requested_are_not_used_where_ages_are_capped(tmp_path: Path) -> None:
    table = one_column(tmp_path, "attr:age_group", ["90-100", "80-89"], max_age=89)
    assert table.attributes == ()
    assert any("says ages in groups, which max_age cannot cap: it is not used" in line for line in table.remarks())


def test_ages_are_no_labels_where_they_are_capped(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"column 'age' of .* says ages, which max_age caps, and they are no labels"):
        one_column(tmp_path, "age", ["97", "96"], max_age=89, label_columns=("age",))
    rows = "image,age_97,mass,edema\na.png,1,0,1\nb.png,0,1,0\n"
    assert read(tmp_path / "t.csv", rows, max_age=89).labels == ("mass", "edema")


@pytest.mark.parametrize("options", [{}, {"max_age": 89}])
def test_months_and_days_become_years(tmp_path: Path, options: dict[str, object]) -> None:
    months = one_column(tmp_path, "age_months", ["540", "30", "6 years"], attributes=("age_months",), **options)
    assert values(months, "age") == [45.0, 2.5, 6.0]
    assert months.attributes[0].unit == "years"
    assert months.remarks() == [
        "column 'age_months': its unit is converted into years",
        "column 'age_months': its ages are in years and called 'age'",
    ]
    days = one_column(tmp_path, "age_days", ["7305"], attributes=("age_days",), **options)
    assert values(days, "age") == [20.0]
    oldest = one_column(tmp_path, "age_months", ["1164", "1099"], attributes=("age_months",), max_age=89)
    assert values(oldest, "age") == [90.0, 90.0]


def test_a_name_that_another_attribute_has_is_not_given_twice(tmp_path: Path) -> None:
    path, rows = tmp_path / "t.csv", "image,age,age_months,bone_age_months\na.png,4,60,48\n"
    table = read(path, rows, attributes=("age_months", "age", "bone_age_months"))
    assert table.content(0).attributes == {"age": 4.0, "age_years": 5.0, "bone_age": 4.0}


def test_years_are_published_and_exported_under_a_name_that_is_true(tmp_path: Path) -> None:
    for number in range(4):
        write_png(tmp_path / "s" / f"{number}.png", structure(number))
    (tmp_path / "s" / "t.csv").write_text("image,age_months\n0.png,120\n1.png,132\n2.png,144\n3.png,6\n")
    cohort = take_in(tmp_path / "s", tmp_path / "c", attributes=("age_months",)).cohort
    assert [spec.name for spec in cohort.schema.attributes] == ["age"]
    export_cohort(cohort, tmp_path / "e")
    exported = pl.read_csv(tmp_path / "e" / "metadata.csv")
    assert [column for column in exported.columns if "age" in column and column != "image_id"] == ["attr:age"]
    again = take_in(tmp_path / "e", tmp_path / "d").cohort
    for found in (exported["attr:age"].to_list(), cohort.attribute("age"), again.attribute("age")):
        assert sorted(found) == [0.5, 10.0, 11.0, 12.0]
    old = exported.rename({"attr:age": "attr:age_months"})  # as exports were called that hold years
    old.write_csv(tmp_path / "e" / "metadata.csv")
    assert sorted(take_in(tmp_path / "e", tmp_path / "f").cohort.attribute("age")) == [0.5, 10.0, 11.0, 12.0]


def test_a_cohort_of_capped_ages_holds_no_older_one(tmp_path: Path) -> None:
    for number in range(4):
        write_png(tmp_path / "s" / f"{number}.png", structure(number))
    (tmp_path / "s" / "t.csv").write_text("image,Alter\n0.png,97 J.\n1.png,90-100\n2.png,61 J.\n3.png,93\n")
    options = {"attributes": ("Alter",), "max_age": 89}
    cohort = take_in(tmp_path / "s", tmp_path / "c", **options).cohort
    assert sorted(cohort.attribute("Alter"), key=str) == [61.0, 90.0, 90.0, None]
    with pytest.raises(InputError, match="column 'Alter'"):
        take_in(tmp_path / "s", tmp_path / "d", **{**options, "attributes": ("Alter:categorical",)})


def test_what_only_says_age_keeps_its_numbers_where_nothing_is_capped(tmp_path: Path) -> None:
    table = one_column(tmp_path, "bone_age", ["180", "94"], attributes=("bone_age",))
    assert values(table, "bone_age") == [180.0, 94.0]  # months, in the best-known table of bone ages
    assert IngestOptions().max_age is None


@pytest.mark.parametrize(
    "name",
    ["életkor", "umur", "возр.", "Lebensjahr", "años", "anos", "yrs", "Years", "wiek", "vek", "věk", "ikä", "ålder",
     "yaş", "tuổi", "나이", "年龄", "年齢", "usia", "Alter", "edad_paciente"],
)  # fmt: skip
def test_ages_of_any_language_are_capped(tmp_path: Path, name: str) -> None:
    table = one_column(tmp_path, name, ["95", "97", "30", "41"], max_age=89, attributes=(name,))
    assert values(table, table.attributes[0].name) == [90.0, 90.0, 30.0, 41.0]


@pytest.mark.parametrize(
    "name", ["Jahrgang", "yob", "birth year", "YearOfBirth", "rok_urodzenia", "födelseår", "data_nasc", "doğum yılı"]
)
def test_years_of_birth_of_any_language_are_refused_where_ages_are_capped(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="says when people were born"):
        one_column(tmp_path, name, ["1930", "1931", "1990", "1985"], max_age=89, attributes=(name,))


@pytest.mark.parametrize("name", ["pack_years", "years_smoking", "year", "veka", "sensor", "canos"])
def test_years_of_something_are_no_ages(name: str) -> None:
    assert not says_age(name)
    assert not says_birth(name)


def test_a_letter_for_a_sex_is_no_unit(tmp_path: Path) -> None:
    table = one_column(tmp_path, "age", ["45M", "32F", "51 m", "60", "12 months"])
    assert values(table, "age") == [None, None, None, 60.0, 1.0]
    assert table.remarks() == [
        "column 'age': 3 cells hold a number with a letter for a sex, such as 45M beside 32F, and are not stated"
    ]
    assert values(one_column(tmp_path, "age", ["6M", "30Y", "9M", "60"]), "age") == [0.5, 30.0, 0.75, 60.0]


def test_points_that_are_proven_to_separate_thousands_are_no_decimal_ones(tmp_path: Path) -> None:
    cells = ["1.234.567", "1.007", "100", "3.021", *map(str, range(200, 240))]
    table = one_column(tmp_path, "volume", cells, attributes=("volume:continuous",))
    assert values(table, "volume") == [None, None, 100.0, None, *map(float, range(200, 240))]
    assert values(one_column(tmp_path, "volume", ["1.007", "100"], attributes=("volume",)), "volume") == [1.007, 100.0]
