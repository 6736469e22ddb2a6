"""White-box audit of private steps: canaries in one run, with the noise of a budget and without any.

Each canary is a unit of one row with a place of its own in the input of a small network; a coin says whether it is in
the training data. The auditor sees every noised gradient and every weight, computes each canary's clipped gradient at
each step, and scores a canary by the inner products of the two, where no other canary has a part. Run by hand, some
minutes on a CPU::

    python -m benchmarks.dp_audit --canaries 2000 --epsilon 1
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.measuring import write_result
from medphantom.core.randomness import derive_seed, torch_generator
from medphantom.learning.audit import ceiling, correct_predictions, epsilon_at_least
from medphantom.learning.batches import TensorBatches
from medphantom.learning.devices import make_accelerator
from medphantom.learning.fit_config import FitConfig
from medphantom.learning.learner import RowLearner
from medphantom.learning.private_config import PrivateFitConfig
from medphantom.learning.private_steps import Private, PrivateSteps, Units
from medphantom.learning.row_gradients import RowGradients

DELTA = 1e-5
WIDTH = 4
LOUD = 100.0


class Canaries(RowLearner):
    """A small network whose first layer has a column for each canary."""

    def __init__(self, total: int, seed: int) -> None:
        torch.manual_seed(derive_seed(seed, "weights"))
        super().__init__(nn.Sequential(nn.Linear(total, WIDTH), nn.SiLU(), nn.Linear(WIDTH, 1)))

    def prepare(self, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """Nothing is random about a canary."""
        del generator
        return batch

    def row_losses(self, prepared: dict[str, Tensor]) -> Tensor:
        """Squared error."""
        error: Tensor = self.network(prepared["x"])[:, 0] - prepared["y"]
        return error.square()


def audit(total: int, epsilon: float | None, *, steps: int, share: float, seed: int) -> dict[str, Any]:
    """One run with ``total`` canaries; returns the number of predicted coins, and the ε that they refute.

    Args:
        total: canaries.
        epsilon: budget; ``None``: no noise.
        steps: private steps.
        share: expected share of the units per step.
        seed: of coins and weights.
    """
    # Coins and weights from streams of their own: from one and the same, the first weights would tell the coins.
    included = torch.rand(total, generator=torch_generator(seed, "coins")) < 0.5
    x, y = LOUD * torch.eye(total), torch.full((total,), LOUD)
    rows = torch.nonzero(included).flatten()
    learner = Canaries(total, seed)
    learner.network.train()
    optimizer = torch.optim.SGD(learner.network.parameters(), lr=1e-4)
    fit = FitConfig(steps=steps, batch_size=round(share * len(rows)), device="cpu", precision="fp32", tracker="none")
    config = PrivateFitConfig(epsilon=epsilon, delta=DELTA, draws=1, gradients="hooks", rows_at_once=256)
    scores = torch.zeros(total, dtype=torch.float64)
    with tempfile.TemporaryDirectory() as work:
        private = PrivateSteps(
            learner,
            TensorBatches({"x": x[rows], "y": y[rows]}),
            Private(config, Units(torch.arange(len(rows)))),
            fit,
            optimizer,
            accelerator=make_accelerator("cpu", "fp32", accumulate=1, tracker="none", work=Path(work)),
            work=Path(work),
        )
        private.begin(0, None)
        for step in range(steps):
            own = clipped(learner, {"x": x, "y": y}, config.clip_norm, private)
            private.take(step)
            scores += own @ private.parameters[0].grad.flatten().double()
            optimizer.step()
        parameters, guarantee = private.ledger.parameters, private.ledger.guarantee()
        private.close()
    predictions = total // 4 * 2  # half of them; fixed beforehand
    correct = correct_predictions(scores.tolist(), included.tolist(), predictions)
    return {
        "promised_epsilon": None if guarantee is None else guarantee.epsilon,
        "noise_multiplier": parameters.noise_multiplier,
        "canaries": total,
        "steps": steps,
        "guesses": predictions,
        "correct": correct,
        "epsilon_at_least": epsilon_at_least(DELTA, canaries=total, predictions=predictions, correct=correct),
        "ceiling": ceiling(DELTA, predictions=predictions),
        "seed": seed,
    }


def clipped(learner: Canaries, rows: dict[str, Tensor], bound: float, private: PrivateSteps) -> Tensor:
    """The clipped gradient of every canary at the present weights, ``(canaries, weights of the first layer)`` float64.

    Only there has a canary a place that no other one has; elsewhere the others would drown it.
    """
    hooks = private.hooks
    if not isinstance(hooks, RowGradients):
        raise TypeError("the audit needs hooks")
    found = []
    for start in range(0, len(rows["x"]), 256):
        hooks.compute(learner.row_losses, {name: tensor[start : start + 256] for name, tensor in rows.items()})
        gradients = torch.cat([p.grad_sample.flatten(1) for p in private.parameters], dim=1)
        factor = (bound / (gradients.norm(dim=1, keepdim=True) + 1e-6)).clamp(max=1)
        found.append((private.parameters[0].grad_sample.flatten(1) * factor).double())
    return torch.cat(found)


def main(given: Sequence[str] | None = None) -> dict[str, Any]:
    """Audit with noise and without; print and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--canaries", type=int, default=2000)
    parser.add_argument("--epsilon", type=float, nargs="+", default=[1.0])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--share", type=float, default=0.5)
    parser.add_argument("--seeds", type=int, default=5)
    chosen = parser.parse_args(given)
    runs = []
    for epsilon in [*chosen.epsilon, None]:
        for seed in range(chosen.seeds):
            found = audit(chosen.canaries, epsilon, steps=chosen.steps, share=chosen.share, seed=seed)
            runs.append(found)
            print(
                f"ε {'∞' if epsilon is None else f'{epsilon:g}'}, seed {seed}: {found['correct']} of "
                f"{found['guesses']} predictions correct, ε is at least {found['epsilon_at_least']:.3f} "
                f"(an audit of this size can say {found['ceiling']:.2f} at most)",
                flush=True,
            )
    result = {"arguments": vars(chosen), "delta": DELTA, "runs": runs}
    write_result("dp_audit", result)
    return result


if __name__ == "__main__":
    main()
