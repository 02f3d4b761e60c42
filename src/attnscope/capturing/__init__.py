"""Record the gates of a network over a data set, in one pass.

The package is not called ``capture`` because a package cannot have a module and a function of the
same name, and users write ``from attnscope import capture``.
"""
