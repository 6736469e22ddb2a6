"""The run of a recipe: its folders, the keys of its stages, the current artifacts, its costs and its control model."""
