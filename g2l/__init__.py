"""Start the command `g2l` or `python -m g2l`; what it does is in `stages` and `pipeline`."""
