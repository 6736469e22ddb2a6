"""Estimates and how sure they are: intervals, influence, areas under curves, corrections for several tests."""
