"""Prefect: runs as flows, schedules, and servers of our own. The only room that imports it."""
