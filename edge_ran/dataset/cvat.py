"""CVAT's annotations of pictures (``annotations.xml``, "CVAT for images"), as a table of cells."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from edge_ran.dataset.json_tables import Row, several_labels, table_of
from edge_ran.errors import InputError


def of_xml(source: Path, text: str) -> list[Row]:
    """Return the table of the pictures that have a tag; a tag's attributes are columns of their own.

    Raises:
        InputError: it is no XML, or of another form; a picture has several tags, or none has one.
    """
    if "<!DOCTYPE" in text:  # where entities would be declared, which can name other files and grow without end
        raise InputError(f"manifest {source} is XML that declares a document type", "export it from CVAT again")
    try:
        root = ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError) as error:
        raise InputError(f"manifest {source} is no XML: {error}", "export it from CVAT again") from error
    images = root.findall("image")
    if root.tag != "annotations" or not images:
        what = f"manifest {source} is XML, but not of CVAT's pictures"
        raise InputError(what, f"list the pictures with their classes in {source.parent}/list.csv: image,label")
    rows: list[tuple[int, dict[str, object]]] = []
    for number, image in enumerate(images, 1):
        name, tags = image.get("name", ""), image.findall("tag")
        labels = {tag.get("label", "") for tag in tags}
        if len(labels) > 1:
            raise several_labels(f"manifest {source}: {name}", labels)
        told = {one.get("name", ""): one.text or "" for tag in tags for one in tag.findall("attribute")}
        subset = image.get("subset", "")
        split = "" if subset.lower() == "default" else subset
        rows.append((number, {"image": name, "label": min(labels, default=""), "split": split, **told}))
    if not any(row["label"] for _, row in rows):
        what = f"manifest {source} lists what is in pictures, not their classes: no picture has a tag"
        raise InputError(what, f"list the pictures with their classes in {source.parent}/list.csv: image,label")
    return table_of(source, rows)
