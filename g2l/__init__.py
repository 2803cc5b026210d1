"""The process of the command `g2l`, also as `python -m g2l`; what the command does is in `stages` and `pipeline`."""
