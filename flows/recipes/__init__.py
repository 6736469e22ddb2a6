"""Recipes: everything that decides a run, read from YAML and settings into one frozen value."""
