"""The run of a recipe: its folders, the keys of its stages, what is current, what it costs, its stages."""
