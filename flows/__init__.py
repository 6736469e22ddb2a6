"""Recipes, steps, the Prefect flow and the command line. The top floor, and the only one that knows Prefect."""
