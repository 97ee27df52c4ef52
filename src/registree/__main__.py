"""``python -m registree`` is `reg`."""

from registree.cli import main

main()
