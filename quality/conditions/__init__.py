"""Agreement of synthetic images with their prompts: labels, findings named in texts, attribute values and masks."""
