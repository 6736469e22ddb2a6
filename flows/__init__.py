"""Recipes, runs, the Prefect flow and the command line. This is the top floor, and the only one that uses Prefect."""
