"""Estimates and their uncertainty: intervals, influence, areas under curves and corrections for multiple testing."""
