"""The commands: one file each, which parses options and calls the package."""
