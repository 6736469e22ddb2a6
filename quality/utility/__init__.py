"""Utility of synthetic images: downstream models trained on them and tested on real patients."""
