"""Prefect: runs as flows, schedules, and servers of our own. Only this room imports it."""
