"""Text encoders: a small one that is trained with the denoiser, or the stored features of a pretrained one."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from medphantom.conditioning.config import EncoderSizes
from medphantom.conditioning.prompt import TextSchema
from medphantom.conditioning.tables import WithTables, for_each, table
from medphantom.conditioning.tokens import END, PADDING, START
from medphantom.core.errors import ArtifactError
from medphantom.core.extras import require
from medphantom.core.folders import no_space_becomes_one_line, work_folder
from medphantom.core.guard import reading

HEAD_CHANNELS = 16


class TextBank:
    """Features of texts from a frozen encoder, computed once and looked up by number; it grows with new texts.

    Args:
        tokens: Number T of tokens per text.
        width: Number W of features per token.
        dtype: Precision of the stored features.
    """

    def __init__(self, tokens: int, width: int, dtype: torch.dtype = torch.float16) -> None:
        self._features = torch.zeros(0, tokens, width, dtype=dtype)
        self._valid = torch.zeros(0, tokens, dtype=torch.bool)
        self._filled = 0

    def __len__(self) -> int:
        return self._filled

    @property
    def features(self) -> Tensor:
        """Features of all texts, ``(n, T, W)``."""
        return self._features[: self._filled]

    @property
    def valid(self) -> Tensor:
        """Where a text has tokens, bool ``(n, T)``."""
        return self._valid[: self._filled]

    def add(self, features: Tensor, valid: Tensor) -> None:
        """Add texts ``(n, T, W)`` and where they have tokens ``(n, T)``; they are numbered in order, from 0."""
        end = self._filled + len(features)
        if end > len(self._features):  # doubled, so that texts may come one by one
            room = max(end, 2 * len(self._features)) - len(self._features)
            self._features = torch.cat([self._features, self._features.new_zeros(room, *self._features.shape[1:])])
            self._valid = torch.cat([self._valid, self._valid.new_zeros(room, self._valid.shape[1])])
        self._features[self._filled : end] = features.to(self._features.dtype).cpu()
        self._valid[self._filled : end] = valid.cpu()
        self._filled = end

    def look_up(self, ids_B: Tensor) -> tuple[Tensor, Tensor]:
        """Return features ``(B, T, W)``, float32, and valid tokens ``(B, T)`` for numbers plus one, 0 for no text."""
        rows = ids_B.cpu()
        given = rows > 0
        features = torch.zeros(len(rows), *self.features.shape[1:])
        valid = torch.zeros(len(rows), self.features.shape[1], dtype=torch.bool)
        features[given] = self.features[rows[given] - 1].float()
        valid[given] = self.valid[rows[given] - 1]
        return features, valid

    def save(self, path: Path, ids: Tensor) -> None:
        """Store the features of numbers ``ids`` (0 for no text) atomically; no word of a text is written."""
        used, places = torch.unique(ids, return_inverse=True)
        if used[:1].tolist() != [0]:
            used, places = torch.cat([used.new_zeros(1), used]), places + 1
        rows = used[1:] - 1
        temporary = path.with_name(f".{path.name}.tmp")
        with no_space_becomes_one_line(path):
            work_folder(path.parent)
            content = {"features": self.features[rows], "valid": self.valid[rows], "ids": places.contiguous()}
            save_file(content, temporary)
            temporary.replace(path)

    def load(self, path: Path) -> Tensor | None:
        """Load what :meth:`save` stored and return its numbers; ``None`` if the file is missing or damaged."""
        try:
            with reading(path):
                content = load_file(path)
                ids, start = content["ids"], len(self)
                self.add(content["features"], content["valid"])
        except ArtifactError:
            return None
        return torch.where(ids > 0, ids + start, 0)


class TextEncoder(WithTables):
    """Common output stage of text encoders: learned vectors replace missing tokens and missing texts.

    MONAI's cross-attention has no padding mask, so padding is a constant token like any other.

    Args:
        tokens: Number T of tokens.
        dim: Width D of the tokens.
    """

    stored: ClassVar = {"padding": 1, "missing": 2, "missing_pooled": 1}

    def __init__(self, tokens: int, dim: int) -> None:
        super().__init__()
        self.total_tokens = tokens
        self.padding = table(0.02 * torch.randn(1, dim))
        self.missing = table(0.02 * torch.randn(tokens, dim))  # small, since many tokens have no meaning at first
        self.missing_pooled = table(torch.zeros(1, dim))

    def finish(self, tokens_BTD: Tensor, valid_BT: Tensor, pooled_BD: Tensor) -> tuple[Tensor, Tensor]:
        """Insert the learned vectors; a row without any valid token is a missing text."""
        given, total = valid_BT.any(dim=1), len(valid_BT)
        filled = torch.where(valid_BT.unsqueeze(-1), tokens_BTD, for_each(self.padding, total))
        context = torch.where(given.reshape(-1, 1, 1), filled, for_each(self.missing, total))
        return context, torch.where(given.unsqueeze(-1), pooled_BD, for_each(self.missing_pooled, total)[:, 0])


class EmbeddedText(TextEncoder):
    """A small CLIP text encoder (Radford et al. 2021, section 2.4) that is trained with the denoiser.

    Args:
        schema: Text schema, which gives the number of tokens.
        sizes: Vocabulary, width, layers, and the width of the context tokens.

    Raises:
        InputError: If transformers is not installed.
    """

    def __init__(self, schema: TextSchema, sizes: EncoderSizes) -> None:
        require("pretrained", "the embedded text encoder, a CLIP text model,")
        from transformers import CLIPTextConfig, CLIPTextModel

        super().__init__(schema.tokens, sizes.dim)
        self.net = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=sizes.vocabulary,
                hidden_size=sizes.text_width,
                intermediate_size=4 * sizes.text_width,
                projection_dim=sizes.text_width,
                num_hidden_layers=sizes.text_layers,
                num_attention_heads=sizes.text_width // HEAD_CHANNELS,
                max_position_embeddings=schema.tokens,
                pad_token_id=PADDING,
                bos_token_id=START,
                eos_token_id=END,
                # on CPU the backward pass of torch's fused attention takes three times as long on so few tokens
                attn_implementation="eager",
            )
        )
        self.to_context = nn.Linear(sizes.text_width, sizes.dim)
        self.to_pooled = nn.Linear(sizes.text_width, sizes.dim)

    def forward(self, ids_BT: Tensor) -> tuple[Tensor, Tensor]:
        """Map token numbers ``(B, T)``, 0 padding, to ``(B, T, D)`` and pooled ``(B, D)``, from the end mark."""
        hidden, pooled = self.hidden(ids_BT)
        return self.finish(self.to_context(hidden), ids_BT != PADDING, pooled)

    def hidden(self, ids_BT: Tensor) -> tuple[Tensor, Tensor]:
        """Return the network's output for each token ``(B, T, W)``, and pooled ``(B, D)``."""
        # attention is causal and padding comes last, so no valid token ever sees padding
        hidden = self.net(input_ids=ids_BT).last_hidden_state
        last = ((ids_BT != PADDING).sum(dim=1) - 1).clamp_min(0)
        pooled: Tensor = self.to_pooled(hidden[torch.arange(len(ids_BT), device=ids_BT.device), last])
        return hidden, pooled


class PretrainedText(TextEncoder):
    """Learned projection of the features of a frozen pretrained encoder, which is not part of the network.

    Args:
        schema: Text schema, which gives the number of tokens and their width.
        sizes: Width of the context tokens.
        bank: Bank of the features, shared with the reader that fills it.
    """

    def __init__(self, schema: TextSchema, sizes: EncoderSizes, bank: TextBank) -> None:
        super().__init__(schema.tokens, sizes.dim)
        self.bank = bank
        self.norm = nn.LayerNorm(schema.width)
        self.to_context = nn.Linear(schema.width, sizes.dim)
        self.to_pooled = nn.Linear(schema.width, sizes.dim)

    def forward(self, ids_B1: Tensor) -> tuple[Tensor, Tensor]:
        """Map numbers of texts in the bank plus one ``(B, 1)``, 0 for no text, to context and pooled (mean over
        tokens).
        """
        device = self.padding.weight.device
        features, valid = self.bank.look_up(ids_B1[:, 0])
        features, valid = self.norm(features.to(device)), valid.to(device)
        share = valid.float() / valid.sum(dim=1, keepdim=True).clamp_min(1)
        pooled = (features * share.unsqueeze(-1)).sum(dim=1)
        return self.finish(self.to_context(features), valid, self.to_pooled(pooled))
