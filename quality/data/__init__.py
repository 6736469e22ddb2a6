"""Evaluation data: preprocessed real images by split and synthetic images, with labels, masks and texts."""
