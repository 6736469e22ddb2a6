"""Realism and variety of synthetic images: feature distances and neighbourhood scores with their uncertainty."""
