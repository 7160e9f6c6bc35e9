"""A classifier that keeps running on boards over ssh: releases side by side, one of them running as a systemd service.

On the board, with the standard library alone: ``layout`` names its files and changes them so that a power cut at any
moment leaves the old or the new release; ``board`` answers what this machine asks; ``service`` is what systemd runs.
With NumPy and a runtime: ``acceptance`` runs a new release against the answers recorded here.

On this machine: ``release`` makes a release of a model and the options of ``run``, ``remote`` carries out the steps on
one board, ``rollout`` does so on several, ``status`` and ``fetch`` ask, ``boards`` remembers where something runs.
"""
