"""Zonda: a fast inference engine in Python."""
__version__ = "0.1.0"
