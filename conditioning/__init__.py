"""Conditions of an image: prompts, plans, encoders, guidance."""
