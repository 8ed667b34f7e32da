"""`python -m retrieval` is the `retrieval` command."""

from retrieval.cli.main import main

main()
