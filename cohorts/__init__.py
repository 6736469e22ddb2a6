"""Cohorts of images: read, check, de-identify, split, store, export. No torch, no model."""
