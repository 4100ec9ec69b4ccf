"""Thin shells around the kernels: what happens when records arrive."""
