"""What each score of the report is, in one line with its source."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Family = Literal["distance", "coverage", "diversity", "agreement", "copies", "membership", "utility", "other"]


@dataclass(frozen=True)
class Term:
    """One entry of the glossary.

    Attributes:
        title: name of the score on the page.
        meaning: what it says, in one line.
        source: who defined it.
        family: what kind of question it answers.
    """

    title: str
    meaning: str
    source: str = ""
    family: Family = "other"


GENERAL = {
    "floor": Term(
        "Real against real (floor)",
        "What real images reach against real images of other patients at the same number of images: no generator "
        "should be expected to do better, and a score without it cannot be read.",
    ),
    "ceiling": Term(
        "Autoencoder alone",
        "The score of real test images that were only encoded and decoded: no denoiser that uses it can do better.",
    ),
    "interval": Term(
        "95 % interval",
        "Made so that it holds the named quantity in 95 of 100 repetitions; how it was made stands beside each score.",
    ),
    "range": Term(
        "Range",
        "Smallest and largest value over random draws or over seeds of the feature network; no confidence interval.",
    ),
}

YARDSTICK = Term(
    "Floor",
    "What the same figure is for the autoencoder's reconstruction of the image, or for real test images: what a method "
    "that does nothing more, or a real image, reaches. Beside each figure stands which of them it is.",
)

TERMS = {
    "composition": Term(
        "Composition",
        "How far a null action moves the image: what the method changes without having been asked.",
        "Monteiro et al. 2023; Melistas et al. 2024",
    ),
    "composition_features": Term(
        "Composition, in features",
        "The same as a distance in the filter bank; 1: as far as another patient's image.",
        "Melistas et al. 2024",
    ),
    "effectiveness": Term(
        "Effectiveness",
        "Share of counterfactuals in which a classifier trained on real images sees what was asked for.",
        "Monteiro et al. 2023",
        "agreement",
    ),
    "effectiveness_before": Term(
        "State before, as seen",
        "Share of factual images in which the same classifier sees the state that the cohort states.",
        "",
        "agreement",
    ),
    "effectiveness_r2": Term(
        "Effectiveness, R²",
        "How much of the differences between the values that were asked for can be read off the counterfactuals.",
        "Monteiro et al. 2023",
        "agreement",
    ),
    "effectiveness_error": Term(
        "Effectiveness, error",
        "Mean absolute difference between the value that was asked for and the one that is read.",
        "Melistas et al. 2024",
        "agreement",
    ),
    "effectiveness_error_before": Term(
        "Error before",
        "The same for the factual image: how far it is from the value that was asked of the counterfactual.",
        "",
        "agreement",
    ),
    "reversibility": Term(
        "Reversibility",
        "How far the image is from its counterfactual taken back.",
        "Monteiro et al. 2023",
    ),
    "minimality": Term(
        "Minimality",
        "How far the counterfactual is from the factual image; small only means something beside effectiveness.",
        "Melistas et al. 2024",
    ),
    "minimality_features": Term(
        "Minimality, in features",
        "The same as a distance in the filter bank; 1: as far as another patient's image.",
        "Melistas et al. 2024",
    ),
    "region_of_change": Term(
        "Region of change",
        "Share of the change that lies in the tenth of the pixels that change most; .1 for an even change.",
    ),
    "identity_kept": Term(
        "Identity kept",
        "Share of counterfactuals that are more like their own source image than like any other.",
        "rank-1 retrieval",
    ),
    "unrelated_kept": Term(
        "Unrelated labels kept",
        "Share of pairs in which a label that was to stay is read alike before and after.",
        "",
        "agreement",
    ),
    "frechet": Term(
        "Fréchet distance",
        "Distance between Gaussians fitted to the features of real and synthetic images; 0 for equal ones, biased "
        "upwards when images are few.",
        "Heusel et al. 2017 (FID)",
        "distance",
    ),
    "frechet_infinite": Term(
        "Fréchet distance, without bias",
        "Extrapolated to infinitely many images from the distance at this n and at half of it; near 0 when nothing "
        "differs, and it may fall below.",
        "Chong and Forsyth 2020",
    ),
    "frechet_random_halves": Term(
        "Fréchet distance, any label mix",
        "The Fréchet distance when the label counts of the compared halves are left to chance; their luck raises the "
        "floor, so that a blur shows less.",
        "Heusel et al. 2017 (FID)",
    ),
    "frechet_over_floor": Term(
        "Synthetic over floor",
        "How many times farther from test patients synthetic images are than other real patients are.",
    ),
    "frechet_over_reconstruction": Term(
        "Synthetic over autoencoder",
        "How many times farther from test patients synthetic images are than the autoencoder's own reconstructions: "
        "what the denoiser adds.",
    ),
    "frechet_reconstruction_over_floor": Term(
        "Autoencoder over floor",
        "How many times farther from test patients reconstructions are than real images: what the autoencoder costs.",
    ),
    "kernel": Term(
        "Kernel distance",
        "Squared maximum mean discrepancy of the features under a cubic kernel; unbiased, so it may fall below 0.",
        "Bińkowski et al. 2018 (KID)",
        "distance",
    ),
    "precision": Term(
        "Precision",
        "Share of synthetic images that lie among the real ones in feature space: are they realistic?",
        "Kynkäänniemi et al. 2019",
        "coverage",
    ),
    "recall": Term(
        "Recall",
        "Share of real images that lie among the synthetic ones: is the variety of patients reached?",
        "Kynkäänniemi et al. 2019",
        "coverage",
    ),
    "density": Term(
        "Density",
        "How many real neighbourhoods a synthetic image falls into, relative to chance; less moved by outliers than "
        "precision, and not bounded by 1.",
        "Naeem et al. 2020",
        "coverage",
    ),
    "coverage": Term(
        "Coverage",
        "Share of real images with a synthetic one in their neighbourhood; less moved by outliers than recall.",
        "Naeem et al. 2020",
        "coverage",
    ),
    "vendi": Term(
        "Vendi score",
        "How many different images the set amounts to, out of how alike its features are; near the floor is best.",
        "Friedman and Dieng 2023",
        "coverage",
    ),
    "mask_dice": Term(
        "Mask agreement (Dice)",
        "Overlap of the mask that was asked for with the one that a segmenter of real images finds; 1: the same.",
        "Dice 1945",
        "agreement",
    ),
    "ms_ssim": Term(
        "MS-SSIM between pairs",
        "Mean structural similarity of random pairs of synthetic images; far above the real pairs means that images "
        "repeat themselves.",
        "Wang et al. 2003; Odena et al. 2017",
        "diversity",
    ),
    "label_agreement": Term(
        "Label agreement",
        "Does a classifier trained on real images see in a synthetic image what its prompt asked for?",
        "Ravuri and Vinyals 2019 (classification accuracy score, reversed)",
        "agreement",
    ),
    "label_calibration": Term(
        "Calibration of label agreement",
        "How far the probabilities of that classifier are from how often it is right about what was asked for; far "
        "above the floor: findings are drawn too strong, too weak, or not at all.",
        "Naeini et al. 2015",
        "agreement",
    ),
    "text_findings": Term(
        "Findings named in the text",
        "Does a classifier trained on real images tell images whose text affirms a finding from the others?",
        "negations after NegEx, Chapman et al. 2001",
        "agreement",
    ),
    "attribute_error": Term(
        "Error of a number asked for",
        "How far the value (an age, say) that a regressor of real images reads is from the one that was asked for.",
        "",
        "agreement",
    ),
    "attribute_r2": Term(
        "R² of a number asked for",
        "How much of the differences between the values asked for can be read off the images.",
        "",
        "agreement",
    ),
    "clip_score": Term(
        "CLIP score",
        "Cosine of image and text in a pretrained pair of encoders, times 100; only to be read beside real images.",
        "Hessel et al. 2021",
        "agreement",
    ),
    "text_match": Term(
        "Own text or another's",
        "Chance that an image is more alike to its own text than images are to other texts; one half: luck.",
        "",
        "agreement",
    ),
    "share_nearest_in_train": Term(
        "Share nearest to train",
        "Share of synthetic images whose nearest real neighbour is a training patient rather than a holdout patient, "
        "at equal counts; 0.5 when the generator remembers nobody.",
        "Meehan et al. 2020",
        "copies",
    ),
    "flagged_share": Term(
        "Flagged as copies",
        "Share of synthetic images that are more alike to one training image than chance makes them, as far as those "
        "images lean to holdout patients; its floor is the share of honest images that the rule may flag.",
        "contrast against held-out patients, after Meehan et al. 2020",
        "copies",
    ),
    "control_recall": Term(
        "Planted copies found",
        "Share of copies of training images, put in on purpose and disguised, that the search flags; it may be relied "
        "on for the kinds of which it finds nearly all.",
        "",
        "copies",
    ),
    "membership_auroc": Term(
        "Membership attack",
        "Chance that a training patient looks more learned from than a patient whom no network saw; one half when "
        "nobody can tell.",
        "van Breugel et al. 2023; Carlini et al. 2023; Kong et al. 2024",
        "membership",
    ),
    "membership_tpr": Term(
        "Training patients found",
        "Share of training patients that the attack finds while few of the other patients are false alarms.",
        "Carlini et al. 2022",
        "membership",
    ),
    "membership_blind": Term(
        "Blind baseline",
        "The same by a classifier that saw no generator; where it is not one half, training patients differ from the "
        "others by themselves.",
        "Das et al. 2024",
        "membership",
    ),
    "disclosure_gain": Term(
        "Disclosed attribute",
        "How much better what is recorded of a patient is predicted from the synthetic images for training patients "
        "than for others; nought when nothing of theirs was disclosed.",
        "",
        "membership",
    ),
    "utility": Term(
        "Train on synthetic, test on real",
        "Accuracy or AUROC on real test patients of a classifier trained on synthetic images, beside the same one "
        "trained on real images and beside what age, sex and other metadata alone predict.",
        "Esteban et al. 2017 (TSTR)",
        "utility",
    ),
}


NETWORKS = {
    "cross_fitted": "classifier cross-fitted on real patients whom it does not score",
    "simulated": "classifier fitted on simulated patients",
    "filters": "fixed filter bank",
    "volume_filters": "fixed filter bank of whole volumes",
    "radiomics": "radiomics: grey values and texture",
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
    """A feature network in words; encoders go by their own name."""
    return NETWORKS.get(network, network)


def term(name: str, estimand: str = "") -> Term:
    """The entry of a score; one that the glossary does not know speaks for itself through its estimand."""
    base = name.replace("frechet_random_halves", "frechet") if is_ratio(name) else name
    if known := TERMS.get(base):
        return known if base == name else Term(f"{known.title}, any label mix", known.meaning)
    return Term(name.replace("_", " ").capitalize(), estimand)
