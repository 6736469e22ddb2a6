"""What is scored: real images by split and synthetic ones as a network sees them, with their labels and texts."""
