"""How long a test waits for a condition before it says that it does not come."""

#: costs nothing where the condition comes; long, since other tests share the processors
PATIENCE_S = 180.0
