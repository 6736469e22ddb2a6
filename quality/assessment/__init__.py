"""The assessment of a synthetic cohort: its parts, their order, and warnings for the reader."""
