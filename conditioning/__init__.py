"""What an image should show: prompts, plans, encoders, guidance."""
