"""Counterfactual pairs: did the change show, did anything else move, and what moves a classifier most."""
