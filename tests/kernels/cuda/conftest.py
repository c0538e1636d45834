"""Chooses Triton's interpreter where there is no GPU."""
import tests.interpreted  # noqa: F401
