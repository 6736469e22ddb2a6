from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from medphantom.cohorts.preprocess import Preprocess
from medphantom.core.errors import InputError, UnsupportedClaim
from medphantom.core.randomness import derive_seed
from medphantom.quality.config import ClassifierConfig
from medphantom.quality.data.targets import Targets
from medphantom.quality.networks.classifier import SmallCNN, fit_classifier, middle_slices, predict
from medphantom.quality.networks.encoders import load_encoder
from medphantom.quality.networks.features import (
    check_names,
    cross_fitted,
    features_that_fit,
    patient_folds,
    simulated,
)
from medphantom.quality.networks.filters import (
    NUM_FEATURES,
    NUM_VOLUME_FEATURES,
    FilterBank,
    VolumeFilterBank,
    gabor_pairs,
)
from medphantom.quality.networks.fixed_networks import encoder, filter_bank, volume_filters
from medphantom.quality.stats.auroc import auroc
from tests.quality.scenes import KINDS, blurred, images

FAST = ClassifierConfig(steps=60, batch_size=16, learning_rate=5e-3, device="cpu")


def one_hot(kinds: np.ndarray) -> np.ndarray:
    return np.eye(len(KINDS), dtype=np.int8)[kinds]


def test_filters_answer_texture_and_not_constant_grey() -> None:
    assert gabor_pairs().double().sum(dim=(1, 2, 3)).numpy() == pytest.approx(0, abs=1e-6)
    bank = FilterBank()
    flat = bank(torch.full((1, 1, 64, 64), 0.3))[0, 8:]
    energies = flat.view(4, 14)[:, :6]
    assert energies.numpy() == pytest.approx(np.log(1e-3 / 0.03), abs=0.01)
    x = torch.arange(64) * (2 * np.pi / 4)
    vertical = torch.cos(x).expand(1, 1, 64, 64)
    finest = bank(vertical)[0, 8 : 8 + 6]
    assert int(finest.argmax()) == 0  # orientation 0 has its wave along x
    assert int(bank(vertical.transpose(2, 3))[0, 8 : 8 + 6].argmax()) == 3  # 90 degrees on


def test_filters_are_finite_on_any_size_and_see_a_blur() -> None:
    bank = FilterBank()
    for side in (8, 33, 96):
        assert torch.isfinite(bank(torch.rand(2, 1, side, side) * 2 - 1)).all()
    some = images(12, np.random.default_rng(0))[0]
    sharp, soft = bank(torch.from_numpy(some)), bank(torch.from_numpy(blurred(some)))
    assert sharp.shape == (12, NUM_FEATURES)
    assert (soft[:, 8:14] < sharp[:, 8:14] - 0.2).all()


def test_filter_network_is_the_same_everywhere_and_averages_views_of_volumes() -> None:
    network = filter_bank(5, "cpu").folds[0].network
    assert network.digest == filter_bank(9, "cpu").folds[0].network.digest
    volume = np.random.default_rng(0).uniform(-1, 1, (2, 1, 16, 20, 24)).astype(np.float32)
    found = network.features(volume)
    by_hand = np.mean([network.features(v.numpy()) for v in middle_slices(torch.from_numpy(volume))], axis=0)
    assert found == pytest.approx(by_hand, abs=1e-5)


def test_volume_filters_see_what_no_middle_slice_shows() -> None:
    rng = np.random.default_rng(0)
    some = rng.uniform(-1, 1, (40, 1, 16, 20, 24)).astype(np.float32)
    other = some.copy()
    other[:, :, 1:4, 1:5, 1:6] *= 0.1  # a corner without texture, off every middle slice
    slices, whole = filter_bank(5, "cpu").folds[0].network, volume_filters(5, 3, "cpu").folds[0].network
    assert slices.features(some) == pytest.approx(slices.features(other), abs=1e-6)
    before, after = whole.features(some), whole.features(other)
    assert before.shape == (40, NUM_VOLUME_FEATURES)
    assert np.abs(before.mean(axis=0) - after.mean(axis=0)).max() > 3 * before.std(axis=0).min()
    assert whole.digest == volume_filters(9, 3, "cpu").folds[0].network.digest
    with pytest.raises(InputError, match="accepts volumes only"):
        volume_filters(5, 2, "cpu")


@pytest.mark.parametrize("shape", [(4, 4, 4), (2, 16, 16), (9, 33, 20)])
def test_volume_filters_are_finite_on_any_size_and_tell_axes_apart(shape: tuple[int, ...]) -> None:
    bank = VolumeFilterBank()
    volume = torch.rand((2, 2, *shape), generator=torch.Generator().manual_seed(0)) * 2 - 1
    found = bank(volume)
    assert found.shape == (2, NUM_VOLUME_FEATURES)
    assert torch.isfinite(found).all()
    waves = torch.cos(torch.arange(16) * 1.5)[:, None, None].expand(1, 1, 16, 16, 16)
    slopes = [bank(waves.movedim(2, axis))[0, 8:14:2] for axis in (2, 3, 4)]
    assert [int(one.argmax()) for one in slopes] == [0, 1, 2]


def test_folds_share_no_patient_and_balance_classes() -> None:
    rng = np.random.default_rng(0)
    patients = np.repeat([f"p{i}" for i in range(90)], rng.integers(1, 4, 90)).tolist()
    strata = np.array([int(name[1:]) % 3 for name in patients])
    first, second = patient_folds(patients, strata, rng)
    assert not {patients[i] for i in first} & {patients[i] for i in second}
    assert sorted([*first, *second]) == list(range(len(patients)))
    assert abs(len(first) - len(second)) <= 3
    assert np.abs(np.bincount(strata[first]) - np.bincount(strata[second])).max() <= 6


def test_cross_fitted_networks_never_score_whom_they_were_fitted_on(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    test, kinds = images(96, rng)
    val, val_kinds = images(24, rng)
    patients = {"val": [f"v{i}" for i in range(24)], "test": [f"t{i // 2}" for i in range(96)]}
    pairs = kinds[::2].repeat(2)  # both images of a patient are of one kind
    test = np.stack([images(3, rng)[0][kind] for kind in pairs])
    targets = Targets(KINDS, True, {"val": one_hot(val_kinds), "test": one_hot(pairs)}, "labels")
    run = cross_fitted(
        {"val": val, "test": test}, patients, targets, total_synthetic=500, seed=3, config=FAST, work=tmp_path
    )
    assert sorted(np.concatenate([fold.rows for fold in run.folds])) == list(range(96))
    folds = [{patients["test"][i] for i in fold.rows} for fold in run.folds]
    assert not folds[0] & folds[1]
    assert run.facts.held_out_score is not None
    assert run.facts.held_out_score > 0.8
    # Each network saw val and the *other* fold: it is reproduced from exactly those images.
    mine, theirs = run.folds[1].rows, run.folds[0].rows
    again = fit_classifier(
        np.concatenate([val, test[theirs]]), np.concatenate([one_hot(val_kinds), one_hot(pairs[theirs])]),
        exclusive=True, num_features=run.facts.num_features, config=FAST,
        seed=derive_seed(3, "feature network", 1), work=tmp_path / "again",
    )  # fmt: skip
    with torch.inference_mode():
        expected = again.features(torch.from_numpy(test[mine])).numpy()
    assert run.folds[1].network.features(test[mine]) == pytest.approx(expected, abs=1e-6)
    shared = {"val": ["t0"] * 24, "test": patients["test"]}
    with pytest.raises(UnsupportedClaim, match="val and test share patients"):
        cross_fitted({"val": val, "test": test}, shared, targets, total_synthetic=9, seed=3, config=FAST, work=tmp_path)


def test_number_of_features_is_what_the_halves_support() -> None:
    assert [features_that_fit(n) for n in (500, 128, 127, 96, 64, 33, 3)] == [64, 64, 48, 48, 32, 16, 16]


def test_classifier_ignores_labels_that_are_not_observed(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    some, kinds = images(180, rng)
    truth = one_hot(kinds)
    hidden, longer = truth.copy(), FAST.model_copy(update={"steps": 150})
    hidden[:, 2] = -1  # never observed
    hidden[::2, 0] = -1
    network = fit_classifier(some, hidden, exclusive=False, num_features=32, config=longer, seed=0, work=tmp_path)
    held_out, kinds = images(60, rng)
    predictions = predict(network, held_out, exclusive=False, device="cpu")
    found = [auroc(kinds == kind, predictions[:, kind]) for kind in (0, 1)]
    assert min(score for score in found if score is not None) > 0.85
    with pytest.raises(UnsupportedClaim, match="at least one known label"):
        fit_classifier(
            some, np.full_like(truth, -1), exclusive=False, num_features=16, config=FAST, seed=0, work=tmp_path
        )


def test_classifier_is_a_function_of_its_seed_and_a_finished_one_is_only_loaded(tmp_path: Path) -> None:
    some, kinds = images(48, np.random.default_rng(0))
    config = FAST.model_copy(update={"steps": 8})

    def fit(seed: int, work: Path, reported: list[int]) -> SmallCNN:
        return fit_classifier(
            some, one_hot(kinds), exclusive=True, num_features=16, config=config, seed=seed, work=work,
            progress=lambda done, total, what="": reported.append(done),
        )  # fmt: skip

    reported: list[int] = []
    first = fit(1, tmp_path / "a", reported)
    assert reported[-1] == 8
    reported.clear()
    again, elsewhere, other = (
        fit(*args, reported) for args in ((1, tmp_path / "a"), (1, tmp_path / "b"), (2, tmp_path / "a"))
    )
    assert len(reported) == 16  # of the three, the first was only loaded
    weights = [torch.cat([p.flatten() for p in net.parameters()]) for net in (first, again, elsewhere, other)]
    assert torch.equal(weights[0], weights[1])
    assert torch.equal(weights[0], weights[2])
    assert not torch.equal(weights[0], weights[3])


@pytest.mark.parametrize("shape", [(2, 1, 8, 8), (2, 3, 65, 130), (2, 1, 200, 256), (2, 1, 17, 24, 20)])
def test_classifier_takes_any_size(shape: tuple[int, ...]) -> None:
    network = SmallCNN(shape[1], 16, 4, min(shape[2:]))
    assert network(torch.zeros(shape)).shape == (2, 4)
    assert network.features(torch.zeros(shape)).shape == (2, 16)


def test_simulated_network_needs_no_real_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medphantom.quality.networks.features.SIMULATED_PATIENTS", 12)
    preprocess = Preprocess(size=(32, 32))
    config = FAST.model_copy(update={"steps": 4})
    run = simulated(preprocess, 40, total_synthetic=100, seed=0, config=config, work=tmp_path)
    assert run.folds[0].rows.tolist() == list(range(40))
    assert "simulated patients" in run.facts.fitted_on
    found = run.folds[0].network.features(images(3, np.random.default_rng(0))[0])
    assert found.shape == (3, run.facts.num_features)


@pytest.fixture(scope="module")
def tiny_dinov2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real DINOv2 of two thin layers, in its publisher's layout."""
    transformers = pytest.importorskip("transformers")
    logging.getLogger("transformers").setLevel(logging.ERROR)
    folder = tmp_path_factory.mktemp("encoder") / "tiny-dinov2"
    torch.manual_seed(0)
    config = transformers.Dinov2Config(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=14, mlp_ratio=2
    )
    transformers.Dinov2Model(config).save_pretrained(folder)
    size = {"size": {"shortest_edge": 28}, "crop_size": {"height": 28, "width": 28}}
    transformers.BitImageProcessor(**size).save_pretrained(folder)
    return folder


def test_a_transformers_encoder_scores_from_its_folder(tiny_dinov2: Path) -> None:
    run = encoder(str(tiny_dinov2), 7, "cpu")
    assert run.facts.num_features == 32
    assert run.facts.name == "tiny-dinov2"
    some = images(3, np.random.default_rng(0))[0]
    found = run.folds[0].network.features(some)
    from transformers import Dinov2Model

    model = Dinov2Model.from_pretrained(tiny_dinov2).eval()
    module = load_encoder(str(tiny_dinov2))[0]
    colour = ((torch.from_numpy(some).repeat(1, 3, 1, 1) + 1) * 127.5).round().to(torch.uint8)
    pixels = module.processor(images=list(colour.numpy()), return_tensors="pt", input_data_format="channels_first")
    with torch.inference_mode():
        expected = model(**pixels).pooler_output.numpy()
    assert found == pytest.approx(expected, abs=1e-5)
    assert np.ptp(found, axis=0).max() > 1e-3


def test_an_encoder_is_never_swapped_and_pickled_weights_are_refused(tiny_dinov2: Path, tmp_path: Path) -> None:
    weights = load_file(tiny_dinov2 / "model.safetensors")
    for name in ("config.json", "preprocessor_config.json"):
        (tmp_path / name).write_bytes((tiny_dinov2 / name).read_bytes())
    torch.save(weights, tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"cannot be loaded; .*model\.safetensors"):
        encoder(str(tmp_path), 7, "cpu")
    (tmp_path / "preprocessor_config.json").unlink()
    with pytest.raises(InputError, match=r"lacks preprocessor_config\.json"):
        encoder(str(tmp_path), 7, "cpu")


def test_an_encoder_that_lacks_weights_is_refused(
    tiny_dinov2: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The library fills them with random numbers, so that the same images score otherwise in each process."""
    weights = load_file(tiny_dinov2 / "model.safetensors")
    for name in ("config.json", "preprocessor_config.json"):
        (tmp_path / name).write_bytes((tiny_dinov2 / name).read_bytes())
    logging.getLogger("transformers").setLevel(logging.WARNING)
    lost = {"layernorm.weight", "encoder.layer.1.mlp.fc1.weight"}
    assert lost < set(weights)
    save_file(
        {name: tensor for name, tensor in weights.items() if name not in lost},
        tmp_path / "model.safetensors",
        metadata={"format": "pt"},
    )
    with pytest.raises(
        InputError, match=r"2 of its weights are missing from the checkpoint \(encoder\.layer\.1\."
    ) as raised:
        encoder(str(tmp_path), 7, "cpu")
    assert "\n" not in str(raised.value)
    assert capfd.readouterr() == ("", "")  # the line that is raised is the only one
    wrong = {name: tensor[:1] if name == "layernorm.weight" else tensor for name, tensor in weights.items()}
    save_file(wrong, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"cannot be loaded|1 are of another shape") as raised:
        encoder(str(tmp_path), 7, "cpu")
    assert "\n" not in str(raised.value)


def test_an_encoder_that_answers_otherwise_each_time_is_refused(tmp_path: Path) -> None:
    """A masked autoencoder hides patches at random, also when it is not trained."""
    transformers = pytest.importorskip("transformers")
    size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    torch.manual_seed(0)
    for name, kind, config in (
        ("mae", transformers.ViTMAEModel, transformers.ViTMAEConfig(image_size=32, patch_size=8, **size)),
        ("vit", transformers.ViTModel, transformers.ViTConfig(image_size=32, patch_size=8, **size)),
    ):
        kind(config).save_pretrained(tmp_path / name)
        transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path / name)
    assert encoder(str(tmp_path / "vit"), 7, "cpu").facts.num_features == 32
    with pytest.raises(InputError, match="returns different features for the same image") as raised:
        encoder(str(tmp_path / "mae"), 7, "cpu")
    assert "\n" not in str(raised.value)


def test_inception_says_which_package_to_bring() -> None:
    pytest.importorskip("torchmetrics")
    try:
        import torch_fidelity  # noqa: F401  # only to see whether it is there
    except ImportError:
        with pytest.raises(InputError, match="needs the package torch-fidelity"):
            encoder("inception", 7, "cpu")
    else:
        pytest.skip("torch-fidelity is installed")


def test_networks_must_differ() -> None:
    with pytest.raises(InputError, match="must name different networks"):
        check_names(["filters", "filters"])
