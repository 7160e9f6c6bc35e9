"""From clips and photos to a data set: sharp, different frames, grouped by clip and visit, with a manifest.

A source is a folder of class folders. Sub-folders of a class are visits (another day, another light); of several
sources each is a visit, too. Of every ``step_s`` seconds of a clip the sharpest frame is a candidate; a candidate is
left out when it is blurred or looks like one that was taken before it from the same class.

``candidates`` reads the sources, ``selection`` chooses among the candidates and splits them, ``contact_sheet`` shows
them, ``writing`` does it all.
"""

from edge_ran.collect.candidates import Choice
from edge_ran.collect.collection import ClassCount, Collection
from edge_ran.collect.writing import build

__all__ = ["Choice", "ClassCount", "Collection", "build"]
