"""A benchmark that nobody has, in one folder: all that another one needs beside its line in the list."""
