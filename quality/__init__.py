"""Assessment of privacy, realism and utility: estimates with sample size, interval and floor, and reports."""
