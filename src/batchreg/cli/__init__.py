"""What people type and read; the only package that deals with a terminal and the environment."""

# Of the variables that set options.
PREFIX = "BATCHREG_"
