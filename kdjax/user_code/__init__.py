"""A function or a class of the user's, by its name, with the source that it needs.

What a config file names as `function`, an object or the text `"my_losses:rank_hinge"`, becomes a
reference and the source of what is referred to: the statements of its file that define it, and those
that define what they use, in that file and in other files of the user's. The source is data. It is part
of a stage's fingerprint, goes into its manifest, and is what runs: in the process that read it, and in
another one that has the manifest alone, wherever the file is by then, and whatever it has become.

The source is the parsed code without comments, formatting and docstrings: a comment changes nothing, a
changed helper or constant does.

Not seen are installed packages and the standard library, which are imported where they are used: the
versions of some are in a manifest, none is in a fingerprint. Nor is what is reached by a name that is
only known when it runs (`getattr(module, name)`, `importlib`, a file that is read), and what a statement
at the top of a file does to something else: apart from definitions and imports, those alone are kept
that assign to, or call a method of, a name that is used. The `__init__` of a package of the user's is
run only where a name of its own is imported.
"""

from kdjax.user_code.loading import described, entered, load, place
from kdjax.user_code.reading import FUNCTION, SOURCE, read, resolved

__all__ = ["FUNCTION", "SOURCE", "described", "entered", "load", "place", "read", "resolved"]
