"""Tasks, training, studies and the command line. Nothing of the library imports this package."""
