"""What images are: read, check, de-identify, split, store, export. The lowest floor: no torch, no model."""
