"""The page of a study: advice first, every cell, curves with intervals, and nothing of data that is read as HTML."""

from __future__ import annotations

from medphantom.quality.report.page import render_study
from medphantom.quality.report.study_page import study_view
from tests.quality.report.pages import Page
from tests.quality.utility.made_up import ARMS, EVIL, LABELS, made_up_study


def page() -> str:
    facts = {"machine": {"cpu": "some", "cores": 2}, "versions": {"torch": "2.8"}}
    return render_study(
        {"0.25 of the training patients": made_up_study(), "All training patients": made_up_study()},
        created="2026-01-01T00:00:00+00:00",
        settings={"study": {"ratios": [0.5, 1, 2]}},
        facts=facts,
    )


def test_every_cell_that_has_a_value_stands_in_a_table() -> None:
    view = study_view(made_up_study())
    main = view.tables[0]
    assert main.title == "AUROC on real test patients"
    assert [label for label, _ in main.labels] == [None, *LABELS]
    for _, rows in main.labels:
        assert [row.arm for row in rows] == [arm.words for arm in ARMS]
        assert rows[1].beside[0][0] == "real + classical augmentation"
    assert [table.title for table in view.tables[1:]] == ["calibration error on real test patients"]
    assert dict(view.refused) == {"hernia": "3 test patients have it (≥ 30)"}


def test_curves_hold_value_and_interval_of_every_ratio() -> None:
    charts = study_view(made_up_study()).charts
    assert [chart.title.rpartition(": ")[2] for chart in charts] == ["mean over labels", *LABELS]
    for chart in charts:
        assert [series.name for series in chart.series] == ["real + synthetic", "synthetic, then real"]
        for series in chart.series:
            assert len(series.points.split()) == 3
            corners = [tuple(map(float, corner.split(","))) for corner in series.band.split()]
            assert len(corners) == 6
            for place, point in enumerate(series.points.split()):
                x, y = map(float, point.split(","))
                high, low = corners[place], corners[-1 - place]
                assert high[0] == low[0] == x
                assert high[1] < y < low[1]  # pixels count downwards
        assert "synthetic images per real one 0.5 to 2" in chart.description
        assert chart.x_ticks[0].text == "0.5"


def test_the_page_stands_alone_and_escapes_what_data_says() -> None:
    text = page()
    parsed = Page(text)
    assert not parsed.wrong
    assert EVIL not in text
    assert "&lt;script&gt;alert(1)" in text
    assert sum(tag == "script" for tag, _ in parsed.started) == 1
    assert not [
        attributes
        for _, attributes in parsed.started
        if {"src", "href"} & set(attributes)
        and not str(attributes.get("href") or attributes.get("src")).startswith(("#", "data:"))
    ]
    assert "Wider?" in text
    assert text.index('class="advice"') < text.index("<table")
