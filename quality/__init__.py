"""Is it private, realistic, useful: estimates with n, interval and floor, and the report."""
