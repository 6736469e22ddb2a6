"""Shared foundations: exceptions, records, folders, progress, randomness, workers. Nothing here handles images."""
