"""A run's estimate is corrected by what its finished stages took."""

from __future__ import annotations

from medphantom.flows.runs.costs import Forecast


def test_what_is_left_is_corrected_by_what_the_stages_took() -> None:
    forecast = Forecast({"ingest": 20.0, "train": 100.0, "generate": 50.0, "assess": 30.0})
    assert forecast.after("ingest", 40.0) == "about 6 min 00 s left (train, generate, assess)"
    assert forecast.after("train", 80.0) == "about 1 min 20 s left (generate, assess)"  # 120 s expected, 120 taken
    assert forecast.after("generate", 55.0) == "about 31 s left (assess)"
    assert forecast.after("assess", 30.0) is None


def test_short_stages_measure_nothing() -> None:
    forecast = Forecast({"ingest": 1.0, "train": 60.0})
    assert forecast.after("ingest", 30.0) == "about 1 min 00 s left (train)"
