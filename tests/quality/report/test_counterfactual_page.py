"""The page of counterfactual pairs: it escapes, loads nothing, names who may see it, and its JSON names nobody."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medphantom.cohorts.pairs import ROLE, ROLES, pair_id
from medphantom.cohorts.preprocess import Preprocess
from medphantom.cohorts.records import AttributeSpec, CohortSchema, ImageRecord, Provenance
from medphantom.cohorts.store import Cohort
from medphantom.cohorts.writer import CohortWriter
from medphantom.core.errors import ArtifactError, InputError
from medphantom.quality.config import AssessConfig, ClassifierConfig
from medphantom.quality.counterfactual.scores import assess_counterfactuals
from medphantom.quality.report.counterfactual_page import PublishedCounterfactuals, write_counterfactual_report
from medphantom.quality.report.page import source_hash
from medphantom.quality.report.pair_pictures import BRIGHTER, DARKER, SAME, diverging, draw_edits, evenly
from medphantom.quality.report.write import INTERNAL_PAGE, JSON_FILE, RunFacts
from medphantom.quality.results.counterfactual_report import CounterfactualReport
from tests.quality.report.pages import Page

EVIL = "<script>alert(1)</script>"
QUOTES = """x" onload='y'"""
FOLDER = "/srv/hospital/john-doe"
FACTS = RunFacts(name=EVIL, created="2026-01-01T00:00:00+00:00", recipe={"assess": {"source": FOLDER}})
SPLITS = ("train", "val", "test", "test")
CONFIG = AssessConfig.quick(classifier=ClassifierConfig(steps=2, device="cpu"))


def cohorts(folder: Path, *, dims: int = 2, total: int = 120) -> tuple[Cohort, Cohort]:
    """Noise of which every ``test`` image has a counterfactual that is brighter in one corner."""
    rng, shape = np.random.default_rng(0), (16,) * dims
    attributes = (AttributeSpec(name=QUOTES, kind="categorical"), AttributeSpec(name="age", kind="continuous"))
    schema = CohortSchema(labels=(EVIL,), attributes=attributes, spatial_dims=dims)  # type: ignore[arg-type]
    with CohortWriter(folder / "real", schema) as writer:
        for n in range(total):
            writer.add(
                ImageRecord(
                    f"realimage{n:04d}",
                    f"realpatient{n:04d}",
                    rng.integers(0, 200, shape, dtype=np.uint8),
                    SPLITS[n % 4],
                    labels={EVIL: n // 4 % 2 == 0},
                    attributes={QUOTES: (EVIL, "b")[n // 8 % 2], "age": float(20 + n % 50)},
                )
            )
    real = Cohort.open(folder / "real")
    described = schema.model_copy(
        update={
            "kind": "counterfactual",
            "attributes": (*attributes, AttributeSpec(name=ROLE, kind="categorical")),
            "generation": {
                "source": real.digest,
                "preprocess": Preprocess(size=shape).model_dump(mode="json"),
                "intervention": {"labels": {EVIL: False}},
            },
        }
    )
    with CohortWriter(folder / "pairs", described) as writer:
        for record in real.records([row for row in real.rows("test") if real.labels([row])[0, 0] == 1]):
            for role in ROLES:
                pixels = record.pixels.copy()
                if role == "counterfactual":
                    pixels[(slice(0, 4),) * dims] += 50
                made = pixels.astype(np.int16) if role == "difference" else pixels
                labels = {EVIL: role not in {"counterfactual", "difference"}}
                writer.add(
                    ImageRecord(
                        pair_id(record.image_id, role),
                        record.patient,
                        made,
                        record.split,
                        labels=dict(labels),
                        attributes={**record.attributes, ROLE: role},
                        provenance=Provenance("0" * 64, "{}", 0),
                    )
                )
    return real, Cohort.open(folder / "pairs")


def written(folder: Path, *, dims: int = 2) -> tuple[Cohort, Cohort, CounterfactualReport]:
    real, pairs = cohorts(folder, dims=dims)
    report = assess_counterfactuals(real, pairs, CONFIG, folder / "work")
    write_counterfactual_report(report, real=real, pairs=pairs, facts=FACTS, out=folder / "out")
    return real, pairs, report


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    written(folder)
    return folder


def html(folder: Path) -> str:
    return (folder / "out" / INTERNAL_PAGE).read_text("utf-8")


def test_data_never_becomes_markup_and_nothing_is_loaded(folder: Path) -> None:
    text = html(folder)
    page = Page(text)
    assert page.wrong == []
    assert EVIL not in text
    assert any(EVIL in line for line in page.text)
    assert sum(tag == "script" for tag, _ in page.started) == 1
    for tag, attributes in page.started:
        assert tag not in {"link", "iframe", "object", "embed", "base", "form"}
        assert not any(name.startswith("on") or name == "style" for name in attributes)
        assert str(attributes.get("src", "data:")).startswith("data:")
    (policy,) = [a["content"] for _, a in page.started if a.get("http-equiv") == "Content-Security-Policy"]
    for tag in ("style", "script"):
        (source,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        assert f"{tag}-src '{source_hash(source)}'" in str(policy)


def test_the_page_says_who_may_see_it_and_can_be_read_aloud(folder: Path) -> None:
    text = html(folder)
    assert "Internal: shows real patients, do not share." in text
    assert "There is no public edition" in text
    page = Page(text)
    tags = [tag for tag, _ in page.started]
    assert tags.count("table") == tags.count("caption") > 0
    assert all(attributes.get("scope") for tag, attributes in page.started if tag == "th")
    assert all(attributes.get("alt") for tag, attributes in page.started if tag == "img" and "src" in attributes)
    ids = [attributes["id"] for _, attributes in page.started if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {(a.get("href") or "")[1:] for t, a in page.started if t == "a"} <= set(ids)
    assert sorted(path.name for path in (folder / "out").iterdir()) == [INTERNAL_PAGE, JSON_FILE]


def test_the_json_comes_back_and_names_nobody(folder: Path) -> None:
    text = (folder / "out" / JSON_FILE).read_text("utf-8")
    published = PublishedCounterfactuals.load(folder / "out" / JSON_FILE)
    assert published.quality.estimate("minimality").value is not None
    for secret in ("realimage", "realpatient", "base64", FOLDER, str(folder)):
        assert secret not in text
    bad = folder / "bad.json"
    bad.write_text(json.dumps({**json.loads(text), "kind": "public"}))
    with pytest.raises(ArtifactError, match="is not a report of counterfactuals"):
        PublishedCounterfactuals.load(bad)


def test_pairs_stand_side_by_side_and_the_difference_is_in_two_colours(folder: Path) -> None:
    real, pairs = Cohort.open(folder / "real"), Cohort.open(folder / "pairs")
    sheet = draw_edits(real, pairs, shown=5)
    assert (len(sheet.edits), sheet.total) == (5, 30)
    for edit in sheet.edits:
        assert edit.title == f"{EVIL} absent"
        difference = decoded(edit.difference.uri)
        assert (difference[:4, :4] == BRIGHTER).all()
        assert (difference[4:] == SAME).all()
        assert np.array_equal(decoded(edit.source.uri), decoded(edit.factual.uri))
    assert sheet.limit == pytest.approx(50 / 255 * 2)
    assert diverging(np.array([[-1.0, 0.0, 1.0]])).tolist() == [[list(DARKER), list(SAME), list(BRIGHTER)]]
    assert evenly(100, 5) == [0, 25, 50, 74, 99]
    assert evenly(3, 24) == [0, 1, 2]


def decoded(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))))


def test_volumes_show_three_slices_of_each(tmp_path: Path) -> None:
    written(tmp_path, dims=3)
    assert "three middle slices" in html(tmp_path)
    sheet = draw_edits(Cohort.open(tmp_path / "real"), Cohort.open(tmp_path / "pairs"), shown=2)
    assert decoded(sheet.edits[0].difference.uri).shape == (16, 50, 3)


def test_other_cohorts_than_the_scored_are_refused(folder: Path, tmp_path: Path) -> None:
    real, pairs, report = written(tmp_path / "a")
    other, _ = cohorts(tmp_path / "b", total=40)
    with pytest.raises(InputError, match="not the one that was scored"):
        write_counterfactual_report(report, real=other, pairs=pairs, facts=FACTS, out=tmp_path / "c")
    assert not (tmp_path / "c").exists()
    assert html(tmp_path / "a") == html(folder)  # equal input, equal bytes
    del real
