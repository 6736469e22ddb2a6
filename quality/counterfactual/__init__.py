"""Counterfactual pairs: effectiveness, side effects, and the influence of interventions on a classifier."""
