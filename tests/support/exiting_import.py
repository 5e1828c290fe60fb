"""A module that ends the program which imports it."""

raise SystemExit(3)
