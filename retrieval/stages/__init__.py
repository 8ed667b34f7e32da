"""One file a verb: run(settings, inputs) -> artifact. The only place where parts meet."""
