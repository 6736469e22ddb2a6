"""What the console says about progress."""

from __future__ import annotations

import pytest

from medphantom.flows.process.progress import BarView, LineView, Silent, clock, watcher, watching


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.4, "59 s"), (61, "1 min 01 s"), (3599, "59 min 59 s"), (7500, "2 h 05 min")]
)
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_lines_are_rare_end_with_the_last_and_know_the_time_left() -> None:
    lines: list[str] = []
    now = [0.0]
    view = LineView(lines.append, every_s=10, now=lambda: now[0])
    report = view.stage("train")
    for step in range(101):
        now[0] = float(step)
        report(step, 100, "denoiser")
    assert lines[0] == "train: denoiser 0/100 (0 %)"
    assert lines[1] == "train: denoiser 10/100 (10 %), 1 min 30 s left"
    assert lines[-1] == "train: denoiser 100/100 (100 %)"
    assert len(lines) == 11


def test_a_new_counter_starts_a_new_phase_with_its_own_speed() -> None:
    lines: list[str] = []
    now = [0.0]
    report = LineView(lines.append, every_s=0, now=lambda: now[0]).stage("train")
    report(0, 10, "autoencoder")
    now[0] = 100.0
    report(10, 10, "autoencoder")
    report(0, 4, "denoiser")
    now[0] = 101.0
    report(1, 4, "denoiser")
    assert lines[-1] == "train: denoiser 1/4 (25 %), 3 s left"


def test_unknown_total_is_only_counted() -> None:
    lines: list[str] = []
    LineView(lines.append, every_s=0).stage("ingest")(7, 0, "files")
    assert lines == ["ingest: files 7"]


def test_watching_is_undone_and_silence_is_the_default() -> None:
    assert isinstance(watcher(), Silent)
    with watching(LineView()) as view:
        assert watcher() is view
    assert isinstance(watcher(), Silent)


def test_bars_show_one_line_per_phase() -> None:
    view = BarView()
    report = view.stage("train")
    report(0, 2, "autoencoder [bold]")
    report(2, 2, "autoencoder [bold]")
    report(1, 5, "denoiser")
    assert [(task.description, task.completed, task.total) for task in view.bars.tasks] == [
        ("autoencoder [bold]", 2, 2),
        ("denoiser", 1, 5),
    ]
