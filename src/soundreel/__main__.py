"""`python -m soundreel`, which `torchrun -m soundreel train ...` needs."""

from soundreel.cli.main import main

main()
