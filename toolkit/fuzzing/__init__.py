"""Hostile input for the drivers, and oracles that say what may come of it without asking the code under test."""
