"""A board over ssh, which runs this very code.

One connection of OpenSSH's client carries everything: requests, files, output, signals (``targets/agent`` is its other
end). Nothing is asked for at a terminal, nothing is installed unless told to, and when the connection ends, for
whatever reason, so does what it started.

``target`` is the board as a ``Target``; ``connection`` the connection and its frames; ``command_line`` the words that
start ssh; ``failure`` why no connection came about; ``payload`` what is sent; ``output`` what comes back as text;
``packages`` what the board must have installed, and this code as an archive.
"""

from edge_ran.targets.ssh.target import SshTarget

__all__ = ["SshTarget"]
