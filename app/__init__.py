"""The composition root: settings, processes, commands, gateway, sinks."""
