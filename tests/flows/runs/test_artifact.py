"""Reuse of artifacts: the same key is made once, anything else is made again, and nothing is ever half there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from medphantom.core.errors import ResourceError
from medphantom.core.folders import read_json, write_digest
from medphantom.flows.runs.artifact import RunFolder, artifact_mark, source_mark, stage_key


class Maker:
    """Writes a small published folder and counts how often it was called."""

    def __init__(self, text: str = "content") -> None:
        self.calls = 0
        self.text = text

    def __call__(self, out: Path, work: Path) -> dict[str, int]:
        self.calls += 1
        assert work.is_dir()
        out.mkdir()
        (out / "data.txt").write_text(self.text)
        write_digest(out, f"digest of {self.text}")
        return {"files": 1}


def made_or_current(run: RunFolder, key: str, maker: Maker) -> str:
    ref = run.current("train", key) or run.make("train", key, "bundle", maker)
    return ref.digest


def test_the_same_key_is_made_once_and_another_key_again(tmp_path: Path) -> None:
    run, first, second = RunFolder(tmp_path / "run"), Maker("one"), Maker("two")
    assert made_or_current(run, "a", first) == made_or_current(run, "a", first) == "digest of one"
    assert first.calls == 1
    assert made_or_current(run, "b", second) == "digest of two"
    assert (run.path / "bundle" / "data.txt").read_text() == "two"
    assert run.current("train", "a") is None
    assert run.records()["train"].facts == {"files": 1}


@pytest.mark.parametrize("damage", ["truncate", "remove", "replace by a file"])
def test_a_damaged_artifact_is_made_again(tmp_path: Path, damage: str) -> None:
    run, maker = RunFolder(tmp_path / "run"), Maker()
    made_or_current(run, "a", maker)
    data = run.path / "bundle" / "data.txt"
    if damage == "truncate":
        data.write_text("")
    elif damage == "remove":
        data.unlink()
    else:
        shutil.rmtree(run.path / "bundle")
        (run.path / "bundle").write_text("")
    made_or_current(run, "a", maker)
    assert maker.calls == 2
    assert data.read_text() == "content"


def test_a_run_folder_that_was_copied_without_times_is_still_current(tmp_path: Path) -> None:
    run, maker = RunFolder(tmp_path / "run"), Maker()
    made_or_current(run, "a", maker)
    shutil.copytree(run.path, tmp_path / "copy", copy_function=shutil.copyfile)
    made_or_current(RunFolder(tmp_path / "copy"), "a", maker)
    assert maker.calls == 1


def test_a_failed_making_leaves_the_old_artifact_and_its_record(tmp_path: Path) -> None:
    run, maker = RunFolder(tmp_path / "run"), Maker("old")
    made_or_current(run, "a", maker)

    def fail(out: Path, work: Path) -> None:
        out.mkdir()
        (work / "checkpoint").write_text("half way")
        raise ResourceError("the disk is full")

    with pytest.raises(ResourceError):
        run.make("train", "b", "bundle", fail)
    assert run.current("train", "a") is not None
    assert sorted(path.name for path in run.path.iterdir()) == [".stages.json", "bundle", "work"]
    assert (run.work("train") / "checkpoint").read_text() == "half way"  # what a second attempt continues from


def test_what_lies_beside_the_artifact_moves_with_it_and_is_missed(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)

    def build(out: Path, work: Path) -> None:
        del work
        out.write_text("page")
        out.with_name("report.json").write_text("{}")
        out.with_name("extra").write_text("")

    run.make("report", "k", "report.html", build, beside=("report.json",))
    assert (tmp_path / "report.json").is_file()
    assert run.current("report", "k") is not None
    (tmp_path / "extra").unlink()
    assert run.current("report", "k") is not None
    (tmp_path / "report.json").unlink()
    assert run.current("report", "k") is None


def test_time_of_interrupted_attempts_is_kept(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)

    def interrupted(out: Path, work: Path) -> None:
        del out, work
        time.sleep(0.2)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.make("train", "a", "bundle", interrupted)
    run.make("train", "a", "bundle", Maker())
    assert run.records()["train"].seconds >= 0.2
    run.make("train", "b", "bundle", Maker())
    assert run.records()["train"].seconds < 0.2


def test_key_follows_inputs_and_settings_but_not_what_changes_no_result() -> None:
    settings = {"fit": {"steps": 10, "device": "auto", "log_every": 5}}
    key = stage_key("train", {"ingest": "d"}, settings)
    assert key == stage_key("train", {"ingest": "d"}, {"fit": {"steps": 10, "device": "cuda", "log_every": 1}})
    assert key != stage_key("train", {"ingest": "d"}, {"fit": {"steps": 11, "device": "auto", "log_every": 5}})
    assert key != stage_key("train", {"ingest": "e"}, settings)
    assert key != stage_key("generate", {"ingest": "d"}, settings)


def test_source_mark_sees_names_sizes_and_times(tmp_path: Path) -> None:
    folder = tmp_path / "source" / "deep"
    folder.mkdir(parents=True)
    file = folder / "a.dcm"
    file.write_bytes(b"12")
    seen = {source_mark(tmp_path / "source")}
    os.utime(file, ns=(1, 1))
    seen.add(source_mark(tmp_path / "source"))
    file.write_bytes(b"123")
    os.utime(file, ns=(1, 1))
    seen.add(source_mark(tmp_path / "source"))
    file.rename(folder / "b.dcm")
    seen.add(source_mark(tmp_path / "source"))
    (folder / "link").symlink_to(tmp_path / "nowhere")
    seen.add(source_mark(tmp_path / "source"))
    assert len(seen) == 4  # a dangling link is neither an error nor an image
    assert source_mark(tmp_path / "source") == source_mark(tmp_path / "source")
    assert artifact_mark(tmp_path / "source") != source_mark(tmp_path / "source")


def test_a_second_process_is_kept_out(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    program = (
        f"from medphantom.flows.runs.artifact import RunFolder\nwith RunFolder({str(run.path)!r}).locked(): print('in')"
    )
    with run.locked():
        other = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "another process works in" in other.stderr
    assert "in" not in other.stdout.split()
    after = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert after.stdout == "in\n"


def test_lost_records_cost_time_only(tmp_path: Path) -> None:
    run, maker = RunFolder(tmp_path), Maker()
    made_or_current(run, "a", maker)
    (tmp_path / ".stages.json").write_text("{ truncated")
    made_or_current(run, "a", maker)
    assert maker.calls == 2
    assert read_json(tmp_path / ".stages.json")["train"]["key"] == "a"
