"""Whole runs on a data set that anyone can install."""
