"""The report: what it may show to whom, that it stands alone, and that it is written whole or not at all."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medphantom.cohorts.preprocess import Percentile, Preprocess, Window, network_images
from medphantom.cohorts.records import SPLITS, AttributeSpec, CohortSchema, ImageRecord, Provenance
from medphantom.cohorts.store import Cohort
from medphantom.cohorts.writer import CohortWriter
from medphantom.core.errors import ArtifactError, InputError, ResourceError
from medphantom.core.records import Array
from medphantom.quality.report import write as report_module
from medphantom.quality.report.charts import histogram_chart, log_ticks, score_bar, ticks
from medphantom.quality.report.page import flattened, source_hash
from medphantom.quality.report.pictures import Drawer, draw_grids, flatten, png_uri
from medphantom.quality.report.selection import choose
from medphantom.quality.report.write import (
    HIDDEN,
    INTERNAL_PAGE,
    JSON_FILE,
    PUBLIC_PAGE,
    PublishedReport,
    RunFacts,
    write_report,
)
from medphantom.quality.results.quality_report import (
    AttackResult,
    ControlKind,
    CopyPValues,
    CopySummary,
    LabelAgreement,
    MembershipSummary,
    NearestPair,
    QualityReport,
    SimilarityHistogram,
)
from medphantom.quality.stats.estimate import Estimate, number
from tests.quality.report.pages import Page

EVIL = "<script>alert(1)</script>"
QUOTES = """x" onload='y'"""
LABELS = ("hand", EVIL, QUOTES)
LOCAL_FOLDER = "/srv/hospital/john-doe"
FILES = (INTERNAL_PAGE, PUBLIC_PAGE, JSON_FILE)


def _cohorts(folder: Path, *, spatial_dims: int = 2, exclusive: bool = True) -> tuple[Cohort, Cohort]:
    rng = np.random.default_rng(5)
    shape = (12,) * spatial_dims
    attributes = (AttributeSpec(name=QUOTES, kind="categorical"), AttributeSpec(name="age", kind="continuous"))
    schema = CohortSchema(labels=LABELS, exclusive=exclusive, attributes=attributes, spatial_dims=spatial_dims)
    with CohortWriter(folder / "real", schema) as real:
        for place in range(48):
            stated: dict[str, bool | None] = {name: place % 3 == k for k, name in enumerate(LABELS)}
            if not exclusive and place // 2 % 8 == 3:  # both images of some test patients
                stated = dict.fromkeys(LABELS, False)
            real.add(
                ImageRecord(
                    image_id=f"realimage{place:04d}",
                    patient=f"realpatient{place // 2:04d}",
                    pixels=rng.integers(0, 256, shape, dtype=np.uint8),
                    split=SPLITS[place // 2 % 4],
                    labels=stated,
                    attributes={QUOTES: EVIL, "age": 50.0},
                )
            )
    with CohortWriter(folder / "synthetic", schema.model_copy(update={"kind": "synthetic"})) as made:
        for place in range(30):
            made.add(
                ImageRecord(
                    image_id=f"made{place:04d}",
                    patient=f"made{place:04d}",
                    pixels=rng.integers(0, 256, shape, dtype=np.uint8),
                    split="synthetic",
                    labels={name: place % 3 == k for k, name in enumerate(LABELS)},
                    attributes={QUOTES: EVIL, "age": 60.0},
                    provenance=Provenance("b" * 64, "{}", 2**60 + place),
                )
            )
    return Cohort.open(folder / "real"), Cohort.open(folder / "synthetic")


def _estimate(name: str = "frechet", **changes: object) -> Estimate:
    usual = {
        "name": name,
        "estimand": f"expected {EVIL}",
        "value": 3.2,
        "interval": (2.8, 3.9),
        "method": QUOTES,
        "n_synthetic": 30,
        "n_real": 12,
        "floor": 2.0,
        "floor_interval": (1.5, 2.4),
    }
    return Estimate.model_validate({**usual, **changes})


def _report(
    real: Cohort, synthetic: Cohort, verdict: str = "screened", flagged: tuple[int, ...] = (3,)
) -> QualityReport:
    train, holdout = real.rows("train"), real.rows("holdout")
    pairs = tuple(
        NearestPair(
            synthetic_row=row,
            synthetic_id=synthetic.manifest["image_id"][row],
            train_row=train[row],
            train_id=real.manifest["image_id"][train[row]],
            train_similarity=0.9,
            holdout_row=holdout[row],
            holdout_id=real.manifest["image_id"][holdout[row]],
            holdout_similarity=0.5,
            flagged=row in flagged,
        )
        for row in (3, 4, 5)
    )
    copies = CopySummary.model_validate(
        {
            "verdict": verdict,
            "reasons": (EVIL,),
            "share_nearest_in_train": (_estimate("share_nearest_in_train", value=0.5, interval=(0.4, 0.6)),),
            "flagged_share": _estimate("flagged_share", value=0.03, interval=(0.0, 0.1)),
            "results": (CopyPValues(by=EVIL, single_p_value=None, dcr_share_p_value=0.3),),
            "controls": (
                ControlKind(
                    kind=EVIL,
                    core=True,
                    covered=True,
                    recall=_estimate("control_recall", value=0.95, interval=(0.8, 1.0), floor=None),
                    fewest=2,
                ),
                ControlKind(kind=QUOTES, core=False, covered=False, recall=None, fewest=None),
            ),
            "least_recall": 0.8,
            "significance": 0.02,
            "flagged_rows": flagged,
            "total_flagged": len(flagged),
            "blind_spots": (EVIL,),
            "histogram": SimilarityHistogram(edges=(0.0, 0.5, 1.0), train=(20, 10), holdout=(21, 9)),
        }
    )
    return QualityReport.model_validate(
        {
            "real_digest": real.digest,
            "synthetic_digest": synthetic.digest,
            "config_digest": "c" * 64,
            "seed": 1,
            "real_counts": {split: len(real.rows(split)) for split in SPLITS},
            "real_patients": {split: len(set(real.patients(real.rows(split)))) for split in SPLITS},
            "synthetic_count": len(synthetic),
            "verdict": verdict,
            "verdict_reasons": (EVIL,),
            "estimates": (
                _estimate(network="filters"),
                _estimate(network="filters", label=EVIL),
                _estimate("recall", value=None, interval=None, refused=f"12 images {EVIL}"),
            ),
            "details": tuple(_estimate(network=QUOTES, value=value) for value in (3.0, 3.5)),
            "agreement": LabelAgreement(
                per_label=(_estimate("label_agreement", value=0.97, interval=(0.9, 1.0), label=EVIL),),
                labels=LABELS,
                confusion=((9, 1, 0), (0, 10, 0), (2, 0, 8)),
            ),
            "copies": copies,
            "membership": MembershipSummary(
                results=(
                    AttackResult(
                        attack=EVIL,
                        target="images",
                        auroc=_estimate("membership_auroc", value=0.52, interval=(0.4, 0.6), label=EVIL),
                        tpr=(_estimate("membership_tpr", value=None, interval=None, refused=EVIL),),
                        curve=((0.0, 0.0), (0.4, 0.5), (1.0, 1.0)),
                        bound=0.7,
                        limit=0.7,
                        limited_by="guarantee",
                        flagged=False,
                    ),
                ),
                blind=_estimate("membership_blind", value=0.5, interval=(0.4, 0.6)),
                disclosure=(_estimate("disclosure_gain", value=0.01, interval=(-0.1, 0.1), label=EVIL),),
                reasons=(),
                weights_reasons=(EVIL,),
                gaps=(EVIL,),
            ),
            "nearest": pairs,
            "utility": ({"trained_on": "synthetic", "estimate": _estimate("utility", value=0.7, label=EVIL)},),
            "warnings": (f"{EVIL} has 4 test images",),
        }
    )


def _facts() -> RunFacts:
    return RunFacts(
        name=f"run {EVIL}",
        created="2026-01-02T03:04:05+00:00",
        recipe={"cohort": {"source": "relative/place", "again": LOCAL_FOLDER, EVIL: QUOTES}, "network": "a/hub-id"},
        digests={"bundle": "d" * 64},
        versions={"torch": "2"},
        machine={"cpu": QUOTES, "cores": 2},
        seeds={"run": 3},
        timings_s={"train": 125.4},
        curves=tuple(
            {
                "stage": EVIL,
                "step": step,
                "loss": 1 / step,
                "train_loss": 1 / step,
                "val_loss": 2 / step,
                "gap": 1 / step,
            }
            for step in range(10, 60, 10)
        ),
        intended_use=EVIL,
        privacy=f"none {EVIL}",
        outside=(f"labels of {EVIL}",),
        assumptions=(EVIL,),
    )


def _write(folder: Path, verdict: str = "screened", **shape: int) -> tuple[Cohort, Cohort, QualityReport, Path]:
    real, synthetic = _cohorts(folder, **shape)  # type: ignore[arg-type]  # only spatial_dims is passed
    report = _report(real, synthetic, verdict)
    out = folder / "run"
    write_report(
        report,
        real=real,
        synthetic=synthetic,
        preprocess=Preprocess(size=(12,) * real.schema.spatial_dims),
        facts=_facts(),
        out=out,
    )
    return real, synthetic, report, out


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Cohort, Cohort, QualityReport, Path]:
    return _write(tmp_path_factory.mktemp("report"))


def _pages(out: Path) -> list[tuple[str, str]]:
    return [(name, (out / name).read_text("utf-8")) for name in (INTERNAL_PAGE, PUBLIC_PAGE)]


def _pictures(html: str) -> set[bytes]:
    """Pixels of every picture of a page."""
    found = re.findall(r"data:[^,\"']*,([A-Za-z0-9+/=]*)", html)
    return {np.asarray(Image.open(io.BytesIO(base64.b64decode(text)))).tobytes() for text in found}


def _rendered(cohort: Cohort, rows: list[int], size: tuple[int, ...]) -> set[bytes]:
    images: Array = network_images(cohort, rows, Preprocess(size=size))
    return {flatten(image).tobytes() for image in images}


def test_public_page_and_json_hold_nothing_of_a_real_image(
    written: tuple[Cohort, Cohort, QualityReport, Path],
) -> None:
    real, synthetic, _, out = written
    every_real = _rendered(real, real.rows(), (12, 12))
    internal, public = (html for _, html in _pages(out))
    assert _pictures(internal) & every_real  # the check can see a real image
    shown = _pictures(public)
    assert shown
    assert shown <= _rendered(synthetic, synthetic.rows(), (12, 12))
    assert not shown & every_real
    for text in (public, (out / JSON_FILE).read_text("utf-8")):
        assert "realimage" not in text
        assert "realpatient" not in text
        assert LOCAL_FOLDER not in text
        assert "relative/place" not in text
    assert "realimage" in internal
    assert "a/hub-id" in public


def test_banner_stands_on_the_internal_page_only(written: tuple[Cohort, Cohort, QualityReport, Path]) -> None:
    internal, public = (html for _, html in _pages(written[3]))
    assert "shows real patients, do not share" in internal
    assert "do not share." not in public


@pytest.mark.parametrize(
    ("verdict", "message"), [("fail", "The set failed"), ("inconclusive", "The set was not screened")]
)
def test_unscreened_images_are_not_public(tmp_path: Path, verdict: str, message: str) -> None:
    _, _, _, out = _write(tmp_path, verdict)
    internal, public = (html for _, html in _pages(out))
    assert _pictures(internal)
    assert not _pictures(public)
    assert message in public


def test_flagged_and_repeated_images_are_not_public(tmp_path: Path) -> None:
    real, synthetic = _cohorts(tmp_path)
    first = real.rows("train")[0]
    with CohortWriter(tmp_path / "with_copy", synthetic.schema) as copied:
        copied.add(ImageRecord("copy", "copy", real.pixels([first])[0], "synthetic", labels={LABELS[0]: True}))
        for record in synthetic.records():
            copied.add(record)
    cohort = Cohort.open(tmp_path / "with_copy")
    report = _report(real, cohort, flagged=(3,))
    public, _ = report_module.public_grids(report, real, cohort, Preprocess(size=(12, 12)))
    assert public is not None
    assert all(label.real == () for label in public.labels)
    shown = {picture.uri for label in public.labels for picture in label.synthetic}
    hidden = [png_uri(flatten(image)) for image in network_images(cohort, [0, 3], Preprocess(size=(12, 12)))]
    assert shown.isdisjoint(hidden)
    untold = report.model_copy(
        update={"copies": report.copies and report.copies.model_copy(update={"total_flagged": 9})}
    )
    assert report_module.public_grids(untold, real, cohort, Preprocess(size=(12, 12)))[0] is None


@pytest.mark.parametrize("budget_bytes", [None, 2_000])
def test_no_public_picture_equals_a_real_image_of_any_split(tmp_path: Path, budget_bytes: int | None) -> None:
    """Planted images are stored otherwise than real ones, and drawn in the same way: by the window, or in colour."""
    real, synthetic = _cohorts(tmp_path)
    preprocess = Preprocess(size=(12, 12), intensity=Window(low=0, high=128))
    planted = [row for split in SPLITS for row in real.rows(split)[:3]]
    with CohortWriter(tmp_path / "with_copies", synthetic.schema) as copied:
        for place, row in enumerate(planted):
            pixels = real.pixels([row])[0]
            stored = np.where(pixels >= 128, 255, pixels) if place % 2 else np.stack([pixels] * 3, axis=-1)
            labels = {name: place % 3 == k for k, name in enumerate(LABELS)}
            channels = 1 if place % 2 else 3
            copied.add(
                ImageRecord(f"copy{place}", f"copy{place}", stored, "synthetic", channels=channels, labels=labels)
            )
        for record in synthetic.records():
            copied.add(record)
    cohort = Cohort.open(tmp_path / "with_copies")
    assert set(cohort.manifest["digest"]).isdisjoint(real.manifest["digest"])
    size = {} if budget_bytes is None else {"budget_bytes": budget_bytes}
    every = draw_grids(real, cohort, preprocess, with_real=True, **size)
    public = draw_grids(real, cohort, preprocess, with_real=False, **size)
    side = public.shrunk_to
    drawer = Drawer(real, preprocess)
    real_uris = {split: {drawer.picture(row, side, "", "").uri for row in real.rows(split)} for split in SPLITS}
    internal = {picture.uri for label in every.labels for picture in label.synthetic}
    shown = {picture.uri for label in public.labels for picture in label.synthetic}
    assert internal & set().union(*real_uris.values())  # the planted ones come first
    assert len(shown) == len(every.labels) * public.per_label
    for split in SPLITS:
        assert shown.isdisjoint(real_uris[split]), split
    report = _report(real, cohort, flagged=(len(planted),))
    page, _ = report_module.public_grids(report, real, cohort, preprocess)
    assert page is not None
    flagged = Drawer(cohort, preprocess).picture(len(planted), None, "", "").uri
    assert {picture.uri for label in page.labels for picture in label.synthetic}.isdisjoint(
        {flagged, *set().union(*real_uris.values())}
    )


def test_data_never_becomes_markup(written: tuple[Cohort, Cohort, QualityReport, Path]) -> None:
    for name, html in _pages(written[3]):
        page = Page(html)
        assert page.wrong == [], name
        assert EVIL not in html
        assert sum(tag == "script" for tag, _ in page.started) == 1
        assert not any(attribute.startswith("on") for _, attributes in page.started for attribute in attributes)
        assert any(EVIL in text for text in page.text)  # it is shown, as text


def test_page_loads_nothing(written: tuple[Cohort, Cohort, QualityReport, Path]) -> None:
    for _, html in _pages(written[3]):
        page = Page(html)
        for tag, attributes in page.started:
            assert tag not in {"link", "iframe", "object", "embed", "base", "form", "video", "audio"}
            assert attributes.get("src", "data:").startswith("data:")  # type: ignore[union-attr]  # never empty here
            assert (attributes.get("href") or "#").startswith("#")
            assert "style" not in attributes
        assert not re.search(r"url\(|@import|fetch\(|XMLHttpRequest|WebSocket|sendBeacon", html)


def test_policy_names_exactly_our_style_and_script(written: tuple[Cohort, Cohort, QualityReport, Path]) -> None:
    for _, html in _pages(written[3]):
        policies = [a["content"] for t, a in Page(html).started if a.get("http-equiv") == "Content-Security-Policy"]
        style, script = (re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL) for tag in ("style", "script"))
        assert len(policies) == len(style) == len(script) == 1
        assert policies[0] is not None
        assert policies[0].startswith("default-src 'none'; img-src data:;")
        assert f"style-src '{source_hash(style[0])}';" in policies[0]
        assert f"script-src '{source_hash(script[0])}';" in policies[0]
        assert "unsafe" not in policies[0]


def test_hash_source_is_that_of_the_standard() -> None:
    # Content Security Policy level 3, section 8.4, gives this example.
    assert source_hash("alert('Hello, world.');") == "sha256-qznLcsROx4GACP2dm0UCKCzCG+HiZ1guq6ZZDob/Tng="


def test_tables_and_pictures_can_be_read_aloud(written: tuple[Cohort, Cohort, QualityReport, Path]) -> None:
    for _, html in _pages(written[3]):
        page = Page(html)
        tags = [tag for tag, _ in page.started]
        assert tags.count("table") == tags.count("caption") > 0
        assert tags.count("main") == tags.count("h1") == tags.count("nav") == 1
        assert all(attributes.get("scope") for tag, attributes in page.started if tag == "th")
        assert all(attributes.get("alt") for tag, attributes in page.started if tag == "img" and "src" in attributes)
        labelled = [a for t, a in page.started if t == "svg" and "aria-hidden" not in a]
        assert all(a.get("role") == "img" and (a.get("aria-label") or a.get("aria-labelledby")) for a in labelled)
        ids = [attributes["id"] for _, attributes in page.started if "id" in attributes]
        assert len(ids) == len(set(ids))
        anchors = {(a.get("href") or "")[1:] for t, a in page.started if t == "a"}
        assert anchors <= set(ids)


def test_json_round_trip(written: tuple[Cohort, Cohort, QualityReport, Path]) -> None:
    _, _, report, out = written
    read = PublishedReport.load(out / JSON_FILE)
    assert read.quality.estimates == report.estimates
    assert read.quality.agreement == report.agreement
    assert read.quality.nearest == ()
    assert read.quality.copies is not None
    assert read.quality.copies.flagged_rows == ()
    assert read.quality.copies.total_flagged == 1
    assert read.facts.recipe["cohort"]["source"] == HIDDEN
    assert read.facts.timings_s == {"train": 125.4}
    raw = json.loads((out / JSON_FILE).read_text("utf-8"))
    assert PublishedReport.model_validate(raw).model_dump(mode="json") == raw


def test_damaged_json_is_one_line(tmp_path: Path) -> None:
    (tmp_path / JSON_FILE).write_text('{"format_version": 99}', "utf-8")
    with pytest.raises(ArtifactError, match="not a report of this version"):
        PublishedReport.load(tmp_path / JSON_FILE)


def test_equal_input_gives_equal_bytes(written: tuple[Cohort, Cohort, QualityReport, Path], tmp_path: Path) -> None:
    real, synthetic, report, out = written
    write_report(
        report, real=real, synthetic=synthetic, preprocess=Preprocess(size=(12, 12)), facts=_facts(), out=tmp_path
    )
    for name in FILES:
        assert (tmp_path / name).read_bytes() == (out / name).read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(FILES)


def test_all_three_or_none(tmp_path: Path) -> None:
    files = dict.fromkeys(FILES, "new")
    blocked = tmp_path / "blocked"
    (blocked / JSON_FILE / "in the way").mkdir(parents=True)  # the last file cannot replace a folder
    (blocked / INTERNAL_PAGE).write_text("old", "utf-8")
    with pytest.raises(OSError, match=re.escape(JSON_FILE)):
        report_module.write_together(blocked, files)
    assert (blocked / INTERNAL_PAGE).read_text("utf-8") == "old"
    assert not (blocked / PUBLIC_PAGE).exists()
    assert sorted(path.name for path in blocked.iterdir()) == [INTERNAL_PAGE, JSON_FILE]


def test_full_disk_leaves_no_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written_names: list[str] = []
    real_write = Path.write_text

    def full(path: Path, *args: object, **options: object) -> int:
        written_names.append(path.name)
        if len(written_names) == 3:
            raise OSError(28, "No space left on device")
        return real_write(path, *args, **options)  # type: ignore[arg-type]  # handed on as it came

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(ResourceError, match="is full"):
        report_module.write_together(tmp_path, dict.fromkeys(FILES, "new"))
    assert list(tmp_path.iterdir()) == []


def test_other_cohorts_than_the_scored_are_refused(
    written: tuple[Cohort, Cohort, QualityReport, Path], tmp_path: Path
) -> None:
    real, _, report, _ = written
    with pytest.raises(InputError, match=r"synthetic cohort .* is not the one that was scored"):
        write_report(
            report, real=real, synthetic=real, preprocess=Preprocess(size=(12, 12)), facts=_facts(), out=tmp_path / "o"
        )
    assert not (tmp_path / "o").exists()


def test_grids_show_the_first_of_each_label_and_one_image_per_patient(tmp_path: Path) -> None:
    real, synthetic = _cohorts(tmp_path, exclusive=False)
    chosen, left_out = choose(real, synthetic, per_label=4)
    assert left_out == 0
    assert [label.title for label in chosen] == [*LABELS, "no label present"]
    for column, label in enumerate(chosen[:-1]):
        assert label.synthetic == (column, column + 3, column + 6, column + 9)
        assert all(real.manifest["split"][row] == "test" for row in label.real)
        assert all(real.labels([row])[0][column] == 1 for row in label.real)
    none_present = chosen[-1]
    assert none_present.synthetic == ()
    assert none_present.total_real == 6
    assert len(none_present.real) == 3


def test_volumes_show_their_three_middle_slices(tmp_path: Path) -> None:
    volume = np.full((1, 4, 6, 8), -1.0, dtype=np.float32)
    volume[0, 2, :, :] = 0.0  # the slice at right angles to the first axis, whole
    picture = flatten(volume)
    assert picture.shape == (6, 8 + 1 + 8 + 1 + 6)
    assert (picture[:, :8] == 128).all()
    assert (picture[:4, 9:17] == np.array([0, 0, 128, 0])[:, None]).all()
    assert (picture[:4, 18:] == np.array([0, 0, 128, 0])[:, None]).all()
    _, _, _, out = _write(tmp_path, spatial_dims=3)
    internal = (out / INTERNAL_PAGE).read_text("utf-8")
    assert "three middle slices" in internal
    assert _pictures(internal)


def test_pictures_shrink_to_the_budget_of_the_page(tmp_path: Path) -> None:
    real, synthetic = _cohorts(tmp_path)
    large = draw_grids(real, synthetic, Preprocess(size=(160, 160)), with_real=True)
    small = draw_grids(real, synthetic, Preprocess(size=(160, 160)), with_real=True, budget_bytes=60_000)
    assert (large.per_label, large.shrunk_to) == (8, None)
    assert small.shrunk_to is not None
    uris = [picture.uri for label in small.labels for picture in (*label.real, *label.synthetic)]
    assert sum(map(len, uris)) <= 60_000


def test_numbers_read_as_a_reader_expects() -> None:
    shown = {
        1.4161: "1.42",
        12345.6: "12,346",
        0.05: "0.050",
        0.97: "0.970",
        -0.0123: "−0.012",
        0.0: "0",
        2e-6: "2.0e−06",
    }
    assert {value: number(value) for value in shown} == shown
    assert number(None) == "–"


def test_ticks_are_round_and_inside() -> None:
    assert ticks(0, 10) == [0, 2, 4, 6, 8, 10]
    assert ticks(-0.013, 0.021, 4) == [-0.01, 0.0, 0.01, 0.02]
    assert log_ticks(0.02, 3) == [0.1, 1.0]


def test_bar_places_value_floor_and_ceiling_on_one_axis() -> None:
    bar = score_bar(_estimate(value=4.0, interval=(3.0, 4.0), floor=2.0, floor_interval=(1.0, 3.0)), ceiling=1.0)
    assert bar is not None
    left, right = 8, bar.width - 8
    assert bar.value == right
    assert bar.floor == (left + right) / 2
    assert bar.ceiling == left + (right - left) / 4
    assert bar.interval == (left + 0.75 * (right - left), right)
    assert "real against real 2.00" in bar.description
    assert score_bar(_estimate(value=None)) is None


def test_recipe_is_shown_field_by_field() -> None:
    recipe = {"a": {"b": 1, "c": [1, 2]}, "d": [], "e": [{"f": None}]}
    assert list(flattened(recipe)) == [("a.b", "1"), ("a.c", "1, 2"), ("d", "–"), ("e[0].f", "–")]


def test_curves_without_step_are_refused_and_nan_becomes_null() -> None:
    assert RunFacts(name="x", created="", curves=({"stage": "s", "step": 1, "loss": float("nan")},)).curves == (
        {"stage": "s", "step": 1, "loss": None},
    )
    with pytest.raises(ValueError, match="needs stage and step"):
        RunFacts(name="x", created="", curves=({"loss": 1.0},))


def test_planted_copies_do_not_dwarf_the_other_outlines() -> None:
    histogram = SimilarityHistogram(
        edges=(0.0, 0.25, 0.5, 0.75, 1.0), train=(5, 5, 0, 0), holdout=(4, 6, 0, 0), control=(0, 0, 0, 9)
    )
    chart = histogram_chart("key", "title", histogram)
    heights = {
        series.kind: min(float(point.split(",")[1]) for point in series.points.split()) for series in chart.series
    }
    assert heights["control"] == chart.top
    assert heights["holdout"] == pytest.approx(chart.bottom - (chart.bottom - chart.top) / 1.25, abs=0.1)
    assert [series.name for series in chart.series if "higher than the chart" in series.name] == [
        "planted copies (higher than the chart)"
    ]
    assert "nearest training image: 10 images, median near 0.125" in chart.description


def test_generated_images_are_not_stretched_once_more(tmp_path: Path) -> None:
    preprocess = Preprocess(size=(12, 12), intensity=Percentile())
    faint = np.full((12, 12), 100, dtype=np.uint8)
    faint[4:8, 4:8] = 110  # as the generator stored it: percentiles of this image would make it black and white
    for folder, kind in (("real", "real"), ("made", "synthetic")):
        with CohortWriter(tmp_path / folder, CohortSchema(kind=kind)) as writer:
            writer.add(ImageRecord("one", "one", faint, "test"))
    real, made = Cohort.open(tmp_path / "real"), Cohort.open(tmp_path / "made")
    (group,) = draw_grids(real, made, preprocess, with_real=True).labels
    assert group.synthetic[0].uri == png_uri(faint)
    assert (group.synthetic[0].width, group.synthetic[0].sharp) == (120, True)  # ten times, so that pixels stay square
    assert group.real[0].uri == png_uri(np.where(faint == 110, 255, 0).astype(np.uint8))
