"""python -m coreimage: how builds start their child processes."""

from coreimage.cli.main import main

main()
