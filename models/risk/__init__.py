"""Risk models: pure functions of columns; VaR and ES are positive losses, everything else says its sign."""
