"""Prices and sensitivities of every instrument class, one module each; columns in, columns out."""
