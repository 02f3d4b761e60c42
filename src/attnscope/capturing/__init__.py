"""Record the gates of a network over a data set, in one pass.

The package is not called ``capture``, since a package cannot have a module and a function of one
name, and ``from attnscope import capture`` is what people write.
"""
