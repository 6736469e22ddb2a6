"""A short definition of every score in the report, with its source."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Term:
    """One entry of the glossary.

    Attributes:
        title: name of the score on the page.
        meaning: definition in one or two sentences.
        source: publication that defines the score.
    """

    title: str
    meaning: str
    source: str = ""


GENERAL = {
    "floor": Term(
        "Real against real (floor)",
        "The score of real images against real images of other patients at the same sample size. A generator cannot "
        "be expected to do better, and a score cannot be interpreted without it.",
    ),
    "ceiling": Term(
        "Autoencoder alone",
        "The score of real test images that were only encoded and decoded. No denoiser in its latent space can do "
        "better.",
    ),
    "interval": Term(
        "95 % interval",
        "The interval contains the estimated quantity in 95 of 100 repetitions; its method is given with each score.",
    ),
    "range": Term(
        "Range",
        "The smallest and largest value over random draws or over seeds of the feature network; not a confidence "
        "interval.",
    ),
}

COUNTERFACTUAL_FLOOR = Term(
    "Floor",
    "The same score for the autoencoder's reconstruction of the image, or for real test images, as stated with each "
    "score. It is the reference for a method that changes nothing, or for a real image.",
)

TERMS = {
    "composition": Term(
        "Composition",
        "The distance between an image and its counterfactual under a null intervention: what the method changes "
        "unasked.",
        "Monteiro et al. 2023; Melistas et al. 2024",
    ),
    "composition_features": Term(
        "Composition, in features",
        "The same as a distance in filter-bank features; 1 is the mean distance between images of two patients.",
        "Melistas et al. 2024",
    ),
    "effectiveness": Term(
        "Effectiveness",
        "The share of counterfactuals in which a classifier trained on real images predicts the requested state.",
        "Monteiro et al. 2023",
    ),
    "effectiveness_before": Term(
        "State before the intervention",
        "The share of factual images in which the same classifier predicts the state recorded in the cohort.",
    ),
    "effectiveness_r2": Term(
        "Effectiveness, R²",
        "The share of the variance of the requested values that a regressor recovers from the counterfactuals.",
        "Monteiro et al. 2023",
    ),
    "effectiveness_error": Term(
        "Effectiveness, error",
        "The mean absolute difference between the requested value and the value predicted by a regressor.",
        "Melistas et al. 2024",
    ),
    "effectiveness_error_before": Term(
        "Error before the intervention",
        "The same for the factual image: how far its predicted value is from the value requested of the "
        "counterfactual.",
    ),
    "reversibility": Term(
        "Reversibility",
        "The distance between the image and its counterfactual after the intervention has been reversed.",
        "Monteiro et al. 2023",
    ),
    "minimality": Term(
        "Minimality",
        "The distance between counterfactual and factual image; a small value is meaningful only together with "
        "effectiveness.",
        "Melistas et al. 2024",
    ),
    "minimality_features": Term(
        "Minimality, in features",
        "The same as a distance in filter-bank features; 1 is the mean distance between images of two patients.",
        "Melistas et al. 2024",
    ),
    "region_of_change": Term(
        "Region of change",
        "The share of the change that lies in the 10 % of pixels that change most; 0.1 if the change is uniform.",
    ),
    "identity_kept": Term(
        "Identity preserved",
        "The share of counterfactuals that are more similar to their own source image than to any other.",
        "rank-1 retrieval",
    ),
    "unrelated_kept": Term(
        "Unrelated labels preserved",
        "The share of pairs in which the prediction of a label outside the intervention does not change.",
    ),
    "frechet": Term(
        "Fréchet distance",
        "The distance between Gaussians fitted to the features of real and synthetic images; 0 if they are equal, "
        "biased upwards in small samples.",
        "Heusel et al. 2017 (FID)",
    ),
    "frechet_infinite": Term(
        "Fréchet distance, bias-corrected",
        "The distance extrapolated to infinitely many images from the distances at this n and at half of it; near 0, "
        "possibly below, if the distributions are equal.",
        "Chong and Forsyth 2020",
    ),
    "frechet_random_halves": Term(
        "Fréchet distance, any label mix",
        "The Fréchet distance between halves that are not matched for label counts; their random differences raise the "
        "floor and make the score less sensitive.",
        "Heusel et al. 2017 (FID)",
    ),
    "frechet_over_floor": Term(
        "Synthetic over floor",
        "The distance of synthetic images from test patients, as a multiple of that of other real patients.",
    ),
    "frechet_over_reconstruction": Term(
        "Synthetic over autoencoder",
        "The distance of synthetic images from test patients, as a multiple of that of the autoencoder's "
        "reconstructions: the contribution of the denoiser.",
    ),
    "frechet_reconstruction_over_floor": Term(
        "Autoencoder over floor",
        "The distance of reconstructions from test patients, as a multiple of that of real images: the autoencoder's "
        "loss.",
    ),
    "kernel": Term(
        "Kernel distance",
        "The squared maximum mean discrepancy of the features under a cubic kernel; unbiased, so it may be negative.",
        "Bińkowski et al. 2018 (KID)",
    ),
    "precision": Term(
        "Precision",
        "The share of synthetic images within the support of the real images in feature space (realism).",
        "Kynkäänniemi et al. 2019",
    ),
    "recall": Term(
        "Recall",
        "The share of real images within the support of the synthetic images in feature space (variety).",
        "Kynkäänniemi et al. 2019",
    ),
    "density": Term(
        "Density",
        "The number of real neighbourhoods that contain a synthetic image, relative to its expectation; less sensitive "
        "to outliers than precision, and not bounded by 1.",
        "Naeem et al. 2020",
    ),
    "coverage": Term(
        "Coverage",
        "The share of real images with a synthetic image in their neighbourhood; less sensitive to outliers than "
        "recall.",
        "Naeem et al. 2020",
    ),
    "vendi": Term(
        "Vendi score",
        "The effective number of distinct images in the set, computed from feature similarities; best near the floor.",
        "Friedman and Dieng 2023",
    ),
    "mask_dice": Term(
        "Mask agreement (Dice)",
        "The overlap of the requested mask with that predicted by a segmenter trained on real images; 1 if identical.",
        "Dice 1945",
    ),
    "ms_ssim": Term(
        "MS-SSIM between pairs",
        "The mean structural similarity of random pairs of synthetic images; a value far above that of real pairs "
        "indicates low diversity.",
        "Wang et al. 2003; Odena et al. 2017",
    ),
    "label_agreement": Term(
        "Label agreement",
        "The agreement between the prompt of a synthetic image and the prediction of a classifier trained on real "
        "images.",
        "Ravuri and Vinyals 2019 (classification accuracy score, reversed)",
    ),
    "label_calibration": Term(
        "Calibration of label agreement",
        "The expected calibration error of that classifier with respect to the prompts; a value far above the floor "
        "indicates that findings are too pronounced, too subtle or absent.",
        "Naeini et al. 2015",
    ),
    "text_findings": Term(
        "Findings named in the text",
        "The ability of a classifier trained on real images to separate images whose text affirms a finding from "
        "others.",
        "negations after NegEx, Chapman et al. 2001",
    ),
    "attribute_error": Term(
        "Error of a requested attribute value",
        "The mean difference between a requested value, such as an age, and that predicted by a regressor of real "
        "images.",
    ),
    "attribute_r2": Term(
        "R² of a requested attribute value",
        "The share of the variance of the requested values that a regressor recovers from the images.",
    ),
    "clip_score": Term(
        "CLIP score",
        "The cosine similarity of image and text embeddings, times 100; to be compared with that of real images only.",
        "Hessel et al. 2021",
    ),
    "text_match": Term(
        "Image–text matching",
        "The probability that an image is more similar to its own text than to the text of another image; 0.5 is "
        "random.",
    ),
    "share_nearest_in_train": Term(
        "DCR share",
        "The share of synthetic images that are closer to training than to holdout images (distance to closest "
        "record), at equal counts; 0.5 without memorisation.",
        "Meehan et al. 2020",
    ),
    "flagged_share": Term(
        "Flagged as copies",
        "The share of synthetic images that are more similar to a training image than expected by chance, estimated "
        "from their similarity to holdout images; the floor is the false-positive rate of the rule.",
        "contrast against held-out patients, after Meehan et al. 2020",
    ),
    "control_recall": Term(
        "Recall of planted copies",
        "The share of deliberately planted and altered copies of training images that the search flags; the search is "
        "reliable for the kinds of copies with a recall near 1.",
    ),
    "membership_auroc": Term(
        "Membership inference",
        "The AUROC of an attack that separates training patients from patients on whom no network was trained; 0.5 if "
        "they cannot be separated.",
        "van Breugel et al. 2023; Carlini et al. 2023; Kong et al. 2024",
    ),
    "membership_tpr": Term(
        "True-positive rate of membership inference",
        "The share of training patients identified by the attack at a low false-positive rate among other patients.",
        "Carlini et al. 2022",
    ),
    "membership_blind": Term(
        "Blind baseline",
        "The AUROC of a classifier that uses real images only, without the generator; a value above 0.5 means that "
        "training patients differ from the others independently of it.",
        "Das et al. 2024",
    ),
    "disclosure_gain": Term(
        "Attribute disclosure",
        "How much better a recorded attribute is predicted from the synthetic images for training patients than for "
        "other patients; 0 if nothing about them is disclosed.",
    ),
    "utility": Term(
        "Train on synthetic, test on real",
        "Accuracy or AUROC on real test patients of a classifier trained on synthetic images, compared with the same "
        "classifier trained on real images and with a model of age, sex and other metadata alone.",
        "Esteban et al. 2017 (TSTR)",
    ),
}


NETWORKS = {
    "cross_fitted": "classifier cross-fitted on real patients whom it does not score (2-fold)",
    "simulated": "classifier fitted on simulated patients",
    "filters": "fixed filter bank",
    "volume_filters": "fixed filter bank of whole volumes",
    "radiomics": "radiomics (grey values and texture)",
}
RECONSTRUCTION = "_reconstruction"
RATIOS = ("_over_floor", "_over_reconstruction")


def is_reconstruction(name: str) -> bool:
    """Whether a score is that of the autoencoder's reconstructions."""
    return name.endswith(RECONSTRUCTION) and not is_ratio(name)


def is_ratio(name: str) -> bool:
    """Whether a score is a ratio of two distances."""
    return name.endswith(RATIOS)


def network_title(network: str) -> str:
    """The display name of a feature network; encoders keep their own name."""
    return NETWORKS.get(network, network)


def term(name: str, estimand: str = "") -> Term:
    """The glossary entry of a score; the estimand is the definition of a score without an entry."""
    base = name.replace("frechet_random_halves", "frechet") if is_ratio(name) else name
    if known := TERMS.get(base):
        return known if base == name else Term(f"{known.title}, any label mix", known.meaning)
    return Term(name.replace("_", " ").capitalize(), estimand)
