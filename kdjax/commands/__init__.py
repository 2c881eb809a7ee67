"""The words of the command line, one file each; a module is imported when its word is used."""
