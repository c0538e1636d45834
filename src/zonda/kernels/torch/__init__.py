"""Devices that torch reaches: executable weights, and a plain reference for every operation."""
