"""Timings of this package against plain versions written here."""
