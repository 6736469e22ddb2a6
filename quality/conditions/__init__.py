"""Does a synthetic image show what its prompt asked for: labels, findings that texts name, numbers, masks."""
