"""Requested numbers, findings and texts: right ones score like real patients, wrong ones do not."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTextConfig, CLIPVisionConfig

from medphantom.cohorts.preprocess import Preprocess
from medphantom.cohorts.records import AttributeSpec, CohortSchema, ImageRecord, Provenance
from medphantom.cohorts.store import Cohort
from medphantom.cohorts.writer import CohortWriter
from medphantom.conditioning.tokens import train_tokenizer
from medphantom.core.errors import InputError
from medphantom.core.records import Array
from medphantom.quality.assessment.assess import assess
from medphantom.quality.config import AssessConfig
from medphantom.quality.data.texts import named_findings
from medphantom.quality.networks.encoders import load_text_image_encoder
from medphantom.quality.results.quality_report import QualityReport
from medphantom.quality.stats.estimate import Estimate

SIDE = 32
TEXTS = {True: "There is a bright disc.", False: "Even ground, no disc."}
CONFIG = AssessConfig.model_validate(
    {
        "networks": ["filters"],
        "draws": 2,
        "classifier": {"steps": 80, "device": "cpu"},
        "membership": {"enabled": False},
        "utility": {"enabled": False},
        "copies": {"kinds": ["as it is"], "core": ["as it is"], "controls": 0, "repeats": 20, "side": 8},
    }
)


def image(age: float, rng: np.random.Generator, *, disc: bool) -> Array:
    """Stripes that are the stronger the older; a disc in some."""
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE - 0.5
    stripes = np.cos(2 * np.pi * 4 * x + rng.uniform(0, 6)) * (age - 20) / 60
    found = 90 + 50 * stripes + 8 * rng.standard_normal((SIDE, SIDE))
    centre = rng.uniform(-0.2, 0.2, 2)
    if disc:
        found = np.where(np.hypot(x - centre[0], y - centre[1]) < 0.2, 230, found)
    return found.clip(0, 255).astype(np.uint8)


def write(path: Path, total: int, seed: int, *, synthetic: bool = False, wrong: bool = False) -> Cohort:
    """Images with age, finding and text; ``wrong``: they show other ages and findings than requested."""
    rng = np.random.default_rng(seed)
    schema = CohortSchema(
        kind="synthetic" if synthetic else "real",
        labels=("disc", "nodule"),
        has_text=True,
        attributes=(AttributeSpec(name="age", kind="continuous", unit="years"),),
    )
    splits = ("train", "test", "train", "val", "train", "test", "holdout", "train")
    with CohortWriter(path, schema) as writer:
        for number in range(total):
            age, disc = float(rng.uniform(20, 80)), bool(rng.integers(2))
            shown = (float(rng.uniform(20, 80)), bool(rng.integers(2))) if wrong else (age, disc)
            name = f"i{number:05d}"
            writer.add(
                ImageRecord(
                    image_id=name,
                    patient=name if synthetic else f"p{number // 2:05d}",
                    pixels=image(shown[0], rng, disc=shown[1]),
                    split="synthetic" if synthetic else splits[number // 2 % len(splits)],
                    labels={"disc": disc, "nodule": False},
                    attributes={"age": age},
                    text=TEXTS[disc],
                    provenance=Provenance("0" * 64, "{}", number) if synthetic else None,
                )
            )
    return Cohort.open(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("conditions")


@pytest.fixture(scope="module")
def clip(folder: Path) -> Path:
    """A tiny CLIP that learned from images like these, laid out as hubs lay it out."""
    from transformers import PreTrainedTokenizerFast

    place = folder / "clip"
    words = train_tokenizer([*TEXTS.values()] * 10, [f"p{i}" for i in range(20)], vocabulary=300, min_patients=1)
    marks = {"pad_token": "<padding>", "bos_token": "<start>", "eos_token": "<end>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, model_max_length=24, **marks)
    tokenizer.save_pretrained(place)
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    torch.manual_seed(0)
    model = CLIPModel(
        CLIPConfig(
            text_config=CLIPTextConfig(
                vocab_size=words.get_vocab_size(),
                max_position_embeddings=24,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
                **size,
            ).to_dict(),
            vision_config=CLIPVisionConfig(image_size=SIDE, patch_size=8, **size).to_dict(),
            projection_dim=16,
        )
    )
    processor = CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
    processor.save_pretrained(place)
    rng = np.random.default_rng(9)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for _ in range(60):
        shown = [bool(rng.integers(2)) for _ in range(24)]
        pixels = [np.repeat(image(rng.uniform(20, 80), rng, disc=disc)[..., None], 3, axis=2) for disc in shown]
        batch = processor(images=pixels, return_tensors="pt")
        read = tokenizer([TEXTS[disc] for disc in shown], padding="max_length", max_length=24, return_tensors="pt")
        read.pop("token_type_ids", None)
        logits = model(pixel_values=batch["pixel_values"], **read).logits_per_image
        same = torch.tensor([[one == other for other in shown] for one in shown])
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, same.float())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.save_pretrained(place)
    return place


@pytest.fixture(scope="module")
def reports(folder: Path, clip: Path) -> dict[str, QualityReport]:
    real = write(folder / "real", 480, 1)
    config = CONFIG.model_copy(update={"text_encoder": str(clip)})
    preprocess = Preprocess(size=(SIDE, SIDE))
    found = {}
    for name in ("right", "wrong"):
        made = write(folder / name, 110, 2, synthetic=True, wrong=name == "wrong")
        found[name] = assess(real, made, preprocess, config, work=folder / "work")
    return found


def estimate(report: QualityReport, name: str, label: str | None = None, network: str | None = None) -> Estimate:
    found = report.find(name, label=label, network=network)
    assert found.value is not None, found.refused
    assert found.floor is not None
    return found


def test_requested_ages_are_read_off_right_images_only(reports: dict[str, QualityReport]) -> None:
    right, wrong = (estimate(reports[name], "attribute_error", "age") for name in ("right", "wrong"))
    assert right.interval is not None
    assert wrong.interval is not None
    assert right.floor_interval is not None
    assert right.interval[0] < right.floor_interval[1]
    assert right.floor_interval[0] < right.interval[1]
    assert wrong.interval[0] > 1.5 * right.interval[1]
    assert estimate(reports["right"], "attribute_r2", "age").value > 0.5  # type: ignore[operator]
    assert estimate(reports["wrong"], "attribute_r2", "age").value < 0.1  # type: ignore[operator]
    assert "years" in right.estimand


def test_findings_that_a_text_names_are_seen_in_right_images_only(reports: dict[str, QualityReport]) -> None:
    right, wrong = (estimate(reports[name], "text_findings", "disc") for name in ("right", "wrong"))
    assert right.value is not None
    assert right.value > 0.95
    assert right.floor is not None
    assert right.floor > 0.95
    assert wrong.interval is not None
    assert wrong.interval[0] < 0.5 < wrong.interval[1]
    none = reports["right"].find("text_findings", label="nodule")
    assert none.value is None
    assert none.refused is not None
    assert "affirm it" in none.refused


def test_calibration_is_that_of_real_patients_where_images_show_what_was_requested(
    reports: dict[str, QualityReport],
) -> None:
    right, wrong = (estimate(reports[name], "label_calibration", "disc") for name in ("right", "wrong"))
    assert right.value is not None
    assert wrong.value is not None
    assert right.value < 0.15
    assert wrong.value > 0.3
    assert reports["right"].find("label_calibration", label="nodule").refused is not None


def test_a_pair_of_encoders_tells_texts_that_fit(reports: dict[str, QualityReport]) -> None:
    right, wrong = (estimate(reports[name], "text_match", network="clip") for name in ("right", "wrong"))
    assert right.interval is not None
    assert right.interval[0] > 0.85
    assert right.floor is not None
    assert right.floor > 0.85
    assert wrong.interval is not None
    assert wrong.interval[0] < 0.5 < wrong.interval[1]
    score, low = (estimate(reports[name], "clip_score", network="clip") for name in ("right", "wrong"))
    assert score.network_digest
    assert score.value is not None
    assert low.interval is not None
    assert score.value > low.interval[1]
    assert abs(score.value - (score.floor or 0)) < 5


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Large pleural effusion on the left.", (1, -1)),
        ("No pleural effusion. Pneumothorax on the right.", (0, 1)),
        ("No effusion, pleural-effusion or pneumothorax", (0, 0)),
        ("pneumothorax is not seen", (-1, 0)),
        ("No pneumothorax; pleural effusions", (1, 0)),
        ("Without pneumothorax but with a pleural effusion", (1, 0)),
        ("Pneumothoraxlike shadow", (-1, -1)),
        ("No pneumothorax before; now a pneumothorax.", (-1, 1)),
        ("", (-1, -1)),
    ],
)
def test_names_in_texts_are_found_with_their_negations(text: str, expected: tuple[int, int]) -> None:
    assert tuple(named_findings(text, ("Pleural_Effusion", "Pneumothorax")).tolist()) == expected


def test_an_encoder_that_is_none_or_lacks_weights_is_one_line(clip: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be loaded"):
        load_text_image_encoder(str(tmp_path))
    lacking = tmp_path / "lacking"
    shutil.copytree(clip, lacking)
    weights = load_file(lacking / "model.safetensors")
    del weights["text_projection.weight"]
    save_file(weights, lacking / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        InputError, match=r"1 of its weights are missing from the checkpoint \(text_projection\.weight\)"
    ):
        load_text_image_encoder(str(lacking))
