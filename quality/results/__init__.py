"""Results as frozen values that are stored as JSON: numbers and names, but no pixels or paths."""
