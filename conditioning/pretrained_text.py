"""Pretrained text encoders: read by transformers, from a folder or a hub id, safetensors only."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from medphantom.conditioning.foreign import foreign_networks
from medphantom.conditioning.prompt import TextSchema
from medphantom.conditioning.text_encoder import TextBank
from medphantom.conditioning.tokens import TokenizedTexts
from medphantom.conditioning.weights import load_whole
from medphantom.core.errors import InputError
from medphantom.core.extras import require

CLIP_KINDS = {"clip", "clip_text_model"}
STEM = "model"  # of transformers' files of weights
UNREAD = ("pooler.",)  # summaries of a text, which are not used


class PretrainedReader:
    """A frozen text encoder and the bank of its features; each text is encoded once, alone, at one length.

    A text is encoded alone so that its features do not depend on the other texts.

    Args:
        source: Hub id or folder of a text encoder for transformers; of a CLIP model, its text half.
        tokens: Number T of tokens per text; ``None`` means the maximum of its tokenizer.

    Raises:
        InputError: If transformers is not installed, or the encoder is not available, has no safetensors, or takes
            fewer tokens.
    """

    def __init__(self, source: str, tokens: int | None) -> None:
        require("pretrained", f"text encoder {source}")
        self.source = source
        self._tokenizer, self._network, self.file = self._load()
        config = self._network.config
        self.tokens = int(self._tokenizer.model_max_length) if tokens is None else tokens
        takes = getattr(config, "max_position_embeddings", self.tokens)
        if takes < self.tokens:
            raise InputError(
                f"text encoder {source} takes {takes} tokens, but conditioning.text.tokens is {self.tokens}",
                f"set conditioning.text.tokens to at most {takes}",
            )
        self.width = int(config.hidden_size)
        self.bank = TextBank(self.tokens, self.width)
        self._numbers: dict[str, int] = {}
        self._long: set[str] = set()

    @property
    def digest(self) -> str:
        """SHA-256 of all weights and of the tokenizer, so that another encoder of the same name is detected."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self._network.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().contiguous().view(torch.uint8).numpy().tobytes())
        digest.update(repr(sorted(self._tokenizer.get_vocab().items())).encode())
        return digest.hexdigest()

    def read(self, texts: Sequence[str | None]) -> TokenizedTexts:
        """Return the numbers of texts in the bank, plus one; 0 for no text. New texts are encoded."""
        ids = torch.zeros(len(texts), 1, dtype=torch.int64)
        truncated = []
        for place, text in enumerate(texts):
            if not text:
                continue
            if text not in self._numbers:
                self._encode(text)
            ids[place, 0] = 1 + self._numbers[text]
            if text in self._long:
                truncated.append(place)
        return TokenizedTexts(ids.numpy(), tuple(truncated))

    def too_long(self, texts: Sequence[str]) -> int:
        """Return how many of the texts have more tokens than are read."""
        return sum(
            len(self._tokenizer(text, truncation=False, verbose=False)["input_ids"]) > self.tokens for text in texts
        )

    def schema(self) -> TextSchema:
        """Return the description of this encoder for a generator that was trained with it."""
        return TextSchema(encoder=self.source, tokens=self.tokens, width=self.width, digest=self.digest)

    @torch.inference_mode()
    def _encode(self, text: str) -> None:
        whole = self._tokenizer(text, truncation=False, verbose=False)["input_ids"]
        if len(whole) > self.tokens:
            self._long.add(text)
        batch = self._tokenizer(
            text, truncation=True, max_length=self.tokens, padding="max_length", return_tensors="pt", verbose=False
        )
        hidden = self._network(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
        self._numbers[text] = len(self.bank)
        self.bank.add(hidden, batch["attention_mask"].bool())

    def _load(self) -> tuple[Any, Any, str]:
        return _load(self.source)


class PipelineReader(PretrainedReader):
    """The text encoder of a Stable Diffusion pipeline, used as in the pipeline: with all tokens, including padding.

    Args:
        source: Hub id or folder of the pipeline (with ``tokenizer/`` and ``text_encoder/``).

    Raises:
        InputError: If it is not available, or has no safetensors.
    """

    def __init__(self, source: str) -> None:
        super().__init__(source, None)
        self.bank = TextBank(self.tokens, self.width, dtype=torch.float32)

    def schema(self) -> TextSchema:
        """Return the description of this encoder, see :meth:`PretrainedReader.schema`."""
        return super().schema().model_copy(update={"pipeline": True})

    @torch.inference_mode()
    def features(self, text: str) -> torch.Tensor:
        """Return the features of a text, truncated to its length; float32 ``(T, W)``."""
        batch = self._tokenizer(
            text, truncation=True, max_length=self.tokens, padding="max_length", return_tensors="pt", verbose=False
        )
        mask = batch["attention_mask"] if getattr(self._network.config, "use_attention_mask", False) else None
        found: torch.Tensor = self._network(input_ids=batch["input_ids"], attention_mask=mask).last_hidden_state[0]
        return found

    def _encode(self, text: str) -> None:
        if self.too_long([text]):
            self._long.add(text)
        self._numbers[text] = len(self.bank)
        self.bank.add(self.features(text).unsqueeze(0), torch.ones(1, self.tokens, dtype=torch.bool))

    def _load(self) -> tuple[Any, Any, str]:
        from transformers import CLIPTextModel, CLIPTokenizer

        source = self.source
        tokenizer = _opened(
            f"tokenizer of {source}",
            source,
            lambda: CLIPTokenizer.from_pretrained(source, subfolder="tokenizer", trust_remote_code=False),
        )
        what = f"text encoder of {source}"
        network, file = load_whole(
            source, "text_encoder", STEM, what, _reading(CLIPTextModel, source, "text_encoder"), superfluous=True
        )
        return tokenizer, network.eval().requires_grad_(False), file


def open_reader(schema: TextSchema) -> PretrainedReader:
    """Return the encoder with which a generator was trained.

    Raises:
        InputError: If it is not available, or has changed.
    """
    reader = PipelineReader(schema.encoder) if schema.pipeline else PretrainedReader(schema.encoder, schema.tokens)
    if reader.digest != schema.digest:
        raise InputError(
            f"text encoder {schema.encoder} is not the one that this generator was trained with",
            "provide the revision that was used: its digest is in bundle.json",
        )
    return reader


def _load(source: str) -> tuple[Any, Any, str]:
    """Return tokenizer, network and its file; nothing is unpickled, and no code of a repository is executed."""
    from transformers import AutoConfig, AutoModel, AutoTokenizer, CLIPTextModel

    def described() -> tuple[Any, Any]:
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
        return AutoTokenizer.from_pretrained(source, trust_remote_code=False), config

    what = f"text encoder {source}"
    tokenizer, config = _opened(what, source, described)
    kind = CLIPTextModel if config.model_type in CLIP_KINDS else AutoModel
    network, file = load_whole(source, "", STEM, what, _reading(kind, source, ""), spare=UNREAD, superfluous=True)
    return tokenizer, network.eval().requires_grad_(False), file


def _reading(kind: Any, source: str, subfolder: str) -> Callable[[str | None], tuple[Any, dict[str, Any]]]:
    """Return a function that reads a variant of the weights, with the library's loading report."""

    def read(variant: str | None) -> tuple[Any, dict[str, Any]]:
        found: tuple[Any, dict[str, Any]] = kind.from_pretrained(
            source,
            subfolder=subfolder,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=torch.float32,
            variant=variant,
            output_loading_info=True,
        )
        return found

    return read


def _opened(what: str, source: str, read: Callable[[], Any]) -> Any:
    remedy = "check that the folder contains config.json, the tokenizer and model.safetensors"
    if not Path(source).is_dir():
        remedy = "give a folder that contains its config.json, tokenizer and model.safetensors, or connect to the hub"
    with foreign_networks(what, "cannot be had", remedy, source=source):
        return read()
