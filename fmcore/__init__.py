"""FM Desk's core: everything that is true without a browser or a scheduler."""

__version__ = "0.1.0"
