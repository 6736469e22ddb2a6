from __future__ import annotations

import errno
import json
import logging
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from medphantom.core.errors import ArtifactError, ResourceError
from medphantom.learning.averages import MovingAverage
from medphantom.learning.batches import TensorBatches
from medphantom.learning.checkpoint import latest_checkpoint, save_checkpoint
from medphantom.learning.fit import fit
from tests.learning.tiny import Denoise, Line, Target, fit_denoiser, settings, without_speed

ROOT = Path(__file__).parents[2]


def same_bits(left: nn.Module, right: nn.Module) -> bool:
    ours, theirs = left.state_dict(), right.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


def checkpoints(work: Path) -> list[Path]:
    return sorted((work / "checkpoints").glob("step-*"))


def test_a_killed_fit_ends_with_the_bits_of_an_uninterrupted_one(tmp_path: Path) -> None:
    """Really killed (SIGKILL) at an arbitrary moment; with dropout, batch norm, EMA, and a second optimiser."""
    killed, steps = tmp_path / "killed", 90
    command = [sys.executable, "-m", "tests.learning.tiny", "denoise", str(killed), str(steps)]
    child = subprocess.Popen(command, cwd=ROOT)
    deadline = time.monotonic() + 240
    while not (found := checkpoints(killed)) or found[-1].name < "step-000000030":
        assert child.poll() is None, "the fit ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    time.sleep(0.015)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL

    resumed, result = fit_denoiser(killed, steps=steps)
    straight, expected = fit_denoiser(tmp_path / "straight", steps=steps)
    assert 30 <= result.resumed_from < steps
    assert expected.resumed_from == 0
    assert resumed.adversary is not None
    assert straight.adversary is not None
    assert same_bits(resumed.network, straight.network)
    assert same_bits(resumed.adversary, straight.adversary)
    assert (result.best_step, result.best_loss) == (expected.best_step, expected.best_loss)
    assert without_speed(result.history) == without_speed(expected.history)
    written = [json.loads(line) for line in (killed / "metrics.jsonl").read_text().splitlines()]
    assert written == result.history


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_stopped_fit_goes_on_with_the_same_bits(tmp_path: Path, precision: str) -> None:
    """Stopped between checkpoints and between rows of the log."""
    calls = iter([False] * 12 + [True])
    _, stopped = fit_denoiser(tmp_path / "stopped", precision=precision, stop=lambda: next(calls))
    assert not stopped.finished
    assert stopped.best_step == 10
    resumed, result = fit_denoiser(tmp_path / "stopped", precision=precision)
    straight, expected = fit_denoiser(tmp_path / "straight", precision=precision)
    assert (result.finished, result.resumed_from) == (True, 13)
    assert same_bits(resumed.network, straight.network)
    assert without_speed(result.history) == without_speed(expected.history)


def test_a_finished_fit_is_loaded_and_not_done_again(tmp_path: Path) -> None:
    first, expected = fit_denoiser(tmp_path)

    class Idle(Denoise):
        def loss(self, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
            raise AssertionError

    second, result = fit_denoiser(tmp_path, Idle())
    assert same_bits(first.network, second.network)
    assert (result.best_step, result.history, result.finished) == (expected.best_step, expected.history, True)


def test_the_best_weights_survive_although_they_lie_before_the_resume(tmp_path: Path) -> None:
    config = settings(
        steps=10,
        warmup_steps=0,
        learning_rate=0.1,
        schedule="constant",
        ema_decay=None,
        validate_every=2,
        weight_decay=0,
    )
    batches = TensorBatches({"x": torch.zeros(8, 1)})
    calls = iter([False] * 8 + [True])
    stopped = fit(Target(), batches, config, work=tmp_path, stop=lambda: next(calls))
    learner = Target()
    result = fit(learner, batches, config, work=tmp_path)
    assert (stopped.best_step, result.resumed_from, result.best_step) == (6, 9, 6)
    assert learner.weight == pytest.approx(0.6, abs=1e-5)


def test_the_average_matters_and_is_what_is_kept(tmp_path: Path) -> None:
    """A resume that forgot the average, or restarted its warm-up, would end elsewhere."""
    config = {"steps": 40, "warmup_steps": 0, "learning_rate": 0.1, "schedule": "constant", "weight_decay": 0}
    batches = TensorBatches({"x": torch.zeros(8, 1)})
    calls = iter([False] * 16 + [True])
    fit(Line(), batches, settings(**config), work=tmp_path / "a", stop=lambda: next(calls))
    resumed, straight = Line(), Line()
    fit(resumed, batches, settings(**config), work=tmp_path / "a")
    fit(straight, batches, settings(**config), work=tmp_path / "b")
    assert resumed.weight == straight.weight
    assert straight.weight < 4.0 - 0.1


def test_damaged_checkpoints_fall_back_with_one_line_each(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    straight, _ = fit_denoiser(tmp_path / "straight")
    for damage in ("truncate", "alter", "state", "missing"):
        work = tmp_path / damage
        calls = iter([False] * 24 + [True])
        fit_denoiser(work, stop=lambda calls=calls: next(calls))
        last = checkpoints(work)[-1]
        assert [path.name for path in checkpoints(work)] == ["step-000000020", "step-000000025"]
        file = last / ("state.json" if damage == "state" else "average.safetensors")
        content = file.read_bytes()
        if damage == "missing":
            file.unlink()
        elif damage == "truncate":
            file.write_bytes(content[: len(content) // 2])
        else:
            place = content.index(b'"best"') + 1 if damage == "state" else len(content) - 9
            file.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        caplog.clear()
        with caplog.at_level(logging.WARNING, "medphantom.learning"):
            resumed, result = fit_denoiser(work)
        assert result.resumed_from == 20
        assert same_bits(resumed.network, straight.network)
        assert len(caplog.messages) == 1
        assert "\n" not in caplog.messages[0]
        assert file.name in caplog.messages[0]
        assert "falling back to the previous checkpoint" in caplog.messages[0]


def test_without_any_whole_checkpoint_the_fit_starts_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    straight, _ = fit_denoiser(tmp_path)
    for path in checkpoints(tmp_path):
        (path / "network.safetensors").write_bytes(b"")
    with caplog.at_level(logging.WARNING, "medphantom.learning"):
        again, result = fit_denoiser(tmp_path)
    assert len(caplog.messages) == 2
    assert result.resumed_from == 0
    assert same_bits(again.network, straight.network)


def test_a_checkpoint_of_other_settings_is_refused_in_one_line(tmp_path: Path) -> None:
    fit_denoiser(tmp_path)
    with pytest.raises(ArtifactError, match=r"belongs to another fit \(learning_rate was 0.01, is 0.02") as caught:
        fit_denoiser(tmp_path, learning_rate=0.02)
    assert "\n" not in str(caught.value)
    with pytest.raises(ArtifactError, match="another adversary"):
        fit_denoiser(tmp_path, Denoise(adversary=False))
    learner = Denoise()
    with pytest.raises(ArtifactError, match="another identity"):
        fit(learner, TensorBatches({"x": learner.images}), settings(), work=tmp_path, identity="other data")
    # What has no bearing on the result may change.
    assert fit_denoiser(tmp_path, log_every=1, checkpoint_every=7, grid_every=3)[1].finished


def test_checkpoints_hold_no_pickle_and_only_the_last_two_stay(tmp_path: Path) -> None:
    fit_denoiser(tmp_path)
    assert [path.name for path in checkpoints(tmp_path)] == ["step-000000020", "step-000000030"]
    files = [file for path in checkpoints(tmp_path) for file in path.iterdir()]
    assert {file.suffix for file in files} == {".safetensors", ".json"}
    for file in files:
        head = file.read_bytes()[:4]
        assert head[:1] == b"{" if file.suffix == ".json" else head[:2] not in {b"PK", b"\x80\x02"}


def test_leftovers_of_a_killed_writer_are_ignored_and_removed(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    dead = subprocess.Popen(["true"])
    dead.wait()
    leftover = folder / f".step-000000099.partial-{dead.pid}"
    leftover.mkdir(parents=True)
    (leftover / "network.safetensors").write_bytes(b"half")
    assert latest_checkpoint(folder) is None
    save_checkpoint(folder, 3, {"network": {"w": torch.ones(2)}}, {})
    assert [path.name for path in folder.iterdir()] == ["step-000000003"]


def test_a_full_disk_is_one_line_and_leaves_the_checkpoints_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_checkpoint(tmp_path, 1, {"network": {"w": torch.ones(2)}}, {})

    def full(path: Path, content: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(ResourceError, match=r"the disk under .* is full; free some space"):
            save_checkpoint(tmp_path, 2, {"network": {"w": torch.zeros(2)}}, {})
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000001"]
    found = latest_checkpoint(tmp_path)
    assert found is not None
    assert found.step == 1


def test_tied_and_strided_tensors_come_back_exactly(tmp_path: Path) -> None:
    table = torch.randn(4, 6)
    groups = {"network": {"a": table, "b": table, "c": table.T, "n": torch.tensor(7), "e": torch.zeros(0, 3)}}
    state = {"value": 0.1 + 0.2, "rows": [{"step": 1, "loss": 1e-300}]}
    save_checkpoint(tmp_path, 1, groups, state)
    found = latest_checkpoint(tmp_path)
    assert found is not None
    assert found.state == state
    assert all(torch.equal(found.groups["network"][key], value) for key, value in groups["network"].items())


def frozen_denoise() -> Denoise:
    """Only its last layer learns."""
    learner = Denoise(adversary=False)
    learner.network[:-1].requires_grad_(False)
    return learner


def test_frozen_weights_stay_out_of_checkpoints_and_a_resume_is_still_exact(tmp_path: Path) -> None:
    start = {key: value.clone() for key, value in frozen_denoise().network.state_dict().items()}
    calls = iter([False] * 12 + [True])
    fit_denoiser(tmp_path / "stopped", frozen_denoise(), stop=lambda: next(calls))
    found = latest_checkpoint(tmp_path / "stopped" / "checkpoints")
    assert found is not None
    for group in ("network", "average"):
        assert {name for name in found.groups[group] if "running" not in name and "num_batches" not in name} == {
            "5.weight",
            "5.bias",
        }
    resumed, _ = fit_denoiser(tmp_path / "stopped", frozen_denoise())
    straight, _ = fit_denoiser(tmp_path / "straight", frozen_denoise())
    assert same_bits(resumed.network, straight.network)
    ended = straight.network.state_dict()
    assert torch.equal(ended["0.weight"], start["0.weight"])
    assert not torch.equal(ended["5.weight"], start["5.weight"])


def test_the_average_shares_frozen_weights_and_follows_the_others() -> None:
    network = frozen_denoise().network
    average = MovingAverage(network, 0.5)
    average.update()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1.0)
    average.update()
    for mean, now in zip(average.module.parameters(), network.parameters(), strict=True):
        assert (mean.data_ptr() == now.data_ptr()) == (not now.requires_grad)
        assert torch.equal(mean, now) == (not now.requires_grad)


def test_buffers_of_the_average_are_those_of_the_network() -> None:
    network = nn.BatchNorm1d(2)
    average = MovingAverage(network, 0.9)
    for _ in range(3):
        network(torch.randn(8, 2) + 4)
        average.update()
    assert torch.equal(average.module.running_mean, network.running_mean)  # type: ignore[arg-type]  # torch's own names
    assert int(average.module.num_batches_tracked) == 3  # type: ignore[arg-type]  # the same
