"""edge-ran: a residual attention network from a folder of photos to a camera classifier on any small device."""

__version__ = "0.1.0"
