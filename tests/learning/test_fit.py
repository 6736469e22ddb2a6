from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from medphantom.core.errors import InputError, MedphantomError, ResourceError
from medphantom.learning.batches import TensorBatches
from medphantom.learning.devices import resolve_precision
from medphantom.learning.fit import FitConfig, Learner, fit
from tests.learning.tiny import Denoise, Line, Target, fit_denoiser, fit_regression, settings, without_speed

ANY = TensorBatches({"x": torch.zeros(8, 1)})


def flat(module: nn.Module) -> Tensor:
    return torch.cat([value.flatten().double() for value in module.state_dict().values()])


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_weights_follow_the_schedule_in_closed_form(tmp_path: Path, schedule: Literal["constant", "cosine"]) -> None:
    """With a constant gradient Adam moves by exactly its learning rate: m/√v is the gradient's sign at every step."""
    learner = Line()
    config = settings(
        steps=20, warmup_steps=4, learning_rate=0.1, schedule=schedule, ema_decay=None, validate_every=0, weight_decay=0
    )
    fit(learner, ANY, config, work=tmp_path)
    rates = [0.1 * (step + 1) / 4 for step in range(4)]
    if schedule == "constant":
        rates += [0.1] * 16
    else:
        rates += [0.1 * (1 + math.cos(math.pi * step / 16)) / 2 for step in range(16)]
    assert learner.weight == pytest.approx(sum(rates), rel=1e-5)


def test_the_average_is_the_recursion_with_warmed_up_decay(tmp_path: Path) -> None:
    learner = Line()
    config = settings(
        steps=60,
        warmup_steps=0,
        learning_rate=0.1,
        schedule="constant",
        ema_decay=0.8,
        validate_every=0,
        weight_decay=0,
    )
    result = fit(learner, ANY, config, work=tmp_path)
    expected = 0.1  # after the first step the average is the weight itself
    for averages in range(1, 60):
        decay = min(0.8, (1 + averages) / (10 + averages))
        expected = decay * expected + (1 - decay) * 0.1 * (averages + 1)
    assert learner.weight == pytest.approx(expected, rel=1e-5)
    assert (result.best_step, result.best_loss, result.finished) == (60, None, True)


def test_validation_picks_the_weights_and_the_gap_is_like_for_like(tmp_path: Path) -> None:
    learner = Target()
    config = settings(
        steps=10,
        warmup_steps=0,
        learning_rate=0.1,
        schedule="constant",
        ema_decay=None,
        validate_every=2,
        weight_decay=0,
    )
    result = fit(learner, ANY, config, work=tmp_path)
    assert result.best_step == 6
    assert result.best_loss == pytest.approx(0.05, abs=1e-5)
    assert learner.weight == pytest.approx(0.6, abs=1e-5)
    assert not learner.network.training
    gaps = {row["step"]: row["gap"] for row in result.history if "gap" in row}
    expected = {step: abs(0.1 * step - 0.55) - abs(0.1 * step - 0.75) for step in (2, 4, 6, 8, 10)}
    assert gaps == pytest.approx(expected, abs=1e-5)


def test_accumulation_changes_nothing_but_memory(tmp_path: Path) -> None:
    ends = []
    for accumulate in (1, 2, 4):
        learner, _ = fit_regression(tmp_path / str(accumulate), accumulate=accumulate)
        ends.append(flat(learner.network))
    torch.testing.assert_close(ends[1], ends[0], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(ends[2], ends[0], rtol=1e-4, atol=1e-6)


def test_a_batch_larger_than_the_data_wraps_around(tmp_path: Path) -> None:
    learner, result = fit_denoiser(tmp_path, steps=3, batch_size=40)
    assert result.finished
    assert len(learner.images) < 40


def test_a_linear_problem_is_solved(tmp_path: Path) -> None:
    truth = torch.tensor([[1.0, -2.0, 0.5]])
    x = torch.randn(64, 3, generator=torch.Generator().manual_seed(4))

    class Linear(Learner):
        def loss(self, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
            return {"loss": (self.network(batch["x"]) - batch["x"] @ truth.T).square().mean()}

    learner = Linear(nn.Linear(3, 1))
    config = settings(steps=400, learning_rate=0.05, weight_decay=0, validate_every=0, checkpoint_every=400)
    fit(learner, TensorBatches({"x": x}), config, work=tmp_path)
    torch.testing.assert_close(learner.network.weight.detach(), truth, atol=1e-3, rtol=0)


def test_history_reaches_both_the_file_and_tensorboard(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    _, result = fit_denoiser(tmp_path, tracker="tensorboard", grid_every=15)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines == result.history
    assert [row["step"] for row in lines if "val_loss" in row] == [10, 20, 30]
    assert [row["step"] for row in lines if "loss" in row] == [4, 8, 12, 16, 20, 24, 28, 30]
    shown = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    for key in ("loss", "gap", "adversary_loss", "gradient_norm"):
        logged = {event.step: event.value for event in shown.Scalars(key)}
        assert logged == pytest.approx({row["step"]: row[key] for row in lines if key in row}, rel=1e-6)
    assert [event.step for event in shown.Images("grid")] == [15, 30]


def test_tensorboard_shows_nothing_twice_after_a_resume(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    calls = iter([False] * 17 + [True])
    fit_denoiser(tmp_path, tracker="tensorboard", stop=lambda: next(calls))
    shutil.rmtree(tmp_path / "checkpoints" / "step-000000018")  # as if killed there: steps 11 to 18 are done again
    fit_denoiser(tmp_path, tracker="tensorboard")
    shown = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [event.step for event in shown.Scalars("loss")] == [4, 8, 12, 16, 20, 24, 28, 30]


def test_grids_of_real_images_stay_out_of_trackers(tmp_path: Path) -> None:
    from PIL import Image
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    learner = Denoise()
    learner.grid_shows_real_images = True
    fit_denoiser(tmp_path, learner, tracker="tensorboard", grid_every=30)
    assert EventAccumulator(str(tmp_path / "tensorboard")).Reload().Tags()["images"] == []
    sheet = np.asarray(Image.open(tmp_path / "grids" / "step-000000030.png"))
    tiles = (learner.images[:3, 0] * 255).round().numpy()
    assert np.array_equal(sheet, np.block([[tiles[0], tiles[1]], [tiles[2], np.zeros((8, 8))]]))


def test_layers_draw_afresh_at_every_step_from_the_seed_of_the_run(tmp_path: Path) -> None:
    class Masks(Line):
        def __init__(self) -> None:
            super().__init__()
            self.seen: list[Tensor] = []

        def loss(self, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
            self.seen.append(torch.dropout(torch.ones(64), 0.5, train=True))
            return super().loss(batch, generator)

    runs = {}
    for name, run_seed, outer_seed in (("a", 0, 1), ("b", 0, 2), ("c", 1, 1)):
        learner = Masks()
        torch.manual_seed(outer_seed)
        fit(learner, ANY, settings(steps=4, accumulate=2, seed=run_seed), work=tmp_path / name)
        runs[name] = torch.stack(learner.seen)
    assert torch.equal(runs["a"], runs["b"])
    assert len(torch.unique(torch.cat([runs["a"], runs["c"]]), dim=0)) == 16


def test_the_global_generator_is_left_alone(tmp_path: Path) -> None:
    learner = Denoise()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    fit_denoiser(tmp_path, learner, steps=5)
    assert torch.equal(torch.rand(3), expected)


def test_the_same_seed_gives_the_same_bits_and_another_does_not(tmp_path: Path) -> None:
    torch.manual_seed(11)
    first, one = fit_denoiser(tmp_path / "1")
    torch.manual_seed(12)
    second, two = fit_denoiser(tmp_path / "2")
    other, _ = fit_denoiser(tmp_path / "3", seed=1)
    assert torch.equal(flat(first.network), flat(second.network))
    assert without_speed(one.history) == without_speed(two.history)
    assert not torch.allclose(flat(first.network), flat(other.network))


def test_the_adversary_learns_with_an_optimiser_of_its_own(tmp_path: Path) -> None:
    start = flat(Denoise().adversary or nn.Identity())
    early, _ = fit_denoiser(tmp_path / "early", steps=5, validate_every=0)  # it rests for the first five steps
    late, result = fit_denoiser(tmp_path / "late", steps=6, validate_every=0)
    assert early.adversary is not None
    assert late.adversary is not None
    assert torch.equal(flat(early.adversary), start)
    assert not torch.equal(flat(late.adversary), start)
    assert all(parameter.requires_grad for parameter in late.adversary.parameters())
    assert "adversary_loss" in result.history[-1]


def test_precisions_can_follow_each_other_in_one_process(tmp_path: Path) -> None:
    precise, _ = fit_denoiser(tmp_path / "fp32", steps=5)
    coarse, _ = fit_denoiser(tmp_path / "bf16", steps=5, precision="bf16")
    again, _ = fit_denoiser(tmp_path / "again", steps=5)
    assert torch.equal(flat(precise.network), flat(again.network))
    assert not torch.equal(flat(precise.network), flat(coarse.network))
    assert all(p.dtype == torch.float32 for p in coarse.network.parameters())
    torch.testing.assert_close(flat(coarse.network), flat(precise.network), atol=0.05, rtol=0)


def test_auto_precision_asks_the_hardware(monkeypatch: pytest.MonkeyPatch) -> None:
    for has_amx, expected in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda found=has_amx: {"amx_bf16": found}, raising=False)
        assert resolve_precision("auto", "cpu") == expected
    assert resolve_precision("fp32", "cpu") == "fp32"


@pytest.mark.parametrize("log_every", [1, 10])
def test_a_loss_that_is_not_finite_stops_the_fit_and_names_the_step(tmp_path: Path, log_every: int) -> None:
    class Breaks(Line):
        def loss(self, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
            return {"loss": super().loss(batch, generator)["loss"] * (math.nan if self.step == 6 else 1)}

    config = settings(log_every=log_every, checkpoint_every=7, validate_every=0)
    with pytest.raises(
        MedphantomError, match=r"^loss is not finite at step 7, also at half .*; lower learning_rate"
    ) as caught:
        fit(Breaks(), ANY, config, work=tmp_path)
    assert "\n" not in str(caught.value)
    kept = [path.name for path in (tmp_path / "checkpoints").glob("step-*")]
    assert kept == ["step-000000000"]  # nothing spoiled was kept


def test_impossible_settings_are_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="batch_size must be a multiple of accumulate × processes = 3, got 8"):
        fit(Line(), ANY, settings(accumulate=3), work=tmp_path)
    with pytest.raises(ValidationError, match="steps"):
        FitConfig(steps=0)
    frozen = Line()
    frozen.network.requires_grad_(False)
    with pytest.raises(MedphantomError, match="no trainable parameter"):
        fit(frozen, ANY, settings(), work=tmp_path)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a CUDA device")
def test_a_missing_cuda_device_is_named(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="device = cuda, but this machine has no usable CUDA device; set device to"):
        fit(Line(), ANY, settings(device="cuda"), work=tmp_path)


def test_progress_counts_every_step(tmp_path: Path) -> None:
    seen: list[tuple[int, int, str]] = []
    fit(Line(), ANY, settings(steps=3), work=tmp_path, name="line", progress=lambda *now: seen.append(now))
    assert seen == [(1, 3, "line"), (2, 3, "line"), (3, 3, "line")]
