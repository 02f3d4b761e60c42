"""attnscope: the microscope for the attention gates of convolutional networks."""

__version__ = "0.1.0"
