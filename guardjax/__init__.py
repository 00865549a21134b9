"""guardjax: train, measure and run image guards that obey the policy they are shown."""

__version__ = "0.1.0"
