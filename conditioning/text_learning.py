"""Pretraining of the embedded text encoder before the denoiser uses it.

The denoiser's error hardly depends on a single word of a prompt, so an encoder that learns from it alone takes very
long to distinguish findings. The content of a text is known in a training cohort: the labels and attributes of its
image. Predicting them from the text, and each next word (Radford et al. 2018), takes a minute or two and no image.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medphantom.conditioning.encoder import MISSING, PRESENT, Conditions
from medphantom.conditioning.prompt import ConditionSchema
from medphantom.conditioning.text_encoder import EmbeddedText
from medphantom.conditioning.tokens import PADDING
from medphantom.core.errors import InputError
from medphantom.learning.learner import Learner


class TextQuestions(nn.Module):
    """The encoder with its prediction heads: next words, labels, numbers and categories.

    Args:
        encoder: Text encoder to train; its token table also serves to predict the next words.
        schema: Labels and attributes to predict, whether or not the generator reads them as such.
        dim: Width D of the encoder's pooled vector.
    """

    def __init__(self, encoder: EmbeddedText, schema: ConditionSchema, dim: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.widths = [len(schema.labels), len(schema.continuous), *(1 + len(s.categories) for s in schema.categorical)]
        self.answers = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, sum(self.widths)))

    def forward(self, ids_BT: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Map token numbers ``(B, T)`` to logits of the next tokens ``(B, T, V)`` and predictions of the content.

        The latter are logits of labels ``(B, L)``, continuous attributes ``(B, C)`` in -1…1, and logits of each
        category.
        """
        hidden, pooled = self.encoder.hidden(ids_BT)
        words = F.linear(hidden, self.encoder.net.get_input_embeddings().weight)
        return words, torch.split(self.answers(pooled), self.widths, dim=1)


class TextLearner(Learner):
    """Trains a text encoder on batches of the tensors of :class:`Conditions`, with all labels and attributes.

    Args:
        network: Encoder with its prediction heads.
    """

    network: TextQuestions

    def __init__(self, network: TextQuestions) -> None:
        super().__init__(network)

    def loss(self, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """Return the cross-entropy of words, labels and categories, and the squared error of numbers."""
        conditions = Conditions.from_tensors(batch).one_paraphrase(generator)
        ids = conditions.text_BT
        if ids is None:
            raise InputError("a text encoder needs conditions with texts")
        words, (labels, numbers, *categories) = self.network(ids)
        parts = {
            "words": F.cross_entropy(words[:, :-1].flatten(0, 1).float(), ids[:, 1:].flatten(), ignore_index=PADDING)
        }
        observed = ids.any(dim=1, keepdim=True)
        if labels.shape[1]:
            errors = F.binary_cross_entropy_with_logits(
                labels.float(), (conditions.labels_BL == PRESENT).float(), reduction="none"
            )
            parts["labels"] = _mean(errors, (conditions.labels_BL != MISSING) & observed)
        if numbers.shape[1]:
            wanted = conditions.continuous_BC
            errors = (numbers.float() - torch.nan_to_num(wanted)).square()
            parts["numbers"] = _mean(errors, ~torch.isnan(wanted) & observed)
        for place, logits in enumerate(categories):
            wanted = conditions.categorical_BK[:, place]
            errors = F.cross_entropy(logits.float(), wanted, reduction="none")
            parts[f"category {place}"] = _mean(errors, (wanted > 0) & observed[:, 0])
        return {"loss": torch.stack(list(parts.values())).sum(), **parts}


def _mean(errors: Tensor, counted: Tensor) -> Tensor:
    """Return the mean over the counted values; 0 if there are none."""
    return (errors * counted).sum() / counted.sum().clamp_min(1)
