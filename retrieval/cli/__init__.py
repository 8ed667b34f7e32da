"""The command line: typer verbs over the stages, one error boundary."""
