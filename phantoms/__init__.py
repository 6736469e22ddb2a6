"""Simulated patients: procedural radiographs and volumes whose every factor is known and can be changed."""
